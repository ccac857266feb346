/* One HDF5 file of a checkpoint.  Its bytes depend on the datasets and frames it is given and on nothing
 * else: no times, no paths, a fixed version of the format.  That version checks every piece of HDF5's own
 * structure too. HDF5 here is serial: one thread calls this file.
 */
#ifndef CARACAL_CKPT_SHARD_H
#define CARACAL_CKPT_SHARD_H

#include "ckpt/chunk.h"
#include "ckpt/layout.h"

typedef struct shard shard;

int shard_create(shard **out, const char *path, error *e);
/* Begins the next dataset, "/" + t->name; its chunks follow. */
int shard_add(shard *s, const ckpt_tensor *t, const chunk_grid *g, error *e);
int shard_put(shard *s, const chunk_span *chunk, const void *frame, size_t bytes, error *e);
/* Writes what HDF5 still holds and closes; *s is gone whatever is returned.  Nothing is synced. */
int shard_finish(shard *s, error *e);

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
