/* A vector of 16 floats: one AVX-512 register, or two AVX2 registers that behave as one.  Each function does
 * the same to each of the 16 lanes under both, rounding included, so kernels written on it give the same
 * bits.
 *
 * vm is a mask of 16 lanes; vd holds 16 doubles, for sums that float would spoil.
 */
#ifndef CARACAL_KERNELS_CPU_VEC_H
#define CARACAL_KERNELS_CPU_VEC_H

#include <immintrin.h>
#include <stdint.h>

#define VEC static inline __attribute__((always_inline))

enum { LANES = 16 };

#ifdef __AVX512F__

typedef __m512 vf;
typedef __mmask16 vm;
typedef struct {
    __m512d lo, hi;
} vd;

VEC vf vf_set1(float x) {
    return _mm512_set1_ps(x);
}
VEC vf vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
VEC void vf_store(float *p, vf x) {
    _mm512_storeu_ps(p, x);
}
/* past the caches, to an address of 64 bytes' alignment: see stream.h */
VEC void vf_stream(float *p, vf x) {
    _mm512_stream_ps(p, x);
}
VEC vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
VEC vf vf_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
VEC vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
VEC vf vf_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
VEC vf vf_sqrt(vf a) {
    return _mm512_sqrt_ps(a);
}
VEC vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
} /* ab + c */
VEC vf vf_fnma(vf a, vf b, vf c) {
    return _mm512_fnmadd_ps(a, b, c);
} /* c - ab */
/* a > b ? a : b, so b where either is NaN */
VEC vf vf_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
VEC vf vf_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
VEC vf vf_abs(vf a) {
    return _mm512_abs_ps(a);
}
VEC vf vf_round(vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a * 2^n, rounded once, for whole n in [-252, 254] and a near 1 */
VEC vf vf_scale2(vf a, vf n) {
    return _mm512_scalef_ps(a, n);
}
/* x = m 2^e with 1 <= m < 2, for positive normal x: returns m */
VEC vf vf_split(vf x, vf *e) {
    *e = _mm512_getexp_ps(x);
    return _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
}
/* lanes 0 1 2 3 .. -> 1 0 3 2 .. */
VEC vf vf_swap_pairs(vf a) {
    return _mm512_permute_ps(a, 0xB1);
}

/* the first n lanes: none for n <= 0, all for n >= 16 */
VEC vm vm_first(int64_t n) {
    return n >= LANES ? (__mmask16)0xFFFF : (__mmask16)((1u << (n > 0 ? n : 0)) - 1);
}
VEC vm vm_and(vm a, vm b) {
    return a & b;
}
VEC unsigned vm_bits(vm m) {
    return m;
}
VEC vm vf_equal(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
VEC vm vf_less(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
/* m ? a : b */
VEC vf vf_select(vm m, vf a, vf b) {
    return _mm512_mask_blend_ps(m, b, a);
}
VEC vf vf_load_mask(const float *p, vm m) {
    return _mm512_maskz_loadu_ps(m, p);
}
VEC void vf_store_mask(float *p, vf x, vm m) {
    _mm512_mask_storeu_ps(p, m, x);
}
/* p[0] p[0] p[1] p[1] .. from 8 floats */
VEC vf vf_load_twice(const float *p, int64_t n) {
    __m512 x = _mm512_maskz_loadu_ps(vm_first(n), p);
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), x);
}

VEC __m256 vf_fold_add(vf a) {
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}
VEC __m256 vf_fold_max(vf a) {
    return _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}

VEC vd vd_zero(void) {
    return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()};
}
VEC vd vd_from(vf a) {
    return (vd){_mm512_cvtps_pd(_mm512_castps512_ps256(a)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1))};
}
VEC vd vd_add(vd a, vd b) {
    return (vd){_mm512_add_pd(a.lo, b.lo), _mm512_add_pd(a.hi, b.hi)};
}
VEC vd vd_fma(vd a, vd b, vd c) {
    return (vd){_mm512_fmadd_pd(a.lo, b.lo, c.lo), _mm512_fmadd_pd(a.hi, b.hi, c.hi)};
}
VEC double vd_sum(vd a) {
    __m512d eight = _mm512_add_pd(a.lo, a.hi);
    __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

#else /* AVX2 */

typedef struct {
    __m256 lo, hi;
} vf;
typedef struct {
    __m256 lo, hi;
} vm;
typedef struct {
    __m256d a, b, c, d;
} vd;

VEC vf vf_set1(float x) {
    return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
VEC vf vf_load(const float *p) {
    return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
VEC void vf_store(float *p, vf x) {
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
}
VEC void vf_stream(float *p, vf x) {
    _mm256_stream_ps(p, x.lo);
    _mm256_stream_ps(p + 8, x.hi);
}
VEC vf vf_add(vf a, vf b) {
    return (vf){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
VEC vf vf_sub(vf a, vf b) {
    return (vf){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
VEC vf vf_mul(vf a, vf b) {
    return (vf){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
VEC vf vf_div(vf a, vf b) {
    return (vf){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
VEC vf vf_sqrt(vf a) {
    return (vf){_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
}
VEC vf vf_fma(vf a, vf b, vf c) {
    return (vf){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
VEC vf vf_fnma(vf a, vf b, vf c) {
    return (vf){_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
VEC vf vf_max(vf a, vf b) {
    return (vf){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
VEC vf vf_min(vf a, vf b) {
    return (vf){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
VEC vf vf_abs(vf a) {
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (vf){_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
VEC vf vf_round(vf a) {
    return (vf){_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/* In two factors, of which the first is exact: 2^n alone need not be a float. */
VEC __m256 vf_scale2_half(__m256 a, __m256 n) {
    __m256i whole = _mm256_cvtps_epi32(n), first = _mm256_srai_epi32(whole, 1);
    __m256i second = _mm256_sub_epi32(whole, first), bias = _mm256_set1_epi32(127);
    __m256 x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(first, bias), 23));
    __m256 y = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(second, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(a, x), y);
}
VEC vf vf_scale2(vf a, vf n) {
    return (vf){vf_scale2_half(a.lo, n.lo), vf_scale2_half(a.hi, n.hi)};
}
VEC __m256 vf_split_half(__m256 x, __m256 *e) {
    __m256i bits = _mm256_castps_si256(x), fraction = _mm256_set1_epi32(0x7fffff);
    *e = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(127)));
    __m256i one = _mm256_castps_si256(_mm256_set1_ps(1));
    return _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(bits, fraction), one));
}
VEC vf vf_split(vf x, vf *e) {
    return (vf){vf_split_half(x.lo, &e->lo), vf_split_half(x.hi, &e->hi)};
}
VEC vf vf_swap_pairs(vf a) {
    return (vf){_mm256_permute_ps(a.lo, 0xB1), _mm256_permute_ps(a.hi, 0xB1)};
}

VEC vm vm_first(int64_t n) {
    __m256i count = _mm256_set1_epi32(n < LANES ? (int)n : LANES);
    __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
            high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
    return (vm){_mm256_castsi256_ps(_mm256_cmpgt_epi32(count, low)),
                _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, high))};
}
VEC vm vm_and(vm a, vm b) {
    return (vm){_mm256_and_ps(a.lo, b.lo), _mm256_and_ps(a.hi, b.hi)};
}
VEC unsigned vm_bits(vm m) {
    return (unsigned)_mm256_movemask_ps(m.lo) | (unsigned)_mm256_movemask_ps(m.hi) << 8;
}
VEC vm vf_equal(vf a, vf b) {
    return (vm){_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ)};
}
VEC vm vf_less(vf a, vf b) {
    return (vm){_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
VEC vf vf_select(vm m, vf a, vf b) {
    return (vf){_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}
VEC vf vf_load_mask(const float *p, vm m) {
    return (vf){_mm256_maskload_ps(p, _mm256_castps_si256(m.lo)),
                _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.hi))};
}
VEC void vf_store_mask(float *p, vf x, vm m) {
    _mm256_maskstore_ps(p, _mm256_castps_si256(m.lo), x.lo);
    _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.hi), x.hi);
}
VEC vf vf_load_twice(const float *p, int64_t n) {
    __m256 x = _mm256_maskload_ps(p, _mm256_castps_si256(vm_first(n).lo));
    return (vf){_mm256_permutevar8x32_ps(x, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
                _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))};
}

VEC __m256 vf_fold_add(vf a) {
    return _mm256_add_ps(a.lo, a.hi);
}
VEC __m256 vf_fold_max(vf a) {
    return _mm256_max_ps(a.lo, a.hi);
}

VEC vd vd_zero(void) {
    __m256d z = _mm256_setzero_pd();
    return (vd){z, z, z, z};
}
VEC vd vd_from(vf x) {
    return (vd){
        _mm256_cvtps_pd(_mm256_castps256_ps128(x.lo)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.lo, 1)),
        _mm256_cvtps_pd(_mm256_castps256_ps128(x.hi)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.hi, 1))};
}
VEC vd vd_add(vd x, vd y) {
    return (vd){_mm256_add_pd(x.a, y.a), _mm256_add_pd(x.b, y.b), _mm256_add_pd(x.c, y.c),
                _mm256_add_pd(x.d, y.d)};
}
VEC vd vd_fma(vd x, vd y, vd z) {
    return (vd){_mm256_fmadd_pd(x.a, y.a, z.a), _mm256_fmadd_pd(x.b, y.b, z.b),
                _mm256_fmadd_pd(x.c, y.c, z.c), _mm256_fmadd_pd(x.d, y.d, z.d)};
}
VEC double vd_sum(vd x) {
    __m256d four = _mm256_add_pd(_mm256_add_pd(x.a, x.c), _mm256_add_pd(x.b, x.d));
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

#endif

VEC vf vf_zero(void) {
    return vf_set1(0);
}

/* Asks for what will be read soon, where the hardware does not guess it: a stream that is cut into rows
 * begins anew with each of them, and every stream at the end of a page.  Any address will do.  Into the
 * first-level cache: what its reader finds there starts no guess of what might follow, which behind the end
 * of a row in no order is wrong. */
VEC void vf_fetch(const float *p) {
    __builtin_prefetch(p, 0, 3);
}
/* Into the second-level cache: more than the first would keep until it is read. */
VEC void vf_fetch_much(const float *p) {
    __builtin_prefetch(p, 0, 2);
}

/* Elements ahead of a stream's reader at which to ask: a page, more than memory takes to answer. */
enum { AHEAD = 1024 };
/* The same in whole rows, `ld` elements apart, for streams that leave out a part of each row. */
VEC int64_t rows_ahead(int64_t ld) {
    return (AHEAD / ld + 1) * ld;
}

/* The first n lanes (all 16 when n is more); the others read as zero and are not written. */
VEC vf vf_load_n(const float *p, int64_t n) {
    return n >= LANES ? vf_load(p) : vf_load_mask(p, vm_first(n));
}
VEC void vf_store_n(float *p, vf x, int64_t n) {
    if (n >= LANES) vf_store(p, x);
    else vf_store_mask(p, x, vm_first(n));
}

/* The one tree of every sum over 16 lanes: lane j + lane j+8, then +4, +2, +1. */
VEC float vf_sum(vf a) {
    __m256 eight = vf_fold_add(a);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
VEC float vf_max_lane(vf a) {
    __m256 eight = vf_fold_max(a);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

#endif
