/* Weights in pairs (bf16.h), as products read them: packed at the first product of a step that multiplies by
 * them, for all others until they are written again. */
#ifndef CARACAL_KERNELS_CPU_HELD_H
#define CARACAL_KERNELS_CPU_HELD_H

#include <stddef.h>

#include "kernels/cpu/gemm_tile.h"

typedef struct held_matrix held_matrix;

typedef struct held {
    const float *x; /* [n], not written until the next hold */
    int64_t n;
    float *room; /* [size], of which `used` hold packed matrices */
    int64_t size, used;
    held_matrix *slot; /* [slots], by address: a power of two, or none */
    int64_t slots;
} held;

void CPU_(held_free)(held *h);

/* B of g in pairs, whole panels of its whole k: [panel][pairs][PANEL], zeros beyond its columns.  NULL if g
 * may not keep a copy of B: it is not held, or too small to be worth it, or there is no room.
 * held_pack makes a copy that is not there yet, with the context's threads; held_pairs only looks, from any
 * thread. */
const float *CPU_(held_pack)(const kernel_context *ctx, const gemm_problem *g);
const float *CPU_(held_pairs)(const kernel_context *ctx, const gemm_problem *g);

#endif
