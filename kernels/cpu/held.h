/* Weights packed as products read them: in bf16 in pairs (bf16.h), at the first product after hold that
 * multiplies by them; in float32 only those that few rows are multiplied by again and again, as each token of
 * a generation does.  Packed once, for all other products until they are written again. */
#ifndef CARACAL_KERNELS_CPU_HELD_H
#define CARACAL_KERNELS_CPU_HELD_H

#include "kernels/cpu/gemm_tile.h"

typedef struct held_matrix held_matrix;

typedef struct held {
    const float *x; /* [n], not written until the next hold */
    int64_t n;
    float *room; /* [size], of which `used` hold packed matrices */
    int64_t size, used;
    held_matrix *slot; /* [slots], by address: a power of two, or none; `taken` of them are not empty */
    int64_t slots, taken;
} held;

void CPU_(held_free)(held *h);

/* B of g in whole panels of its whole k, zeros beyond its columns: [panel][k][PANEL], or in bf16
 * [panel][pairs][PANEL].  NULL if g may not keep a copy of B: it is not held, or too small to be worth it, or
 * there is no room; or, in float32, g has many rows, or B was multiplied by few rows a few times only.
 * held_pack counts, and makes a copy that is not there yet, with the context's threads; held_find only looks,
 * from any thread. */
const float *CPU_(held_pack)(const kernel_context *ctx, const gemm_problem *g);
const float *CPU_(held_find)(const kernel_context *ctx, const gemm_problem *g);

#endif
