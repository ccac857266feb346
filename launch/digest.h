/* Digests of memory and messages in blocks of 16 KiB, and which bit of a block is wrong when they differ. */
#ifndef CARACAL_LAUNCH_DIGEST_H
#define CARACAL_LAUNCH_DIGEST_H

#include <stddef.h>
#include <stdint.h>

enum { DIGEST_BLOCK = 16384 }; /* bytes; as many as the kernels' digest takes of float */

static inline size_t digest_blocks(size_t bytes) {
    return (bytes + DIGEST_BLOCK - 1) / DIGEST_BLOCK;
}

/* out [digest_blocks(bytes)] = XXH3-64 of each block. */
void digest_of(uint64_t *out, const void *data, size_t bytes);

/* `block` (at most 32 KiB) once had the digest `was`.  If that differs by one bit from what is there now:
 * the number of the bit (bit % 8 of byte bit / 8), otherwise -1.  Tries them all, which takes 40 ms for
 * 16 KiB: for reports only. */
int64_t digest_changed_bit(const void *block, size_t bytes, uint64_t was);

#endif
