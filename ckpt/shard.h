/* One HDF5 file of a checkpoint.  Its bytes depend on the datasets and frames it is given and on nothing
 * else: no times, no paths, a fixed version of the format.  That version checks every piece of HDF5's own
 * structure too. HDF5 here is serial: one thread calls this file.
 */
#ifndef CARACAL_CKPT_SHARD_H
#define CARACAL_CKPT_SHARD_H

#include <xxhash.h>

#include "ckpt/chunk.h"
#include "ckpt/layout.h"

typedef struct shard shard;

/* Creates the file.  Its bytes take shape in `image`, as outfile.h says, or without memory (NULL). */
int shard_create(shard **out, const char *path, char *image, error *e);
/* The file may now use so many bytes of its memory. */
void shard_allow(shard *s, size_t room);
/* Begins the next dataset, "/" + t->name; its chunks follow. */
int shard_add(shard *s, const ckpt_tensor *t, const chunk_grid *g, error *e);
int shard_put(shard *s, const chunk_span *chunk, const void *frame, size_t bytes, error *e);
/* Writes what HDF5 still holds and closes HDF5's side; the rest happens in the background.  Returns how much
 * of its memory the file needs until shard_finish. */
size_t shard_seal(shard *s);
/* Seals the file if that was not done, waits until it is durable, and tells its size and digest.  *s is gone
 * whatever is returned. */
int shard_finish(shard *s, int64_t *bytes, XXH128_hash_t *digest, error *e);

int shard_open(shard **out, const char *path, error *e);
/* Turns to a dataset, after checking that it is stored as `t` and `g` say. */
int shard_select(shard *s, const ckpt_tensor *t, const chunk_grid *g, error *e);
/* Chunk `index` of the dataset turned to, decoded: *values are g->full elements, the codec's own.  An error
 * names the file, the dataset, the chunk and where it lies. */
int shard_read(shard *s, chunk_codec *codec, const ckpt_tensor *t, const chunk_grid *g, int64_t index,
               const void **values, error *e);
/* The same chunk as it is stored: a frame, valid until the next read. */
int shard_frame(shard *s, const ckpt_tensor *t, const chunk_grid *g, int64_t index, const void **frame,
                size_t *bytes, error *e);
void shard_close(shard *s); /* NULL is allowed */

#endif
