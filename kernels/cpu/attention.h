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
    kernels_dtype dtype;
} attention_head;

attention_head CPU_(attention_head_of)(const kernel_context *ctx, attention_shape s, int64_t b, int64_t h,
                                       const float *q, const float *kv, const float *k_rope,
                                       int64_t ld_k_rope, const int32_t *first_key);

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

/* Operands of products are matrices of floats, or in bf16 of pairs (bf16.h): then so many lie along n
 * elements. */
static inline int64_t along(const attention_head *a, int64_t n) {
    return a->dtype == DTYPE_BF16 ? (n + 1) / 2 : n;
}
static inline int64_t row_along(const attention_head *a, int64_t n) { /* in whole lanes */
    return whole_lanes(along(a, n));
}

/* c [m,n] = or += x y, one tile after another; n in whole lanes, m at most TILE_ROWS.  As in gemm_tile, rows
 * of x (GEMM_NN) or its columns (GEMM_TN: x is transposed) lie x_step apart. */
static inline void tile_product(const attention_head *a, gemm_form form, int64_t m, int64_t n, int64_t k,
                                float *c, int64_t ldc, int accumulate, const float *x, int64_t x_step,
                                const float *y, int64_t ldy) {
    for (int64_t j = 0; j < n; j += PANEL) {
        gemm_tile t = {
            .k = along(a, k), .a_step = x_step, .b_step = ldy, .ldc = ldc, .a = x, .b = y + j, .c = c + j};
        t.d = accumulate ? t.c : NULL;
        const int vectors = n - j < PANEL ? 1 : 2;
        (a->dtype == DTYPE_BF16 ? CPU_(bf16_kernel_for) : CPU_(gemm_kernel_for))(form, (int)m, vectors)(&t);
    }
}

/* dst [rows, whole_lanes(cols)] = src, zero beyond cols. */
static inline void pack_rows(float *dst, int64_t rows, int64_t cols, const float *src, int64_t ld) {
    for (int64_t r = 0; r < rows; r++, dst += whole_lanes(cols))
        for (int64_t c = 0; c < cols; c += LANES) vf_store(dst + c, vf_load_n(src + r * ld + c, cols - c));
}

/* dst [n, whole_lanes(width)] = the keys of block [key, key + n). */
static inline void copy_keys(const attention_head *a, int64_t key, int64_t n, float *dst) {
    for (int64_t j = 0; j < n; j++, dst += whole_lanes(a->width)) {
        memcpy(dst, a->k + (key + j) * a->ld_kv, (size_t)a->nope * sizeof *dst);
        memcpy(dst + a->nope, a->k_rope + (key + j) * a->ld_k_rope, (size_t)a->rope * sizeof *dst);
    }
}

/* x [n, cols] as an operand whose columns are multiplied: dst [along(cols), KEYS], a row of x in a column;
 * columns beyond n hold anything finite that the rows hold.  Room for KEYS rows of whole lanes in `room`. */
static inline void transpose_operand(const attention_head *a, float *dst, float *room, int64_t n,
                                     int64_t cols, const float *x, int64_t ld) {
    if (a->dtype == DTYPE_BF16) {
        CPU_(bf16_rows)(room, row_along(a, cols), x, ld, n, cols);
        x = room;
        ld = row_along(a, cols);
    }
    CPU_(pack_transposed)(dst, KEYS, x, ld, n, along(a, cols));
}

/* dst [along(width), KEYS] = the keys of block [key, key + n), likewise.  room: for twice KEYS keys. */
static inline void pack_keys(const attention_head *a, int64_t key, int64_t n, float *dst, float *room) {
    const int64_t width = whole_lanes(a->width);
    if (a->dtype == DTYPE_BF16) { /* a pair may be of both parts */
        copy_keys(a, key, n, room);
        transpose_operand(a, dst, room + KEYS * width, n, a->width, room, width);
        return;
    }
    CPU_(pack_transposed)(dst, KEYS, a->k + key * a->ld_kv, a->ld_kv, n, a->nope);
    CPU_(pack_transposed)
    (dst + a->nope * KEYS, KEYS, a->k_rope + key * a->ld_k_rope, a->ld_k_rope, n, a->rope);
}

/* x [rows, cols] as an operand whose rows are multiplied: dst [along(rows), whole_lanes(cols)], zero beyond
 * cols. */
static inline void rows_operand(const attention_head *a, float *dst, int64_t rows, int64_t cols,
                                const float *x, int64_t ld) {
    if (a->dtype == DTYPE_BF16) CPU_(bf16_panels)(dst, whole_lanes(cols), PANEL, x, ld, rows, cols);
    else pack_rows(dst, rows, cols, x, ld);
}

/* Asks for rows [rows, cols] that will be needed soon: they lie too far apart for the hardware to guess. */
static inline void fetch_rows(const float *p, int64_t rows, int64_t cols, int64_t ld) {
    for (int64_t r = 0; r < rows; r++, p += ld) {
        for (int64_t c = 0; c < cols; c += LANES) vf_fetch(p + c);
        vf_fetch(p + cols - 1); /* a row need not begin where a cache line does */
    }
}

#endif
