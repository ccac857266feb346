/* The cpu backend's vector functions: error against the C library in double, extremes, and the same bits from
 * both instruction sets where exp has the whole range of floats to cover. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu/vmath.h"
#include "kernels/kernels.h"
#include "launch/memory.h"

enum { STEP = 1009 }; /* of the 2^32 floats, each STEPth is tried */

/* Distance from the exact value, in units of the last place of the float next to it. */
static double ulps(float got, double exact) {
    if (!isfinite(got)) return INFINITY;
    int e;
    frexp(exact, &e);
    double unit = ldexp(1, e - FLT_MANT_DIG < -149 ? -149 : e - FLT_MANT_DIG);
    return fabs(got - exact) / unit;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float exp1(float x) {
    float y[LANES];
    vf_store(y, vf_exp(vf_set1(x)));
    return y[LANES - 1];
}

static float exp2_1(float x) {
    float y[LANES];
    vf_store(y, vf_exp2(vf_set1(x)));
    return y[LANES - 1];
}

static float log1(float x) {
    float y[LANES];
    vf_store(y, vf_log(vf_set1(x)));
    return y[LANES - 1];
}

/* An exponential of arguments between low and high, whose results are denormal below `denormal`. */
static void expect_exponential(const char *name, float (*got)(float), double (*exact)(double), float low,
                               float denormal, float high) {
    double worst = 0, worst_denormal = 0;
    for (uint64_t bits = 0; bits < 1ull << 32; bits += STEP) {
        float x = float_of((uint32_t)bits);
        if (!(x > low && x < high)) continue;
        double error = ulps(got(x), exact(x)), *w = x < denormal ? &worst_denormal : &worst;
        if (!(error <= *w)) *w = error;
    }
    print_message("%s: max %.3f ulp, %.3f where the result is denormal\n", name, worst, worst_denormal);
    assert_true(worst < 1.0);
    assert_true(worst_denormal < 1.0);
}

static void test_exp(void **state) {
    (void)state;
    expect_exponential("exp", exp1, exp, -103.9f, -87.33f, 88.72f);
    assert_true(exp1(0) == 1 && exp1(-0.0f) == 1 && exp1(FLT_TRUE_MIN) == 1);
    assert_true(exp1(-INFINITY) == 0 && exp1(-FLT_MAX) == 0 && exp1(-103.98f) == 0);
    assert_true(exp1(-103.27f) == FLT_TRUE_MIN); /* nothing is flushed */
    assert_true(isfinite(exp1(88.7228f)));
    assert_true(exp1(88.7229f) == INFINITY && exp1(FLT_MAX) == INFINITY && exp1(INFINITY) == INFINITY);
    assert_true(isnan(exp1(NAN)));
}

static void test_exp2(void **state) {
    (void)state;
    expect_exponential("exp2", exp2_1, exp2, -149.9f, -126, 127.99f);
    for (int n = -149; n < 128; n++) assert_true(exp2_1((float)n) == ldexpf(1, n)); /* exact */
    assert_true(exp2_1(-INFINITY) == 0 && exp2_1(-FLT_MAX) == 0 && exp2_1(-150.0f) == 0);
    assert_true(exp2_1(128) == INFINITY && exp2_1(FLT_MAX) == INFINITY && exp2_1(INFINITY) == INFINITY);
    assert_true(isnan(exp2_1(NAN)));
}

static void test_log(void **state) {
    (void)state;
    double worst = 0;
    for (uint64_t bits = 0x00800000; bits < 0x7f800000; bits += STEP / 4) {
        float x = float_of((uint32_t)bits);
        double error = ulps(log1(x), log(x));
        if (!(error <= worst)) worst = error;
    }
    for (uint32_t i = 0; i < 1000000; i++) { /* near 1, where the result is small */
        float x = float_of(0x3f000000u + 16 * i);
        double error = ulps(log1(x), log(x));
        if (!(error <= worst)) worst = error;
    }
    print_message("log: max %.3f ulp\n", worst);
    assert_true(worst < 1.0);
    assert_true(log1(1) == 0);
    assert_true(log1(INFINITY) == INFINITY && isnan(log1(NAN)));
}

/* SwiGLU of every kind of gate: the sigmoid's exp runs over the whole range, infinities and NaN included. */
static void test_extremes_have_the_same_bits(void **state) {
    (void)state;
    if (!__builtin_cpu_supports("avx512vl")) {
        print_message("this processor has no AVX-512: nothing to compare\n");
        return;
    }
    enum { N = 1 << 18 };
    float *gu = mem_alloc(sizeof *gu * 2 * N, "gates"), *h[2];
    for (int64_t i = 0; i < N; i++) {
        gu[i] = float_of((uint32_t)i << 14);
        gu[N + i] = 1;
    }
    for (int wide = 0; wide < 2; wide++) {
        kernels k;
        (wide ? kernels_cpu_avx512 : kernels_cpu_avx2)(&k, 1, DTYPE_FLOAT32);
        h[wide] = mem_alloc(sizeof *gu * N, "results");
        k.swiglu_forward(k.ctx, EVERY_ROW(1), N, h[wide], gu);
        k.destroy(&k);
    }
    for (int64_t i = 0; i < N; i++) {
        int same = isnan(h[0][i]) ? isnan(h[1][i]) : !memcmp(&h[0][i], &h[1][i], sizeof **h);
        if (!same) fail_msg("gate %a: %a and %a", gu[i], h[0][i], h[1][i]);
        if (fabsf(gu[i]) < 80) assert_true(isfinite(h[0][i]));
    }
    for (int wide = 0; wide < 2; wide++) mem_free(h[wide]);
    mem_free(gu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_exp2),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_extremes_have_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
