/* exp and log of 16 floats.  No tables and no processor's approximations: the same polynomial in the same
 * order everywhere, coefficients fitted to the least relative error and rounded to float one by one. */
#ifndef CARACAL_KERNELS_CPU_VMATH_H
#define CARACAL_KERNELS_CPU_VMATH_H

#include "kernels/cpu/vec.h"

/* exp(x), denormal results included; exp(-inf) = 0, exp(inf) = inf, NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2 and exp(r) = 1 + r + r^2 q(r). */
VEC vf vf_exp(vf x) {
    /* beyond these the result is 0 or infinity anyway; the constant stands first so that NaN passes */
    x = vf_max(vf_set1(-104.0f), x);
    x = vf_min(vf_set1(89.0f), x);
    vf n = vf_round(vf_mul(x, vf_set1(0x1.715476p+0f))); /* 1 / ln 2 */
    vf r = vf_fma(n, vf_set1(-0x1.62e400p-1f), x);       /* upper bits of ln 2: n times them is exact */
    r = vf_fma(n, vf_set1(-0x1.7f7d1cp-20f), r);         /* the rest of ln 2 */
    vf q = vf_set1(0x1.6a4d14p-10f);
    q = vf_fma(q, r, vf_set1(0x1.12398ap-7f));
    q = vf_fma(q, r, vf_set1(0x1.5558b0p-5f));
    q = vf_fma(q, r, vf_set1(0x1.555492p-3f));
    q = vf_fma(q, r, vf_set1(0x1.fffffcp-2f));
    vf one = vf_set1(1.0f);
    return vf_scale2(vf_fma(vf_fma(q, r, one), r, one), n);
}

/* 2^x, for what is proportional to a softmax: a third fewer steps than exp.  Denormal results included;
 * 2^-inf = 0, 2^inf = inf, NaN stays NaN.  x = n + f with |f| <= 1/2, exactly. */
VEC vf vf_exp2(vf x) {
    x = vf_max(vf_set1(-151.0f), x);
    x = vf_min(vf_set1(129.0f), x);
    vf n = vf_round(x), f = vf_sub(x, n);
    vf q = vf_set1(0x1.416b60p-13f);
    q = vf_fma(q, f, vf_set1(0x1.5f0830p-10f));
    q = vf_fma(q, f, vf_set1(0x1.3b2de0p-7f));
    q = vf_fma(q, f, vf_set1(0x1.c6af7cp-5f));
    q = vf_fma(q, f, vf_set1(0x1.ebfbdcp-3f));
    q = vf_fma(q, f, vf_set1(0x1.62e430p-1f));
    return vf_scale2(vf_fma(q, f, vf_set1(1.0f)), n);
}

/* log(x) of positive normal x; log(inf) = inf, NaN stays NaN.
 * x = (1 + f) 2^e with |f| below sqrt(2) - 1 and log(1 + f) = f - f^2 / 2 + f^3 q(f). */
VEC vf vf_log(vf x) {
    vf e, one = vf_set1(1.0f), m = vf_split(x, &e);
    vm upper = vf_less(vf_set1(0x1.6a09e6p+0f), m); /* sqrt(2) */
    vf f = vf_sub(vf_select(upper, vf_mul(m, vf_set1(0.5f)), m), one);
    e = vf_select(upper, vf_add(e, one), e);
    vf q = vf_set1(-0x1.38ddc8p-4f);
    q = vf_fma(q, f, vf_set1(0x1.056c4ap-3f));
    q = vf_fma(q, f, vf_set1(-0x1.0d8526p-3f));
    q = vf_fma(q, f, vf_set1(0x1.22d78ep-3f));
    q = vf_fma(q, f, vf_set1(-0x1.54720ep-3f));
    q = vf_fma(q, f, vf_set1(0x1.99a028p-3f));
    q = vf_fma(q, f, vf_set1(-0x1.000228p-2f));
    q = vf_fma(q, f, vf_set1(0x1.555554p-2f));
    vf square = vf_mul(f, f);
    vf rest = vf_fma(vf_mul(square, f), q, vf_mul(e, vf_set1(0x1.7f7d1cp-20f))); /* low bits of ln 2 */
    rest = vf_add(vf_fma(square, vf_set1(-0.5f), rest), f);
    vf y = vf_fma(e, vf_set1(0x1.62e400p-1f), rest);
    return vf_select(vf_less(x, vf_set1(__builtin_inff())), y, x);
}

/* 1 / (1 + exp(-x)) */
VEC vf vf_sigmoid(vf x) {
    vf one = vf_set1(1.0f);
    return vf_div(one, vf_add(one, vf_exp(vf_sub(vf_zero(), x))));
}

#endif
