/* exp, log and the logistic function, the same bits on every machine: the polynomials of
 * docs/determinism.md's "project's own" functions, written for one number. */
#ifndef CARACAL_KERNELS_CUDA_MATH_CUH
#define CARACAL_KERNELS_CUDA_MATH_CUH

#include "kernels/cuda/device.cuh"

/* 2^n for -126 <= n <= 127 */
static __device__ __forceinline__ float power_of_two(int n) {
    return __int_as_float((n + 127) << 23);
}

/* exp(x), denormal results included; exp(-inf) = 0, exp(inf) = inf, NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2 and exp(r) = 1 + r + r^2 q(r). */
static __device__ __forceinline__ float exp_f(float x) {
    /* beyond these the result is 0 or infinity anyway; NaN passes both comparisons */
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float n = rintf(x * 0x1.715476p+0f);   /* 1 / ln 2 */
    float r = fmaf(n, -0x1.62e400p-1f, x); /* upper bits of ln 2: n times them is exact */
    r = fmaf(n, -0x1.7f7d1cp-20f, r);      /* the rest of ln 2 */
    float q = 0x1.6a4d14p-10f;
    q = fmaf(q, r, 0x1.12398ap-7f);
    q = fmaf(q, r, 0x1.5558b0p-5f);
    q = fmaf(q, r, 0x1.555492p-3f);
    q = fmaf(q, r, 0x1.fffffcp-2f);
    float y = fmaf(fmaf(q, r, 1.0f), r, 1.0f);
    /* two steps: 2^n itself may not be representable */
    int whole = x == x ? (int)n : 0, half = whole >> 1;
    return y * power_of_two(half) * power_of_two(whole - half);
}

/* 1 / (1 + exp(-x)) */
static __device__ __forceinline__ float sigmoid_f(float x) {
    return 1.0f / (1.0f + exp_f(-x));
}

/* log x of positive normal x to about an ulp of double; log(inf) = inf, NaN stays NaN.  With x = 2^k m, m
 * within sqrt(2) of 1, and s = (m - 1) / (m + 1): log m = 2 (s + s^3 / 3 + s^5 / 5 + ...), |s| < 0.1716. */
static __device__ inline double log_d(double x) {
    if (!(x < INFINITY)) return x;
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int64_t k = (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffull) | 0x3ff0000000000000ull;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 0x1.6a09e667f3bcdp+0) { /* sqrt(2) */
        m *= 0.5;
        k++;
    }
    double s = (m - 1) / (m + 1), z = s * s, q = 1.0 / 23;
    q = fma(q, z, 1.0 / 21);
    q = fma(q, z, 1.0 / 19);
    q = fma(q, z, 1.0 / 17);
    q = fma(q, z, 1.0 / 15);
    q = fma(q, z, 1.0 / 13);
    q = fma(q, z, 1.0 / 11);
    q = fma(q, z, 1.0 / 9);
    q = fma(q, z, 1.0 / 7);
    q = fma(q, z, 1.0 / 5);
    q = fma(q, z, 1.0 / 3);
    double log_m = 2 * fma(s * z, q, s);
    /* ln 2 in two parts; the first has 32 bits, so that its product with k is exact */
    return fma((double)k, 0x1.62e42feep-1, fma((double)k, 0x1.a39ef35793c76p-33, log_m));
}

#endif
