/* RoPE on interleaved pairs, eight pairs at a time. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

void CPU_(rope)(kernel_context *ctx, int64_t rows, int64_t seq, int64_t heads, int64_t pairs, int backward,
                float *x, int64_t ld, int64_t head_stride, const float *cosine, const float *sine) {
    /* a pair's partner enters with -sin above and +sin below; the transpose exchanges the two */
    float s = backward ? 1 : -1;
    const float signs[LANES] = {s, -s, s, -s, s, -s, s, -s, s, -s, s, -s, s, -s, s, -s};
#pragma omp parallel for num_threads(threads_for(ctx, rows *heads *pairs * 2)) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t p = 0; p < pairs; p += LANES / 2) {
            int64_t at = r % seq * pairs + p, left = pairs - p;
            if (left > LANES / 2) left = LANES / 2;
            vf c_p = vf_load_twice(cosine + at, left);
            vf s_p = vf_mul(vf_load_twice(sine + at, left), vf_load(signs));
            for (int64_t h = 0; h < heads; h++) {
                float *pair = x + r * ld + h * head_stride + 2 * p;
                vf v = vf_load_n(pair, 2 * left);
                vf_store_n(pair, vf_fma(v, c_p, vf_mul(vf_swap_pairs(v), s_p)), 2 * left);
            }
        }
    }
}
