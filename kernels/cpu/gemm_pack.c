/* Copies of B and A in the order in which the microkernels read them. */
#include "kernels/cpu/gemm_tile.h"

/* GEMM_LANES rows of b become a column of vectors. */
static void transpose_vectors(float *dst, int width, const float *b, int64_t ldb, int64_t k) {
    int64_t p = 0;
    for (; p + 8 <= k; p += 8, b += 8, dst += 8 * width) transpose_8(dst, width, b, ldb);
    for (; p < k; p++, b++, dst += width) {
        for (int j = 0; j < GEMM_LANES; j++) dst[j] = b[j * ldb];
    }
}

void CPU_(pack_transposed)(float *dst, int width, const float *b, int64_t ldb, int64_t n, int64_t k) {
    int64_t j = 0;
    for (; j + GEMM_LANES <= n; j += GEMM_LANES) transpose_vectors(dst + j, width, b + j * ldb, ldb, k);
    for (; j < width; j++) {
        for (int64_t p = 0; p < k; p++) dst[p * width + j] = j < n ? b[j * ldb + p] : 0;
    }
}

void CPU_(pack_columns)(float *dst, int width, const float *b, int64_t ldb, int64_t n, int64_t k) {
    const lanes low = first_lanes(n);
    if (width == GEMM_LANES) {
        for (int64_t p = 0; p < k; p++) STORE(dst + p * GEMM_LANES, LOAD_LANES(b + p * ldb, low));
        return;
    }
    const lanes high = first_lanes(n - GEMM_LANES);
    for (int64_t p = 0; p < k; p++) {
        STORE(dst + p * PANEL, LOAD_LANES(b + p * ldb, low));
        STORE(dst + p * PANEL + GEMM_LANES, LOAD_LANES(b + p * ldb + GEMM_LANES, high));
    }
}
