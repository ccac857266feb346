/* RoPE on interleaved pairs, eight pairs at a time. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"
#include "launch/error.h"

void CPU_(rope)(kernel_context *ctx, int64_t rows, int64_t seq, int64_t heads, int64_t pairs, int backward,
                float *x, int64_t ld, int64_t head_stride, const float *cosine, const float *sine) {
    /* a pair's partner enters with -sin above and +sin below; the transpose exchanges the two */
    float s = backward ? 1 : -1;
    REQUIRE((4 * pairs + 2 * LANES) * (int64_t)sizeof *x <= THREAD_SCRATCH);
    const int64_t ahead = rows_ahead(ld);
    const float signs[LANES] = {s, -s, s, -s, s, -s, s, -s, s, -s, s, -s, s, -s, s, -s};
#pragma omp parallel for num_threads(threads_for(ctx, rows *heads *pairs * 2)) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float *c_r = thread_scratch(ctx), *s_r = c_r + 2 * pairs + LANES; /* of each element of a head */
        for (int64_t p = 0; p < pairs; p += LANES / 2) {
            int64_t at = r % seq * pairs + p;
            vf_store(c_r + 2 * p, vf_load_twice(cosine + at, pairs - p));
            vf_store(s_r + 2 * p, vf_mul(vf_load_twice(sine + at, pairs - p), vf_load(signs)));
        }
        for (int64_t h = 0; h < heads; h++) {
            float *head = x + r * ld + h * head_stride;
            for (int64_t i = 0; i < 2 * pairs; i += LANES) {
                vf_fetch(head + i + ahead);
                vf v = vf_load_n(head + i, 2 * pairs - i);
                vf turned = vf_fma(v, vf_load(c_r + i), vf_mul(vf_swap_pairs(v), vf_load(s_r + i)));
                vf_store_n(head + i, turned, 2 * pairs - i);
            }
        }
    }
}
