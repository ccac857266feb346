/* Copies of B and A in the order in which the microkernels read them. */
#include <string.h>

#include "kernels/cpu/gemm_tile.h"

/* Four elements of each of GEMM_LANES rows become four vectors: 128 bits of row r + 4 l go to lane group l of
 * register r, and what remains is a 4 x 4 transpose inside each group. */
#ifdef __AVX512F__
static inline __m512 gather4(const float *const *row, int64_t p) {
    __m512 x = _mm512_castps128_ps512(_mm_loadu_ps(row[0] + p));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(row[4] + p), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(row[8] + p), 2);
    return _mm512_insertf32x4(x, _mm_loadu_ps(row[12] + p), 3);
}
#define STORE(p, x)       _mm512_storeu_ps(p, x)
#define UNPACK_LOW(x, y)  _mm512_unpacklo_ps(x, y)
#define UNPACK_HIGH(x, y) _mm512_unpackhi_ps(x, y)
#define PAIRS_LOW(x, y)   _mm512_shuffle_ps(x, y, 0x44)
#define PAIRS_HIGH(x, y)  _mm512_shuffle_ps(x, y, 0xee)
#else
static inline __m256 gather4(const float *const *row, int64_t p) {
    __m256 x = _mm256_castps128_ps256(_mm_loadu_ps(row[0] + p));
    return _mm256_insertf128_ps(x, _mm_loadu_ps(row[4] + p), 1);
}
#define STORE(p, x)       _mm256_storeu_ps(p, x)
#define UNPACK_LOW(x, y)  _mm256_unpacklo_ps(x, y)
#define UNPACK_HIGH(x, y) _mm256_unpackhi_ps(x, y)
#define PAIRS_LOW(x, y)   _mm256_shuffle_ps(x, y, 0x44)
#define PAIRS_HIGH(x, y)  _mm256_shuffle_ps(x, y, 0xee)
#endif

void CPU_(pack_transposed)(float *dst, int width, const float *b, int64_t ldb, int64_t n, int64_t k) {
    for (int j0 = 0; j0 < width; j0 += GEMM_LANES) {
        const float *row[GEMM_LANES];
        for (int j = 0; j < GEMM_LANES; j++) row[j] = b + (j0 + j < n ? j0 + j : n - 1) * ldb;
        float *out = dst + j0;
        int64_t p = 0;
        for (; p + 4 <= k; p += 4, out += 4 * width) {
            const gemm_vec r0 = gather4(row, p), r1 = gather4(row + 1, p);
            const gemm_vec r2 = gather4(row + 2, p), r3 = gather4(row + 3, p);
            const gemm_vec low01 = UNPACK_LOW(r0, r1), high01 = UNPACK_HIGH(r0, r1);
            const gemm_vec low23 = UNPACK_LOW(r2, r3), high23 = UNPACK_HIGH(r2, r3);
            STORE(out, PAIRS_LOW(low01, low23));
            STORE(out + width, PAIRS_HIGH(low01, low23));
            STORE(out + 2 * width, PAIRS_LOW(high01, high23));
            STORE(out + 3 * width, PAIRS_HIGH(high01, high23));
        }
        for (; p < k; p++, out += width) {
            for (int j = 0; j < GEMM_LANES; j++) out[j] = row[j][p];
        }
    }
}

void CPU_(pack_columns)(float *dst, int width, const float *b, int64_t ldb, int64_t n, int64_t k) {
    if (n == PANEL) { /* a constant, so that the copy is two vectors */
        for (int64_t p = 0; p < k; p++) memcpy(dst + p * PANEL, b + p * ldb, PANEL * sizeof *dst);
        return;
    }
    for (int64_t p = 0; p < k; p++, dst += width, b += ldb) {
        for (int64_t j = 0; j < width; j++) dst[j] = j < n ? b[j] : 0;
    }
}
