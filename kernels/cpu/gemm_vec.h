/* The vectors of the matrix products: as wide as the processor's, for no element of C sees its neighbours. */
#ifndef CARACAL_KERNELS_CPU_GEMM_VEC_H
#define CARACAL_KERNELS_CPU_GEMM_VEC_H

#include <immintrin.h>
#include <stdint.h>

#ifdef __AVX512F__
typedef __m512 gemm_vec;
enum { GEMM_LANES = 16 };
#define LOAD(p)           _mm512_loadu_ps(p)
#define STORE(p, x)       _mm512_storeu_ps(p, x)
#define STREAM(p, x)      _mm512_stream_ps(p, x)
#define ADD(x, y)         _mm512_add_ps(x, y)
#define FMA(x, y, z)      _mm512_fmadd_ps(x, y, z)
#define SPREAD(x)         _mm512_set1_ps(x)
#define ZERO              _mm512_setzero_ps()
#define UNPACK_LOW(x, y)  _mm512_unpacklo_ps(x, y)
#define UNPACK_HIGH(x, y) _mm512_unpackhi_ps(x, y)
#define PAIRS_LOW(x, y)   _mm512_shuffle_ps(x, y, 0x44)
#define PAIRS_HIGH(x, y)  _mm512_shuffle_ps(x, y, 0xee)
#else
typedef __m256 gemm_vec;
enum { GEMM_LANES = 8 };
#define LOAD(p)           _mm256_loadu_ps(p)
#define STORE(p, x)       _mm256_storeu_ps(p, x)
#define STREAM(p, x)      _mm256_stream_ps(p, x)
#define ADD(x, y)         _mm256_add_ps(x, y)
#define FMA(x, y, z)      _mm256_fmadd_ps(x, y, z)
#define SPREAD(x)         _mm256_set1_ps(x)
#define ZERO              _mm256_setzero_ps()
#define UNPACK_LOW(x, y)  _mm256_unpacklo_ps(x, y)
#define UNPACK_HIGH(x, y) _mm256_unpackhi_ps(x, y)
#define PAIRS_LOW(x, y)   _mm256_shuffle_ps(x, y, 0x44)
#define PAIRS_HIGH(x, y)  _mm256_shuffle_ps(x, y, 0xee)
#endif
enum { PANEL = 2 * GEMM_LANES };

/* The first n elements at p, n from 0 to GEMM_LANES or more, and zeros. */
#ifdef __AVX512F__
typedef __mmask16 lanes;
static inline lanes first_lanes(int64_t n) {
    return (lanes)(n >= GEMM_LANES ? 0xffff : (1u << n) - 1);
}
#define LOAD_LANES(p, mask) _mm512_maskz_loadu_ps(mask, p)
#else
typedef __m256i lanes;
static inline lanes first_lanes(int64_t n) {
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n < GEMM_LANES ? n : GEMM_LANES)), index);
}
#define LOAD_LANES(p, mask) _mm256_maskload_ps(p, mask)
#endif

/* Eight elements of every fourth row of b: of each row, the first four to one vector and the others to
 * another. */
#ifdef __AVX512F__
static inline void gather_8(gemm_vec *first, gemm_vec *second, const float *b, int64_t ldb) {
    const __m512 x =
        _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(b)), _mm256_loadu_ps(b + 4 * ldb), 1);
    const __m512 y = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(b + 8 * ldb)),
                                        _mm256_loadu_ps(b + 12 * ldb), 1);
    *first = _mm512_shuffle_f32x4(x, y, 0x88);
    *second = _mm512_shuffle_f32x4(x, y, 0xdd);
}
#else
static inline void gather_8(gemm_vec *first, gemm_vec *second, const float *b, int64_t ldb) {
    const __m256 x = _mm256_loadu_ps(b), y = _mm256_loadu_ps(b + 4 * ldb);
    *first = _mm256_permute2f128_ps(x, y, 0x20);
    *second = _mm256_permute2f128_ps(x, y, 0x31);
}
#endif

/* Four lanes of row r + 4 l of a matrix lie in lane group l of r0 .. r3: a 4 x 4 transpose in each group. */
static inline void store_4(float *dst, int64_t ld, gemm_vec r0, gemm_vec r1, gemm_vec r2, gemm_vec r3) {
    const gemm_vec low01 = UNPACK_LOW(r0, r1), high01 = UNPACK_HIGH(r0, r1);
    const gemm_vec low23 = UNPACK_LOW(r2, r3), high23 = UNPACK_HIGH(r2, r3);
    STORE(dst, PAIRS_LOW(low01, low23));
    STORE(dst + ld, PAIRS_HIGH(low01, low23));
    STORE(dst + 2 * ld, PAIRS_LOW(high01, high23));
    STORE(dst + 3 * ld, PAIRS_HIGH(high01, high23));
}

/* dst[p][j] = b[j][p] for p < 8, j < GEMM_LANES */
static inline void transpose_8(float *dst, int64_t ld, const float *b, int64_t ldb) {
    gemm_vec r0, r1, r2, r3, s0, s1, s2, s3;
    gather_8(&r0, &s0, b, ldb);
    gather_8(&r1, &s1, b + ldb, ldb);
    gather_8(&r2, &s2, b + 2 * ldb, ldb);
    gather_8(&r3, &s3, b + 3 * ldb, ldb);
    store_4(dst, ld, r0, r1, r2, r3);
    store_4(dst + 4 * ld, ld, s0, s1, s2, s3);
}

#endif
