/* SwiGLU, forward and backward. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vmath.h"

void CPU_(swiglu_forward)(kernel_context *ctx, int64_t rows, int64_t f, float *h, const float *gu) {
#pragma omp parallel for num_threads(threads_for(ctx, rows *f)) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *gate = gu + r * 2 * f, *up = gate + f;
        for (int64_t c = 0; c < f; c += LANES) {
            vf_fetch(gate + 2 * f + c), vf_fetch(up + 2 * f + c); /* the next row's */
            vf g = vf_load_n(gate + c, f - c);
            vf silu = vf_mul(g, vf_sigmoid(g));
            vf_store_n(h + r * f + c, vf_mul(silu, vf_load_n(up + c, f - c)), f - c);
        }
    }
}

void CPU_(swiglu_backward)(kernel_context *ctx, int64_t rows, int64_t f, float *dgu, float *h, float *dweight,
                           const float *dh, const float *gu, const float *weight) {
#pragma omp parallel for num_threads(threads_for(ctx, rows *f)) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *gate = gu + r * 2 * f, *up = gate + f;
        vf w = vf_set1(weight ? weight[r] : 1), one = vf_set1(1), dot = vf_zero();
        for (int64_t c = 0; c < f; c += LANES) {
            int64_t left = f - c;
            vf_fetch(gate + 2 * f + c), vf_fetch(up + 2 * f + c), vf_fetch(dh + (r + 1) * f + c);
            vf g = vf_load_n(gate + c, left), u = vf_load_n(up + c, left);
            vf d = vf_load_n(dh + r * f + c, left);
            vf s = vf_sigmoid(g), silu = vf_mul(g, s), out = vf_mul(silu, u);
            dot = vf_fma(d, out, dot);
            d = vf_mul(w, d);
            /* silu' = s (1 + g (1 - s)) */
            vf slope = vf_mul(s, vf_fma(g, vf_sub(one, s), one));
            vf_store_n(h + r * f + c, vf_mul(w, out), left);
            vf_store_n(dgu + r * 2 * f + c, vf_mul(vf_mul(d, u), slope), left);
            vf_store_n(dgu + r * 2 * f + f + c, vf_mul(d, silu), left);
        }
        if (dweight) dweight[r] = vf_sum(dot);
    }
}
