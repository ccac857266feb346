/* Cross-entropy over a tile of logits, and the hidden z-loss. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vmath.h"
#include "kernels/math.h"
#include "launch/error.h"

static vf masked(vf x, int64_t left, vf otherwise) {
    return left >= LANES ? x : vf_select(vm_first(left), x, otherwise);
}

static float largest(int64_t n, const float *x) {
    vf lowest = vf_set1(-INFINITY), a = lowest, b = lowest;
    int64_t c = 0;
    for (; c + 2 * LANES <= n; c += 2 * LANES) {
        a = vf_max(a, vf_load(x + c));
        b = vf_max(b, vf_load(x + c + LANES));
    }
    for (; c < n; c += LANES) a = vf_max(a, masked(vf_load_n(x + c, n - c), n - c, lowest));
    return vf_max_lane(vf_max(a, b));
}

static int32_t first_of(int64_t n, const float *x, float value) {
    for (int64_t c = 0; c < n; c += LANES) {
        unsigned hit = vm_bits(vm_and(vf_equal(vf_load_n(x + c, n - c), vf_set1(value)), vm_first(n - c)));
        if (hit) return (int32_t)c + __builtin_ctz(hit);
    }
    return 0; /* a row of NaN */
}

/* Elements between which sum_exp changes from exponentials to their sum: they are still in the cache, and the
 * processor has not to find room for the exponentials' long chains among the sum's conversions. */
enum { PIECE = 512 };

/* Sum of exp(x - top), or of exp(|x| - top), in double lanes: a vocabulary is long.  Leaves the exponentials
 * in e [n], which may be x itself, or the last ones in e [PIECE] where they are not kept.  It asks for next
 * [n], and for then [n] if that is not NULL, meanwhile, so that memory works while this computes. */
VEC double sum_exp(int64_t n, float *e, int keep, const float *x, int absolute, float top, const float *next,
                   const float *then) {
    vd sum = vd_zero();
    for (int64_t start = 0; start < n; start += PIECE) {
        const int64_t end = n - start < PIECE ? n : start + PIECE;
        float *piece = keep ? e + start : e;
        for (int64_t c = start; c < end; c += LANES) {
            vf_fetch(next + c);
            if (then) vf_fetch(then + c);
            const vf v = vf_load_n(x + c, end - c);
            vf_store_n(piece + c - start, vf_exp(vf_sub(absolute ? vf_abs(v) : v, vf_set1(top))), end - c);
        }
        for (int64_t c = 0; c < end - start; c += LANES)
            sum = vd_add(sum, vd_from(vf_load_n(piece + c, end - start - c)));
    }
    return vd_sum(sum);
}

static void multiply(int64_t n, float *x, float by) {
    for (int64_t c = 0; c < n; c += LANES)
        vf_store_n(x + c, vf_mul(vf_load_n(x + c, n - c), vf_set1(by)), n - c);
}

void CPU_(cross_entropy)(kernel_context *ctx, int64_t rows, int64_t vocab, double scale, float *loss,
                         int32_t *best, float *logits, const int32_t *targets) {
#pragma omp parallel for num_threads(threads_for(ctx, rows *vocab)) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float *z = logits + r * vocab;
        int32_t target = targets[r];
        int counted = target >= 0;
        float top = counted || best ? largest(vocab, z) : 0;
        if (best) best[r] = first_of(vocab, z, top);
        loss[r] = 0;
        if (counted) {
            double wanted = z[target];
            float dropped[PIECE];
            double sum = sum_exp(vocab, scale != 0 ? z : dropped, scale != 0, z, 0, top, z + vocab, NULL);
            loss[r] = (float)(top - wanted + fixed_log(sum));
            if (scale == 0) continue;
            double p = z[target] / sum;
            multiply(vocab, z, (float)(scale / sum));
            z[target] = (float)(scale * (p - 1));
        } else if (scale != 0) {
            for (int64_t c = 0; c < vocab; c += LANES) vf_store_n(z + c, vf_zero(), vocab - c);
        }
    }
}

/* Returns the largest |x|; *sum_sq = sum x^2. */
VEC float look_at(int64_t h, const float *x, float *sum_sq) {
    vf squares = vf_zero(), top = vf_zero();
    for (int64_t c = 0; c < h; c += LANES) {
        vf v = vf_load_n(x + c, h - c);
        squares = vf_fma(v, v, squares);
        top = vf_max(top, vf_abs(v));
    }
    *sum_sq = vf_sum(squares);
    return vf_max_lane(top);
}

/* dx += factor * e * sign(x) */
VEC void add_signed(int64_t h, float *dx, float factor, const float *e, const float *x) {
    const vf zero = vf_zero();
    for (int64_t c = 0; c < h; c += LANES) {
        vf v = vf_load_n(x + c, h - c), d = vf_mul(vf_set1(factor), vf_load_n(e + c, h - c));
        d = vf_select(vf_less(v, zero), vf_sub(zero, d), vf_select(vf_equal(v, zero), zero, d));
        vf_store_n(dx + c, vf_add(vf_load_n(dx + c, h - c), d), h - c);
    }
}

/* Rows whose steps are done side by side: each step of a row waits for the one before it, down to its last
 * lane. */
enum { SIDE_BY_SIDE = 4 };

void CPU_(hidden_z)(kernel_context *ctx, int64_t rows, int64_t h, double scale, float *loss, float *sum_sq,
                    float *max_abs, float *dx, const float *x) {
    const int64_t most = (AHEAD + h - 1) / h, abreast = most < SIDE_BY_SIDE ? most : SIDE_BY_SIDE;
    REQUIRE(abreast * h * (int64_t)sizeof(float) <= THREAD_SCRATCH);
#pragma omp parallel for num_threads(threads_for(ctx, rows *h)) schedule(static)
    for (int64_t first = 0; first < rows; first += abreast) {
        const int64_t end = rows - first < abreast ? rows : first + abreast;
        float *e = thread_scratch(ctx); /* [abreast, h] */
        double sum[SIDE_BY_SIDE];
        for (int64_t r = first; r < end; r++) max_abs[r] = look_at(h, x + r * h, sum_sq + r);
        for (int64_t r = first; r < end; r++)
            sum[r - first] = sum_exp(h, e + (r - first) * h, 1, x + r * h, 1, max_abs[r],
                                     x + (r + abreast) * h, dx ? dx + (r + abreast) * h : NULL);
        for (int64_t r = first; r < end; r++) {
            const double lse = max_abs[r] + fixed_log(sum[r - first]);
            loss[r] = (float)(lse * lse);
            /* d loss / dx = 2 lse softmax(|x|) sign(x) */
            const float factor = (float)(scale * 2 * lse / sum[r - first]);
            if (dx) add_signed(h, dx + r * h, factor, e + (r - first) * h, x + r * h);
        }
    }
}
