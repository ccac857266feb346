/* A checkpoint written by one process, tensor after tensor, in the memory of one chunk: for what turns other
 * files into checkpoints.  The files have the bytes that ckpt_save gives them.
 */
#ifndef CARACAL_CKPT_STREAM_H
#define CARACAL_CKPT_STREAM_H

#include "ckpt/ckpt.h"

typedef struct ckpt_stream ckpt_stream;

/* Begins step `step` under `directory` (created if missing).  The list stays the caller's, and stays as it is
 * until the end.  EXIT_USAGE: there is such a step already. */
int ckpt_stream_create(ckpt_stream **out, const char *directory, int64_t step, int64_t shards,
                       const ckpt_tensor *tensors, int64_t n_tensors, error *e);
/* The next `count` (at least one) elements, of the type of the tensor that they belong to; NULL: zeros.  A
 * call stays inside one tensor. */
int ckpt_stream_append(ckpt_stream *s, const void *values, int64_t count, error *e);
/* Completes the checkpoint, once every element was given, and releases the writer.  Where abandon != 0 or
 * something fails, nothing of it stays. */
int ckpt_stream_finish(ckpt_stream *s, const json_t *state, int abandon, error *e);

#endif
