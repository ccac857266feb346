/* Embedding: rows of a table, and the sum of their gradients. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

void CPU_(embedding_forward)(kernel_context *ctx, int64_t rows, int64_t h, float *x, const float *w,
                             const int32_t *ids) {
    CPU_(copy_rows)(ctx, rows, h, x, NULL, w, ids);
}

/* Threads share out columns: an id may stand in many rows, and its row of dw sums them in their order. */
void CPU_(embedding_backward)(kernel_context *ctx, int64_t rows, int64_t h, float *dw, const float *dx,
                              const int32_t *ids) {
    enum { COLUMNS = 4 * LANES };
#pragma omp parallel for num_threads(threads_for(ctx, rows *h)) schedule(static)
    for (int64_t start = 0; start < h; start += COLUMNS) {
        int64_t end = h - start < COLUMNS ? h : start + COLUMNS;
        for (int64_t r = 0; r < rows; r++) {
            float *sum = dw + ids[r] * h;
            for (int64_t c = start; c < end; c += LANES)
                vf_store_n(sum + c, vf_add(vf_load_n(sum + c, end - c), vf_load_n(dx + r * h + c, end - c)),
                           end - c);
        }
    }
}
