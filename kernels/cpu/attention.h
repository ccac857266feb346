/* What attention's forward and backward share: where a head lies, and products of small matrices. */
#ifndef CARACAL_KERNELS_CPU_ATTENTION_H
#define CARACAL_KERNELS_CPU_ATTENTION_H

#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm_ahead.h"
#include "kernels/cpu/vmath.h"
#include "launch/error.h"

#define LOG2_E   0x1.71547652b82fep+0
#define LN_2     0x1.62e430p-1f
#define LN_2_LOW -0x1.05c610p-29f

/* One head of one sequence.  A row is a position, counted from the sequence's first token; the first query
 * stands at `past`. */
typedef struct attention_head {
    int64_t keys, past;           /* rows of k; of these before the first row of q */
    int64_t nope, rope, v, width; /* width = nope + rope */
    const float *q, *k, *value, *k_rope;
    int64_t ld_q, ld_kv, ld_k_rope;
    const int32_t *first_key; /* NULL: 0 */
    float scale, scale_2;     /* of scores as powers of e, and of 2 */
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

/* Tiles of a square that the diagonal crosses are lower, for what they compute above it nobody sees. */
enum { DIAGONAL_ROWS = TILE_ROWS < 8 ? TILE_ROWS : 8 };
static inline row_range tile_of(int64_t i, int64_t rows, int diagonal) {
    if (!diagonal) return tile_rows(i, rows);
    return (row_range){i * DIAGONAL_ROWS, min64(rows, (i + 1) * DIAGONAL_ROWS)};
}
static inline int64_t tiles_in(int64_t rows, int diagonal) {
    return diagonal ? (rows + DIAGONAL_ROWS - 1) / DIAGONAL_ROWS : tiles_of(rows);
}

/* Threads share the heads of all sequences: each has some that lie side by side, whole sequences where it
 * can, whose rows it wrote itself; one that is early takes others' from the back.  A head is cut into pieces.
 */
typedef struct head_piece {
    int64_t head, piece;
    int64_t next; /* the head whose first piece the thread is likely to take after this first one, or -1 */
} head_piece;
static inline int64_t heads_before(int64_t heads, int part, int threads) {
    return part * heads / threads;
}
/* Before the threads begin. */
static inline void heads_open(const kernel_context *ctx, int threads, int64_t heads, int64_t pieces) {
    for (int part = 0; part < threads; part++) {
        const int64_t own = heads_before(heads, part + 1, threads) - heads_before(heads, part, threads);
        claims_open(ctx->claims + part, own * pieces);
    }
}
/* What the calling thread does next: the first pieces of all its heads, then the second ones, and so on. 0:
 * nothing is left. */
static inline int heads_next(const kernel_context *ctx, int threads, int64_t heads, head_piece *out) {
    for (int i = 0; i < threads; i++) {
        const int part = (omp_get_thread_num() + i) % threads;
        const int64_t first = heads_before(heads, part, threads),
                      own = heads_before(heads, part + 1, threads) - first;
        const int64_t unit = i ? claims_last(ctx->claims + part) : claims_first(ctx->claims + part);
        if (unit < 0) continue;
        *out = (head_piece){first + unit % own, unit / own, i == 0 && unit + 1 < own ? first + unit + 1 : -1};
        return 1;
    }
    return 0;
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
    REQUIRE(whole_lanes(n) <= c->end - p); /* the widest heads that a config may have do fit */
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

/* The operand of a product whose columns lie side by side: in panels of PANEL columns, `panel` apart, rows of
 * a panel `ld` apart.  A matrix whose rows are whole is one with a panel of PANEL. */
typedef struct columns {
    const float *at;
    int64_t ld, panel;
} columns;
static inline columns whole_rows(const float *at, int64_t ld) {
    return (columns){at, ld, PANEL};
}

/* c [m,n] = or += x y, one tile after another; n in whole lanes, m at most TILE_ROWS.  As in gemm_tile, rows
 * of x (GEMM_NN) or its columns (GEMM_TN: x is transposed) lie x_step apart. */
static inline void tile_product(const attention_head *a, gemm_form form, int64_t m, int64_t n, int64_t k,
                                float *c, int64_t ldc, int accumulate, const float *x, int64_t x_step,
                                columns y) {
    for (int64_t j = 0; j < n; j += PANEL, y.at += y.panel) {
        gemm_tile t = {
            .k = along(a, k), .a_step = x_step, .b_step = y.ld, .ldc = ldc, .a = x, .b = y.at, .c = c + j};
        t.d = accumulate ? t.c : NULL;
        t.fetch = &(fetched){t.c, 0, t.k};
        const int vectors = n - j < PANEL ? 1 : 2;
        (a->dtype == DTYPE_BF16 ? CPU_(bf16_kernel_for) : CPU_(gemm_kernel_for))(form, (int)m, vectors)(&t);
    }
}

/* dst [rows, whole_lanes(cols)] = src, zero beyond cols. */
static inline void pack_rows(float *dst, int64_t rows, int64_t cols, const float *src, int64_t ld) {
    for (int64_t r = 0; r < rows; r++, dst += whole_lanes(cols))
        for (int64_t c = 0; c < cols; c += LANES) vf_store(dst + c, vf_load_n(src + r * ld + c, cols - c));
}

static inline void copy_row(float *dst, const float *src, int64_t n) {
    for (int64_t c = 0; c < n; c += LANES) vf_store_n(dst + c, vf_load_n(src + c, n - c), n - c);
}

/* dst [n, whole_lanes(width)] = the keys of block [key, key + n), zero beyond width. */
static inline void copy_keys(const attention_head *a, int64_t key, int64_t n, float *dst) {
    for (int64_t j = 0; j < n; j++, dst += whole_lanes(a->width)) {
        copy_row(dst, a->k + (key + j) * a->ld_kv, a->nope);
        copy_row(dst + a->nope, a->k_rope + (key + j) * a->ld_k_rope, a->rope);
        vf_store_n(dst + a->width, vf_zero(), whole_lanes(a->width) - a->width);
    }
}

/* dst = n rows of x [n, k], of pairs or not, as columns of panels of `panel` floats. */
static inline void transpose_rows(float *dst, int64_t panel, int64_t n, int64_t k, const float *x,
                                  int64_t ld) {
    for (int64_t j = 0; j < n; j += PANEL, dst += panel)
        CPU_(pack_transposed)(dst, PANEL, x + j * ld, ld, min64(PANEL, n - j), k);
}

/* x [n, cols] as an operand whose columns are multiplied: dst in panels [along(cols), PANEL], a row of x in a
 * column; columns beyond n hold zero.  Room for n rows of whole lanes in `room`. */
static inline void transpose_operand(const attention_head *a, float *dst, float *room, int64_t n,
                                     int64_t cols, const float *x, int64_t ld) {
    if (a->dtype == DTYPE_BF16) {
        CPU_(bf16_rows)(room, row_along(a, cols), x, ld, n, cols);
        x = room;
        ld = row_along(a, cols);
    }
    transpose_rows(dst, along(a, cols) * PANEL, n, along(a, cols), x, ld);
}

/* dst in panels [along(width), PANEL] = the keys of block [key, key + n), likewise.  room: for twice n keys.
 */
static inline void pack_keys(const attention_head *a, int64_t key, int64_t n, float *dst, float *room) {
    const int64_t width = whole_lanes(a->width), panel = a->width * PANEL;
    if (a->dtype == DTYPE_BF16) { /* a pair may be of both parts */
        copy_keys(a, key, n, room);
        transpose_operand(a, dst, room + n * width, n, a->width, room, width);
        return;
    }
    transpose_rows(dst, panel, n, a->nope, a->k + key * a->ld_kv, a->ld_kv);
    transpose_rows(dst + a->nope * PANEL, panel, n, a->rope, a->k_rope + key * a->ld_k_rope, a->ld_k_rope);
}
static inline columns packed_panels(const attention_head *a, const float *at, int64_t k) {
    return (columns){at, PANEL, along(a, k) * PANEL};
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
        for (int64_t c = 0; c < cols; c += LANES) vf_fetch_much(p + c);
        vf_fetch_much(p + cols - 1); /* a row need not begin where a cache line does */
    }
}

/* What a thread will read next.  It asks for a share of it with each tile: the processor waits when it is
 * asked for more at once than it can. */
typedef struct soon {
    struct {
        const float *at;
        int64_t rows, cols, ld;
    } part[4];
} soon;
static inline soon share_of(soon s, int64_t i, int64_t n) {
    for (int p = 0; p < 4; p++) {
        const int64_t begin = i * s.part[p].rows / n, end = (i + 1) * s.part[p].rows / n;
        s.part[p].at += begin * s.part[p].ld;
        s.part[p].rows = end - begin;
    }
    return s;
}
static inline void fetch_soon(soon s) {
    for (int p = 0; p < 4; p++) fetch_rows(s.part[p].at, s.part[p].rows, s.part[p].cols, s.part[p].ld);
}
static inline soon keys_soon(const attention_head *a, int64_t key, int64_t n) {
    return (soon){{{a->k + key * a->ld_kv, n, a->nope + a->v, a->ld_kv}}};
}

#endif
