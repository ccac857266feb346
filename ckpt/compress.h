/* Threads that compress chunks ahead of the one that writes them.  Frames are handed out in the chunks'
 * order: neither which thread made one nor when shows in a file.  At most twice as many frames as threads
 * wait.
 */
#ifndef CARACAL_CKPT_COMPRESS_H
#define CARACAL_CKPT_COMPRESS_H

#include "ckpt/chunk.h"
#include "ckpt/layout.h"

typedef struct compressor compressor;

compressor *compressor_new(int threads);
void compressor_free(compressor *c); /* NULL is allowed */
/* The memory of a compressor of so many threads. */
size_t compressor_bytes(int threads);

/* Starts the threads on all chunks of tensors[0 .. n - 1], whose elements lie one tensor after the other in
 * `values`; both stay as they are until compressor_end.  An error: the system gives no thread. */
int compressor_begin(compressor *c, const ckpt_tensor *tensors, int64_t n, const char *values, error *e);
/* The next chunk's frame, valid until the next call.  Returns its bytes. */
size_t compressor_next(compressor *c, const void **frame);
/* Ends the threads; chunks that nobody asked for are dropped. */
void compressor_end(compressor *c);

#endif
