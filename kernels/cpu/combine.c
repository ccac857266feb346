/* What came back from the experts, summed per token, with the identity experts' part. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

/* Sum of the weights of a token's identity experts, in order of slots; *any says whether there are some. */
static float identity_weight(int64_t topk, const int32_t *row_of, const float *weight, int *any) {
    float sum = 0;
    *any = 0;
    for (int64_t k = 0; k < topk; k++) {
        if (row_of[k] >= 0) continue;
        sum += weight[k];
        *any = 1;
    }
    return sum;
}

void CPU_(combine_forward)(kernel_context *ctx, int64_t tokens, int64_t h, int64_t topk, float *out,
                           const float *rows, const int32_t *row_of, const float *weight, const float *y) {
#pragma omp parallel for num_threads(threads_for(ctx, tokens *h *(topk + 1))) schedule(static)
    for (int64_t t = 0; t < tokens; t++) {
        const int32_t *row = row_of + t * topk;
        const float *w = weight + t * topk, *y_t = y + t * h;
        float *out_t = out + t * h;
        int any;
        float identity = identity_weight(topk, row, w, &any);
        for (int64_t c = 0; c < h; c += LANES) {
            vf sum = vf_zero();
            for (int64_t k = 0; k < topk; k++)
                if (row[k] >= 0) sum = vf_fma(vf_set1(w[k]), vf_load_n(rows + row[k] * h + c, h - c), sum);
            if (any) sum = vf_fma(vf_set1(identity), vf_load_n(y_t + c, h - c), sum);
            vf_store_n(out_t + c, vf_add(vf_load_n(out_t + c, h - c), sum), h - c);
        }
    }
}

static float dot(int64_t n, const float *a, const float *b) {
    vf sum = vf_zero();
    for (int64_t c = 0; c < n; c += LANES)
        sum = vf_fma(vf_load_n(a + c, n - c), vf_load_n(b + c, n - c), sum);
    return vf_sum(sum);
}

void CPU_(combine_backward)(kernel_context *ctx, int64_t tokens, int64_t h, int64_t topk, float *dy,
                            float *dweight, const float *dout, const float *drows, const float *dw_rows,
                            const int32_t *row_of, const float *weight, const float *y) {
#pragma omp parallel for num_threads(threads_for(ctx, tokens *h *(topk + 1))) schedule(static)
    for (int64_t t = 0; t < tokens; t++) {
        const int32_t *row = row_of + t * topk;
        const float *d_t = dout + t * h;
        float *dy_t = dy + t * h;
        int any;
        float identity = identity_weight(topk, row, weight + t * topk, &any);
        float d_identity = any ? dot(h, d_t, y + t * h) : 0;
        for (int64_t c = 0; c < h; c += LANES) {
            vf sum = vf_zero();
            for (int64_t k = 0; k < topk; k++)
                if (row[k] >= 0) sum = vf_add(sum, vf_load_n(drows + row[k] * h + c, h - c));
            if (any) sum = vf_fma(vf_set1(identity), vf_load_n(d_t + c, h - c), sum);
            vf_store_n(dy_t + c, vf_add(vf_load_n(dy_t + c, h - c), sum), h - c);
        }
        for (int64_t k = 0; k < topk; k++) dweight[t * topk + k] = row[k] < 0 ? d_identity : dw_rows[row[k]];
    }
}
