/* A file on its way to the disk: written at any offset, and at the end durable, its size and digest known.
 *
 * With memory to take shape in, its bytes gather there.  A thread writes behind, in large blocks past the
 * page cache where the file system allows that, and computes the digest when the last byte is known: nothing
 * is read back, and the page cache, which training's data needs, stays as it is.  Without memory, or when
 * that is full, bytes go to the file as they come, and the digest is read back.
 */
#ifndef CARACAL_CKPT_OUTFILE_H
#define CARACAL_CKPT_OUTFILE_H

#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

#include "launch/error.h"

typedef struct outfile outfile;

enum { OUTFILE_PAGE = 4096 };

/* Creates the file, or empties it.  `image`: memory, aligned to OUTFILE_PAGE, of which the file may use the
 * first bytes that outfile_allow says, until outfile_finish; NULL: none. */
int outfile_create(outfile **out, const char *path, char *image, error *e);
/* The file may now use the first `room` bytes of its memory; never less than before. */
void outfile_allow(outfile *f, size_t room);
/* These are one thread's.  A disk's failure is kept: nothing is written from then on, and
 * outfile_finish tells. */
void outfile_write(outfile *f, size_t at, const void *data, size_t bytes);
/* What was written; zeros where nothing was. */
void outfile_read(outfile *f, size_t at, void *data, size_t bytes);
void outfile_resize(outfile *f, size_t bytes);
size_t outfile_size(const outfile *f); /* of what was written so far */
/* Nothing more comes: the thread does the rest. */
void outfile_seal(outfile *f);
/* How much of its memory it holds, once sealed. */
size_t outfile_held(const outfile *f);
/* errno of the first failure so far, or 0. */
int outfile_failure(const outfile *f);
/* Nobody wants the file any more: nothing else is written, and outfile_finish fails. */
void outfile_cancel(outfile *f);
/* Seals the file, waits until it is durable, and tells its size and digest.  *f is gone whatever is returned.
 */
int outfile_finish(outfile *f, int64_t *bytes, XXH128_hash_t *digest, error *e);

#endif
