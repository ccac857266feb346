/* Stores that go past the caches.  An ordinary store reads the line that it changes, which for a result of
 * which every byte is new is a third of all traffic; and what is larger than the last-level cache is not
 * there any more when its reader comes.  Smaller results are left in the cache for their readers.
 */
#ifndef CARACAL_KERNELS_CPU_STREAM_H
#define CARACAL_KERNELS_CPU_STREAM_H

#include "kernels/cpu/vec.h"

enum { STREAM_BYTES = 32 << 20 };

/* Does an operation whose operands and results have so many bytes together write its result, rows from y on
 * and ld elements apart, past the caches?  A function of sizes and alignment; the bits are the same either
 * way. */
static inline int stream_wanted(int64_t bytes, const float *y, int64_t ld) {
    return bytes >= STREAM_BYTES && ((uintptr_t)y | (uintptr_t)(ld * (int64_t)sizeof *y)) % 64 == 0;
}

/* The first n lanes, of which all 16 are streamed where that is wanted. */
VEC void vf_put_n(float *p, vf x, int64_t n, int stream) {
    if (stream && n >= LANES) vf_stream(p, x);
    else vf_store_n(p, x, n);
}

/* By each thread that streamed, before others read: such stores are not in order with later ones. */
VEC void stream_end(int stream) {
    if (stream) _mm_sfence();
}

#endif
