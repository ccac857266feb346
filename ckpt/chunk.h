/* One chunk: bytes of equal rank side by side (HDF5's shuffle), then one zstd frame with a checksum.  Nothing
 * here touches HDF5, and a codec has no state between calls: with a codec each, threads may work on different
 * chunks.
 */
#ifndef CARACAL_CKPT_CHUNK_H
#define CARACAL_CKPT_CHUNK_H

#include <stddef.h>

#include "launch/error.h"

typedef struct chunk_codec chunk_codec; /* zstd's contexts and scratch */

chunk_codec *chunk_codec_new(void);
void chunk_codec_free(chunk_codec *k);

/* Encodes `elements` values of `size` (4 or 8) bytes, padded with zeros to `full` elements; full * size is at
 * most CHUNK_BYTES.  *frame is the codec's own, valid until its next call.  Returns the frame's bytes. */
size_t chunk_encode(chunk_codec *k, size_t size, const void *values, size_t elements, size_t full,
                    const void **frame);
/* Decodes a frame that must hold exactly `full` elements; *values is the codec's own. */
int chunk_decode(chunk_codec *k, size_t size, const void *frame, size_t bytes, size_t full,
                 const void **values, error *e);
/* The most bytes that a frame of `full` elements can have. */
size_t chunk_frame_limit(size_t size, size_t full);

#endif
