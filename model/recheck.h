/* A layer's attention backward and expert products, computed a second time from the same inputs by the same
 * kernels and compared bit for bit: an honest processor gives the same bits twice (docs/determinism.md).
 */
#ifndef CARACAL_MODEL_RECHECK_H
#define CARACAL_MODEL_RECHECK_H

#include "model/context.h"

typedef struct recheck {
    const kernels *k;
    int64_t layer;              /* the layer to compute twice, -1: none */
    real *dq_T, *dkv_T, *da_TR; /* second results, as in model_scratch */
    real *rows_Q, *rows[2];     /* of expert products; some rows of either result, in host memory */
    error found;                /* the first difference: EXIT_SDC, naming layer, tensor, place and values */
} recheck;

/* Room for second results of this context's sizes; found and layer say: nothing yet. */
void recheck_create(recheck *r, const context *x);
/* Nothing happens to one that was never created and is all zero. */
void recheck_destroy(recheck *r);

/* Is the layer at work one that is computed twice? */
static inline int recheck_due(const context *x) {
    return x->recheck && x->recheck->layer == x->layer;
}

/* Compares first [rows, cols] with again (both with ld).  `of` and `number` name the place: "self_attn", 1.
 */
void recheck_compare(const context *x, const char *of, int64_t number, const char *tensor, int64_t rows,
                     int64_t cols, int64_t ld, const real *first, const real *again);

#endif
