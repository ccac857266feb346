/* exp of 16 floats and what is made of it.  No tables and no processor's approximations: the same polynomial
 * in the same order everywhere.  Denormal results are kept. */
#ifndef CARACAL_KERNELS_CPU_VMATH_H
#define CARACAL_KERNELS_CPU_VMATH_H

#include "kernels/cpu/vec.h"

/* exp(x), within 1 ulp (2 where the result is denormal); exp(-inf) = 0, exp(inf) = inf, NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2, and exp(r) by its Taylor-like minimax polynomial of degree 7. */
VEC vf vf_exp(vf x) {
    /* beyond these the result is 0 or infinity anyway; the constant stands first so that NaN passes */
    x = vf_max(vf_set1(-104.0f), x);
    x = vf_min(vf_set1(89.0f), x);
    vf n = vf_round(vf_mul(x, vf_set1(0x1.715476p+0f))); /* 1 / ln 2 */
    vf r = vf_fma(n, vf_set1(-0x1.62e400p-1f), x);       /* ln 2, upper bits: n times it is exact */
    r = vf_fma(n, vf_set1(-0x1.7f7d1cp-20f), r);         /* ln 2, the rest */
    vf p = vf_set1(0x1.a01a02p-13f);                     /* 1/5040 */
    p = vf_fma(p, r, vf_set1(0x1.6c16c2p-10f));          /* 1/720 */
    p = vf_fma(p, r, vf_set1(0x1.111112p-7f));           /* 1/120 */
    p = vf_fma(p, r, vf_set1(0x1.555556p-5f));           /* 1/24 */
    p = vf_fma(p, r, vf_set1(0x1.555556p-3f));           /* 1/6 */
    p = vf_fma(p, r, vf_set1(0.5f));
    p = vf_fma(p, r, vf_set1(1.0f));
    p = vf_fma(p, r, vf_set1(1.0f));
    return vf_scale2(p, n);
}

/* 1 / (1 + exp(-x)) */
VEC vf vf_sigmoid(vf x) {
    vf one = vf_set1(1.0f);
    return vf_div(one, vf_add(one, vf_exp(vf_sub(vf_zero(), x))));
}

#endif
