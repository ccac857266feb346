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

/* Sum of exp(x - top), in double lanes: a vocabulary is long. */
static double sum_exp(int64_t n, const float *x, float top) {
    vd sum = vd_zero();
    for (int64_t c = 0; c < n; c += LANES) {
        vf e = vf_exp(vf_sub(vf_load_n(x + c, n - c), vf_set1(top)));
        sum = vd_add(sum, vd_from(masked(e, n - c, vf_zero())));
    }
    return vd_sum(sum);
}

/* The same, leaving exp(x - top) in x.  It asks for the row behind x meanwhile, so that memory works while
 * this computes. */
static double sum_exp_in_place(int64_t n, float *x, float top) {
    vd sum = vd_zero();
    for (int64_t c = 0; c < n; c += LANES) {
        vf_fetch(x + n + c);
        vf e = vf_exp(vf_sub(vf_load_n(x + c, n - c), vf_set1(top)));
        vf_store_n(x + c, e, n - c);
        sum = vd_add(sum, vd_from(masked(e, n - c, vf_zero())));
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
            double sum = scale != 0 ? sum_exp_in_place(vocab, z, top) : sum_exp(vocab, z, top);
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

void CPU_(hidden_z)(kernel_context *ctx, int64_t rows, int64_t h, double scale, float *loss, float *sum_sq,
                    float *max_abs, float *dx, const float *x) {
    REQUIRE(h * (int64_t)sizeof(float) <= THREAD_SCRATCH);
#pragma omp parallel for num_threads(threads_for(ctx, rows *h)) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *z = x + r * h;
        float *e_H = thread_scratch(ctx); /* exp(|z| - top) */
        vf squares = vf_zero(), top = vf_zero();
        for (int64_t c = 0; c < h; c += LANES) {
            vf v = vf_load_n(z + c, h - c);
            squares = vf_fma(v, v, squares);
            top = vf_max(top, vf_abs(v));
        }
        sum_sq[r] = vf_sum(squares);
        max_abs[r] = vf_max_lane(top);
        top = vf_set1(max_abs[r]);
        vd sum = vd_zero();
        for (int64_t c = 0; c < h; c += LANES) {
            vf_fetch(z + c + AHEAD);
            if (dx) vf_fetch(dx + r * h + c + AHEAD);
            vf e = vf_exp(vf_sub(vf_abs(vf_load_n(z + c, h - c)), top));
            vf_store_n(e_H + c, e, h - c);
            sum = vd_add(sum, vd_from(masked(e, h - c, vf_zero())));
        }
        double total = vd_sum(sum), lse = max_abs[r] + fixed_log(total);
        loss[r] = (float)(lse * lse);
        if (!dx) continue;
        /* d loss / dx = 2 lse softmax(|x|) sign(x) */
        vf factor = vf_set1((float)(scale * 2 * lse / total)), zero = vf_zero();
        for (int64_t c = 0; c < h; c += LANES) {
            vf v = vf_load_n(z + c, h - c), d = vf_mul(factor, vf_load_n(e_H + c, h - c));
            d = vf_select(vf_less(v, zero), vf_sub(zero, d), vf_select(vf_equal(v, zero), zero, d));
            float *dx_c = dx + r * h + c;
            vf_store_n(dx_c, vf_add(vf_load_n(dx_c, h - c), d), h - c);
        }
    }
}
