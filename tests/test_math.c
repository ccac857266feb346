/* The project's own functions against the long double library, in units of the last place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>

#include "kernels/math.h"
#include "launch/random.h"

enum { POINTS = 300000 };

/* Distance from the exact value in ulps of the double next to it. */
static double ulps(double got, long double exact) {
    if (!isfinite(got)) return INFINITY;
    int e;
    frexpl(exact, &e);
    long double unit = ldexpl(1, e - DBL_MANT_DIG < -1074 ? -1074 : e - DBL_MANT_DIG);
    return (double)(fabsl((long double)got - exact) / unit);
}

typedef struct worst {
    double error, at;
} worst;

static void take(worst *w, double error, double at) {
    if (!(error <= w->error)) *w = (worst){error, at};
}

static void expect_below(const char *what, worst w, double limit) {
    print_message("%-28s max %.4f ulp at %a\n", what, w.error, w.at);
    assert_true(w.error < limit);
}

static double uniform(int i, double low, double high) {
    return low + (high - low) * random_uniform(20250901, 7, (uint64_t)i);
}

static void test_exp(void **state) {
    (void)state;
    worst w = {0, 0}, small = {0, 0}, denormal = {0, 0};
    for (int i = 0; i < POINTS; i++) {
        double x = uniform(i, -708, 709.7), y = uniform(i, -1.5, 1.5), z = uniform(i, -745, -708);
        take(&w, ulps(fixed_exp(x), expl(x)), x);
        take(&small, ulps(fixed_exp(y), expl(y)), y);
        take(&denormal, ulps(fixed_exp(z), expl(z)), z);
    }
    expect_below("exp", w, 0.75);
    expect_below("exp, |x| < 1.5", small, 0.75);
    expect_below("exp, denormal results", denormal, 1.01);
    assert_true(fixed_exp(0) == 1 && fixed_exp(-0.0) == 1);
    assert_true(fixed_exp(INFINITY) == INFINITY && fixed_exp(-INFINITY) == 0);
    assert_true(fixed_exp(710) == INFINITY && fixed_exp(-746) == 0);
    assert_true(isfinite(fixed_exp(0x1.62e42fefa39efp+9))); /* the largest finite result */
    assert_true(fixed_exp(0x1.62e42fefa39fp+9) == INFINITY);
    assert_true(fixed_exp(-745.1) == 0x1p-1074);
    assert_true(isnan(fixed_exp(NAN)));
}

static void test_log(void **state) {
    (void)state;
    worst w = {0, 0}, near_one = {0, 0}, denormal = {0, 0};
    for (int i = 0; i < POINTS; i++) {
        double x = exp(uniform(i, -708, 709)), y = 1 + uniform(i, -0.5, 1) * exp2(-(i % 52)),
               z = ldexp(uniform(i, 0, 1), -1030);
        take(&w, ulps(fixed_log(x), logl(x)), x);
        if (y != 1) take(&near_one, ulps(fixed_log(y), logl(y)), y);
        if (z > 0) take(&denormal, ulps(fixed_log(z), logl(z)), z);
    }
    expect_below("log", w, 0.51);
    expect_below("log, near 1", near_one, 0.51);
    expect_below("log, denormal arguments", denormal, 0.51);
    assert_true(fixed_log(1) == 0 && fixed_log(0) == -INFINITY && fixed_log(INFINITY) == INFINITY);
    assert_true(isnan(fixed_log(-1)) && isnan(fixed_log(NAN)));
}

static void test_sin_cos(void **state) {
    (void)state;
    worst s = {0, 0}, c = {0, 0};
    for (int i = 0; i < POINTS; i++) {
        double x = uniform(i, -1, 1) * exp2(i % 21);
        take(&s, ulps(fixed_sin(x), sinl(x)), x);
        take(&c, ulps(fixed_cos(x), cosl(x)), x);
    }
    for (int i = 1; i < POINTS; i++) { /* next to the zeros, where the reduction loses most */
        double x = (double)(i * M_PI_2l);
        take(&s, ulps(fixed_sin(x), sinl(x)), x);
        take(&c, ulps(fixed_cos(x), cosl(x)), x);
    }
    expect_below("sin", s, 0.85);
    expect_below("cos", c, 0.85);
    assert_true(fixed_sin(0) == 0 && fixed_cos(0) == 1);
    assert_true(isnan(fixed_sin(NAN)) && isnan(fixed_cos(INFINITY)));
    assert_true(isnan(fixed_sin(0x1p20)) &&
                isnan(fixed_cos(-0x1p20))); /* out of range is never a wrong number */
}

static void test_pow(void **state) {
    (void)state;
    worst w = {0, 0}, base = {0, 0};
    for (int i = 0; i < POINTS; i++) {
        double x = exp(uniform(i, -30, 30)), y = uniform(POINTS + i, -20, 20);
        take(&w, ulps(fixed_pow(x, y), powl(x, y)), x);
        double f = uniform(i, -1, 0); /* RoPE's frequencies */
        take(&base, ulps(fixed_pow(1e7, f), powl(1e7, f)), f);
    }
    expect_below("pow", w, 1.5);
    expect_below("pow, 1e7 ^ -f", base, 0.75);
    for (int i = 1; i < 20; i++) assert_true(fixed_pow(2, i) == ldexp(1, i));
    assert_true(fixed_pow(0.9, 0) == 1 && fixed_pow(1, 1e300) == 1);
    assert_true(fixed_pow(2, 2000) == INFINITY && fixed_pow(2, -2000) == 0);
    assert_true(isnan(fixed_pow(-1, 2)) && isnan(fixed_pow(NAN, 2)) && isnan(fixed_pow(2, NAN)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_sin_cos),
        cmocka_unit_test(test_pow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
