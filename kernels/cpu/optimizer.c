/* AdamW in one pass, and the figures that watch a tensor. */
#define XXH_INLINE_ALL         /* compiled here, it uses the vectors that this file is compiled for */
#define XXH_PREFETCH_DIST 8192 /* bytes ahead, as READ_AHEAD: its own half a kilobyte is too late */
#include <xxhash.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

/* The moments move by (1 - beta) (new - old): beta itself, rounded to float, would be wrong by 3e-8, which
 * for beta2 = 0.999 is 3e-5 of 1 - beta2 and so of every second moment in the long run.  Gradients of 1e-18
 * have squares of 1e-36, which float holds, and second moments that may be denormal: they are kept.
 * A small beta is exact enough itself, and forgets: new - old, rounded where the old is large, would leave
 * nothing of a gradient far below it. */
VEC vf blend(vf old, vf new, double beta) {
    vf rate = vf_set1((float)(1 - beta));
    if (beta < 0.5) return vf_fma(vf_set1((float)beta), old, vf_mul(rate, new));
    return vf_fma(rate, vf_sub(new, old), old);
}
/* The same with new = x^2, not rounded on its own. */
VEC vf blend_square(vf old, vf x, double beta) {
    vf rate = vf_set1((float)(1 - beta));
    if (beta < 0.5) return vf_fma(vf_set1((float)beta), old, vf_mul(rate, vf_mul(x, x)));
    return vf_fma(rate, vf_fma(x, x, vf_sub(vf_zero(), old)), old);
}

void CPU_(adamw)(kernel_context *ctx, int64_t n, adamw_step s, float *p, float *m, float *v, const float *g) {
    vf grad_scale = vf_set1((float)s.grad_scale);
    vf correct1 = vf_set1((float)(1 / s.correction1)), correct2 = vf_set1((float)(1 / s.correction2));
    vf eps = vf_set1((float)s.eps), decay = vf_set1((float)s.weight_decay), lr = vf_set1((float)s.lr);
#pragma omp parallel for num_threads(threads_for(ctx, n)) schedule(static)
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t left = n - i;
        vf grad = vf_mul(vf_load_n(g + i, left), grad_scale);
        vf m_i = vf_load_n(m + i, left), v_i = vf_load_n(v + i, left), p_i = vf_load_n(p + i, left);
        m_i = blend(m_i, grad, s.beta1);
        v_i = blend_square(v_i, grad, s.beta2);
        vf root = vf_add(vf_sqrt(vf_mul(v_i, correct2)), eps);
        vf update = vf_fma(decay, p_i, vf_div(vf_mul(m_i, correct1), root));
        vf_store_n(p + i, vf_fnma(lr, update, p_i), left);
        vf_store_n(m + i, m_i, left);
        vf_store_n(v + i, v_i, left);
    }
}

/* Elements ahead at which to ask: a stream beside which nothing is written comes faster. */
enum { READ_AHEAD = 2 * AHEAD };

static int64_t block_size(int64_t n, int64_t start) {
    return n - start < SUM_BLOCK ? n - start : SUM_BLOCK;
}

void CPU_(sum_squares)(kernel_context *ctx, int64_t n, double *out, const float *x) {
#pragma omp parallel for num_threads(threads_for(ctx, n)) schedule(static)
    for (int64_t start = 0; start < n; start += SUM_BLOCK) {
        int64_t size = block_size(n, start);
        vd sum = vd_zero();
        for (int64_t i = 0; i < size; i += LANES) {
            vf_fetch(x + start + i + READ_AHEAD);
            vd v = vd_from(vf_load_n(x + start + i, size - i));
            /* the square of a float is exact: the sum waits for an addition only, with the same bits */
            sum = vd_add(sum, vd_fma(v, v, vd_zero()));
        }
        out[start / SUM_BLOCK] = vd_sum(sum);
    }
}

void CPU_(digest)(kernel_context *ctx, int64_t n, uint64_t *out, const float *x) {
#pragma omp parallel for num_threads(threads_for(ctx, n)) schedule(static)
    for (int64_t start = 0; start < n; start += SUM_BLOCK)
        out[start / SUM_BLOCK] = XXH3_64bits(x + start, (size_t)block_size(n, start) * sizeof *x);
}
