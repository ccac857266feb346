/* Rounding to bf16, and what multiplies it.  Include this first: on AVX-512 it is compiled for AVX512-BF16,
 * which the rest of the backend does not need.
 *
 * Rounded operands lie in pairs: a float's 32 bits hold element 2 i of a sum over k in their lower half and
 * element 2 i + 1 in their upper.  So a matrix of pairs is a matrix of floats that nobody adds up, and what
 * moves, transposes and spreads floats serves it; k counts pairs then.
 *
 * dot_pairs is VDPBF16PS: acc, plus the upper product, plus the lower, each with one rounding to nearest
 * even, as fused multiply-adds do; denormals count as zero, as operands and as results.  Processors without
 * it, and the AVX2 half of the backend, compute the same bits from float32 instructions.
 */
#ifndef CARACAL_KERNELS_CPU_BF16_H
#define CARACAL_KERNELS_CPU_BF16_H

#ifdef __AVX512F__
#pragma GCC target("avx512bf16")
#endif
#include "kernels/cpu/gemm_vec.h"

#ifdef __AVX512F__
static inline __m512 dot_pairs(__m512 a, __m512 b, __m512 acc) {
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
}

/* The pairs of two vectors that follow one another. */
static inline __m512 pairs_along(__m512 first, __m512 second) {
    return (__m512)_mm512_cvtne2ps_pbh(second, first);
}

/* Lane by lane the pair of two rows. */
static inline __m512 pairs_across(__m512 lower, __m512 upper) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return (__m512)_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(upper, lower));
}
#else
/* a b + acc, without denormals.  A result at the smallest normal number or below it is computed once more,
 * 2^64 times as large: there it shows whether it was rounded up to that number only because smaller ones are
 * rare. */
static inline __m256 fma_flushed(__m256 a, __m256 b, __m256 acc) {
    const __m256 sign = _mm256_set1_ps(-0.0f), least = _mm256_set1_ps(0x1p-126f);
    const __m256 r = _mm256_fmadd_ps(a, b, acc);
    const __m256 small = _mm256_cmp_ps(_mm256_andnot_ps(sign, r), least, _CMP_LE_OQ);
    if (!_mm256_movemask_ps(small)) return r;
    const __m256 scale = _mm256_set1_ps(0x1p64f);
    const __m256 exact = _mm256_fmadd_ps(_mm256_mul_ps(a, scale), b, _mm256_mul_ps(acc, scale));
    const __m256 tiny = _mm256_cmp_ps(_mm256_andnot_ps(sign, exact), _mm256_mul_ps(least, scale), _CMP_LT_OQ);
    return _mm256_blendv_ps(r, _mm256_and_ps(r, sign), _mm256_and_ps(small, tiny));
}

static inline __m256 dot_pairs(__m256 a, __m256 b, __m256 acc) {
    const __m256 upper = (__m256)_mm256_set1_epi32((int)0xffff0000);
    acc = fma_flushed(_mm256_and_ps(a, upper), _mm256_and_ps(b, upper), acc);
    return fma_flushed((__m256)_mm256_slli_epi32((__m256i)a, 16), (__m256)_mm256_slli_epi32((__m256i)b, 16),
                       acc);
}

/* Each float as bf16 in the upper half of its bits: to nearest even; denormals become zero, and of NaN at
 * least the first bit of the fraction is kept. */
static inline __m256i rounded(__m256 x) {
    const __m256i bits = (__m256i)x, one = _mm256_set1_epi32(1);
    const __m256i exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7f800000));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
    __m256i r = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    r = _mm256_blendv_epi8(r, _mm256_or_si256(bits, _mm256_set1_epi32(0x400000)),
                           (__m256i)_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    r = _mm256_blendv_epi8(r, _mm256_and_si256(bits, _mm256_set1_epi32((int)0x80000000)),
                           _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256()));
    return _mm256_and_si256(r, _mm256_set1_epi32((int)0xffff0000));
}

static inline __m256 pairs_along(__m256 first, __m256 second) {
    const __m256i packed =
        _mm256_packus_epi32(_mm256_srli_epi32(rounded(first), 16), _mm256_srli_epi32(rounded(second), 16));
    return (__m256)_mm256_permute4x64_epi64(packed, 0xd8);
}

static inline __m256 pairs_across(__m256 lower, __m256 upper) {
    return (__m256)_mm256_or_si256(_mm256_srli_epi32(rounded(lower), 16), rounded(upper));
}
#endif

#endif
