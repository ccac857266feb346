/* What attention's forward and backward share: where a head lies, and products of small matrices. */
#ifndef CARACAL_KERNELS_CPU_ATTENTION_H
#define CARACAL_KERNELS_CPU_ATTENTION_H

#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/vmath.h"
#include "launch/error.h"

enum { KEYS = ATTENTION_KEY_BLOCK };

/* One head of one sequence.  A row is a position, counted from the sequence's first token; the first query
 * stands at `past`. */
typedef struct attention_head {
    int64_t keys, past;           /* rows of k; of these before the first row of q */
    int64_t nope, rope, v, width; /* width = nope + rope */
    const float *q, *k, *value, *k_rope;
    int64_t ld_q, ld_kv, ld_k_rope;
    const int32_t *first_key; /* NULL: 0 */
    float scale;
} attention_head;

attention_head CPU_(attention_head_of)(attention_shape s, int64_t b, int64_t h, const float *q,
                                       const float *kv, const float *k_rope, int64_t ld_k_rope,
                                       const int32_t *first_key);

static inline int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t whole_lanes(int64_t n) {
    return (n + LANES - 1) / LANES * LANES;
}
static inline int64_t first_key_of(const attention_head *a, int64_t row) {
    return a->first_key ? a->first_key[row - a->past] : 0;
}

/* The next n floats of a thread's scratch. */
typedef struct cutter {
    float *at, *end;
} cutter;
static inline cutter cut_scratch(const kernel_context *ctx) {
    float *base = thread_scratch(ctx);
    return (cutter){base, base + THREAD_SCRATCH / sizeof *base};
}
static inline float *cut(cutter *c, int64_t n) {
    float *p = c->at;
    REQUIRE(whole_lanes(n) <= c->end - p); /* head dimensions in the thousands */
    c->at += whole_lanes(n);
    return p;
}

/* c [m,n] = or += a b, one tile after another; n in whole lanes, m at most TILE_ROWS.  As in gemm_tile, rows
 * of a (GEMM_NN) or its columns (GEMM_TN: a is transposed) lie a_step apart. */
static inline void tile_product(gemm_form form, int64_t m, int64_t n, int64_t k, float *c, int64_t ldc,
                                int accumulate, const float *a, int64_t a_step, const float *b, int64_t ldb) {
    for (int64_t j = 0; j < n; j += PANEL) {
        gemm_tile t = {.k = k, .a_step = a_step, .b_step = ldb, .ldc = ldc, .a = a, .b = b + j, .c = c + j};
        t.d = accumulate ? t.c : NULL;
        CPU_(gemm_kernel_for)(form, (int)m, n - j < PANEL ? 1 : 2)(&t);
    }
}

/* Rows [begin, end) of tile i when m rows are cut into tiles of nearly equal height. */
typedef struct row_range {
    int64_t begin, end;
} row_range;
static inline int64_t tiles_of(int64_t m) {
    return (m + TILE_ROWS - 1) / TILE_ROWS;
}
static inline row_range tile_rows(int64_t i, int64_t m) {
    return (row_range){i * m / tiles_of(m), (i + 1) * m / tiles_of(m)};
}

/* dst [width, KEYS] = the keys of block [key, key + n), one in a column; columns beyond n hold anything
 * finite that the keys hold. */
static inline void pack_keys(const attention_head *a, int64_t key, int64_t n, float *dst) {
    CPU_(pack_transposed)(dst, KEYS, a->k + key * a->ld_kv, a->ld_kv, n, a->nope);
    CPU_(pack_transposed)
    (dst + a->nope * KEYS, KEYS, a->k_rope + key * a->ld_k_rope, a->ld_k_rope, n, a->rope);
}

/* dst [rows, whole_lanes(cols)] = src, zero beyond cols. */
static inline void pack_rows(float *dst, int64_t rows, int64_t cols, const float *src, int64_t ld) {
    for (int64_t r = 0; r < rows; r++, dst += whole_lanes(cols))
        for (int64_t c = 0; c < cols; c += LANES) vf_store(dst + c, vf_load_n(src + r * ld + c, cols - c));
}

/* Asks for rows [rows, cols] that will be needed soon: they lie too far apart for the hardware to guess. */
static inline void fetch_rows(const float *p, int64_t rows, int64_t cols, int64_t ld) {
    for (int64_t r = 0; r < rows; r++, p += ld) {
        for (int64_t c = 0; c < cols; c += LANES) vf_fetch(p + c);
        vf_fetch(p + cols - 1); /* a row need not begin where a cache line does */
    }
}

#endif
