#include "model/head.h"

void head_loss(const context *x, real *loss, int32_t *best, real *dfinal, real *dlm_head, int accumulate,
               const real *final, const real *lm_head, const int32_t *targets, double scale, real *logits) {
    const kernels *k = x->k;
    int64_t h = x->c.hidden_size, v = x->c.vocab_size;
    int backward = dfinal && scale != 0; /* scale is 0 when no target counts */
    if (dfinal && !backward) {
        k->zero(k->ctx, x->tokens * h, dfinal);
        if (!accumulate) k->zero(k->ctx, v * h, dlm_head);
    }
    for (int64_t t = 0; t < x->tokens; t += k->head_rows) {
        int64_t rows = x->tokens - t < k->head_rows ? x->tokens - t : k->head_rows;
        const real *y = final + t * h;
        k->gemm(k->ctx, GEMM_NT, rows, v, h, logits, v, NULL, y, h, lm_head, h);
        k->cross_entropy(k->ctx, rows, v, backward ? scale : 0, loss + t, best ? best + t : NULL, logits,
                         targets + t);
        if (!backward) continue;
        k->gemm(k->ctx, GEMM_NN, rows, h, v, dfinal + t * h, h, NULL, logits, v, lm_head, h);
        k->gemm(k->ctx, GEMM_TN, v, h, rows, dlm_head, h, t || accumulate ? dlm_head : NULL, logits, v, y, h);
        context_progress(x);
    }
}
