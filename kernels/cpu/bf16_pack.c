/* Operands rounded to pairs, in the order in which the microkernels read them. */
#include "kernels/cpu/bf16.h"

#include "kernels/cpu/gemm_tile.h"

/* GEMM_LANES elements of a row, of which n are there. */
static inline gemm_vec part(const float *x, int64_t n) {
    return n >= GEMM_LANES ? LOAD(x) : n > 0 ? LOAD_LANES(x, first_lanes(n)) : ZERO;
}

void CPU_(bf16_rows)(float *dst, int64_t ld, const float *x, int64_t ldx, int64_t rows, int64_t k) {
    for (int64_t r = 0; r < rows; r++, dst += ld, x += ldx) {
        int64_t p = 0;
        for (; p + PANEL <= k; p += PANEL)
            STORE(dst + p / 2, pairs_along(LOAD(x + p), LOAD(x + p + GEMM_LANES)));
        if (p < k)
            STORE(dst + p / 2, pairs_along(part(x + p, k - p), part(x + p + GEMM_LANES, k - p - GEMM_LANES)));
    }
}

/* n columns of the rows p and p + 1 of x, of which the second may lie beyond the last. */
static inline void store_pairs(float *dst, const float *x, int64_t ldx, int64_t p, int64_t k, int64_t n) {
    const float *lower = x + p * ldx;
    STORE(dst, pairs_across(part(lower, n), p + 1 < k ? part(lower + ldx, n) : ZERO));
}

void CPU_(bf16_panels)(float *dst, int64_t ld, int64_t step, const float *x, int64_t ldx, int64_t k,
                       int64_t n) {
    const int64_t whole = (n + 15) / 16 * 16;
    for (int64_t p = 0; p < k; p += 2) {
        for (int64_t j = 0; j < whole; j += GEMM_LANES) {
            float *to = dst + j / PANEL * step + p / 2 * ld + j % PANEL;
            if (j < n) store_pairs(to, x + j, ldx, p, k, n - j);
            else STORE(to, ZERO);
        }
    }
}

/* A block's part of a row is too short for the hardware to guess what follows. */
enum { ROWS_AHEAD = 8 };

void CPU_(bf16_tiles)(float *dst, int64_t step, const float *x, int64_t ldx, int64_t k, int64_t m) {
    for (int64_t p = 0; p < k; p += 2) {
        for (int64_t tile = 0; tile < tiles_of(m); tile++) {
            const int64_t begin = tile_rows(tile, m).begin;
            const float *later = x + (p + ROWS_AHEAD) * ldx + begin;
            __builtin_prefetch(later);
            __builtin_prefetch(later + ldx);
            store_pairs(dst + tile * step + p / 2 * GEMM_LANES, x + begin, ldx, p, k, m - begin);
        }
    }
}
