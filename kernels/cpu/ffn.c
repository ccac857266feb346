/* SwiGLU, forward and backward. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/row_share.h"
#include "kernels/cpu/stream.h"
#include "kernels/cpu/vmath.h"

/* Rows of gate and up are one stream of which each vector of the result takes two. */
VEC void fetch_pair(const float *gu, int64_t c) {
    vf_fetch(gu + 2 * c + AHEAD), vf_fetch(gu + 2 * c + LANES + AHEAD);
}

VEC void forward_row(int64_t f, float *h, const float *gate, const float *up, int stream) {
    for (int64_t c = 0; c < f; c += LANES) {
        fetch_pair(gate, c);
        vf g = vf_load_n(gate + c, f - c);
        vf silu = vf_mul(g, vf_sigmoid(g));
        vf_put_n(h + c, vf_mul(silu, vf_load_n(up + c, f - c)), f - c, stream);
    }
}

void CPU_(swiglu_forward)(kernel_context *ctx, int64_t segments, const segment *s, int64_t f, float *h,
                          const float *gu) {
    const int64_t rows = total_rows(segments, s);
    const int stream = stream_wanted(3 * rows * f * (int64_t)sizeof *h, h, f);
#pragma omp parallel num_threads(threads_for(ctx, rows *f))
    {
        const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
        for (int64_t i = 0, before = 0; i < segments; before += s[i++].rows) {
            const row_share mine = row_share_of(rows, thread, threads, before, s[i].rows);
            for (int64_t r = s[i].row + mine.from; r < s[i].row + mine.to; r++)
                forward_row(f, h + r * f, gu + r * 2 * f, gu + r * 2 * f + f, stream);
        }
        stream_end(stream);
    }
}

/* Returns <dh, silu(gate) * up>. */
VEC float backward_row(int64_t f, float weight, float *dgu, float *h, const float *dh, const float *gate,
                       const float *up, int stream) {
    vf w = vf_set1(weight), one = vf_set1(1), dot = vf_zero();
    for (int64_t c = 0; c < f; c += LANES) {
        int64_t left = f - c;
        fetch_pair(gate, c), vf_fetch(dh + c + AHEAD);
        vf g = vf_load_n(gate + c, left), u = vf_load_n(up + c, left), d = vf_load_n(dh + c, left);
        vf s = vf_sigmoid(g), silu = vf_mul(g, s), out = vf_mul(silu, u);
        dot = vf_fma(d, out, dot);
        d = vf_mul(w, d);
        /* silu' = s (1 + g (1 - s)) */
        vf slope = vf_mul(s, vf_fma(g, vf_sub(one, s), one));
        vf_put_n(h + c, vf_mul(w, out), left, stream);
        vf_put_n(dgu + c, vf_mul(vf_mul(d, u), slope), left, stream);
        vf_put_n(dgu + f + c, vf_mul(d, silu), left, stream);
    }
    return vf_sum(dot);
}

void CPU_(swiglu_backward)(kernel_context *ctx, int64_t segments, const segment *s, int64_t f, float *dgu,
                           float *h, float *dweight, const float *dh, const float *gu, const float *weight) {
    const int64_t rows = total_rows(segments, s), bytes = 6 * rows * f * (int64_t)sizeof *h;
    const int stream = stream_wanted(bytes, h, f) && stream_wanted(bytes, dgu, f);
#pragma omp parallel num_threads(threads_for(ctx, rows *f))
    {
        const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
        for (int64_t i = 0, before = 0; i < segments; before += s[i++].rows) {
            const row_share mine = row_share_of(rows, thread, threads, before, s[i].rows);
            for (int64_t r = s[i].row + mine.from; r < s[i].row + mine.to; r++) {
                const float *gate = gu + r * 2 * f;
                float dot = backward_row(f, weight ? weight[r] : 1, dgu + r * 2 * f, h + r * f, dh + r * f,
                                         gate, gate + f, stream);
                if (dweight) dweight[r] = dot;
            }
        }
        stream_end(stream);
    }
}
