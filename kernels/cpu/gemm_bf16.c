/* Matrix products of operands that are rounded to bf16.
 *
 * Both operands are rounded to pairs (bf16.h) as they are packed, but for weights that are packed already
 * (held.h).  The loops, outside in: COLUMN_BLOCK columns of B, a block of k, ROW_BLOCK tiles of rows, a panel
 * of B, a tile.  A panel is packed when the first row block comes to it and stays in L1 while the row block
 * goes by; packed rows and columns share L2.  What is packed next is asked for meanwhile, a cache line with
 * each step: packing does not wait for memory, which multiply-adds cannot make good.  None of this decides
 * bits: an element of C is always its block sums added in order, as in float32, and each block is one chain
 * of pairs, k ascending.
 */
#include "kernels/cpu/gemm_ahead.h"
#include "kernels/cpu/stream.h"

enum {
    PAIRS = GEMM_K_BLOCK / 2,
    COLUMN_BLOCK = 32 * PANEL,
    ROW_BLOCK = 10,                              /* tiles */
    TILE_STEP = PAIRS * GEMM_LANES + CACHE_LINE, /* packed by columns, tiles must not share sets of L1 */
};

/* What lies in a thread's scratch. */
typedef struct bf16_scratch {
    float b[PAIRS * COLUMN_BLOCK];  /* [panel][pair][PANEL] */
    float a[TILE_STEP * ROW_BLOCK]; /* by rows [row][PAIRS], by columns [tile][pair][GEMM_LANES] */
    float rows[PAIRS * PANEL];      /* a panel of B [n,k] before it is transposed */
    float edge[TILE_ROWS * PANEL];  /* a tile that sticks out of C */
} bf16_scratch;
_Static_assert((int)TILE_ROWS <= (int)GEMM_LANES, "a tile by columns is one vector wide");
_Static_assert(sizeof(bf16_scratch) <= THREAD_SCRATCH, "a thread's scratch is too small");

/* Where the loops are: a row block in a block of k in a block of columns.  No g: at the end. */
typedef struct place {
    const gemm_problem *g;
    int64_t j, p, block;
} place;

static int64_t row_blocks(const gemm_problem *g) {
    return (tiles_of(g->m) + ROW_BLOCK - 1) / ROW_BLOCK;
}
static row_range block_rows(place at) {
    const int64_t blocks = row_blocks(at.g);
    return (row_range){at.block * at.g->m / blocks, (at.block + 1) * at.g->m / blocks};
}
static int64_t k_at(place at) {
    return min64(GEMM_K_BLOCK, at.g->k - at.p);
}

static place place_after(place at, const gemm_problem *next) {
    if (++at.block < row_blocks(at.g)) return at;
    at.block = 0;
    at.p += GEMM_K_BLOCK;
    if (at.p < at.g->k) return at;
    at.p = 0;
    at.j += COLUMN_BLOCK;
    if (at.j < at.g->n) return at;
    const int more = next && next->m > 0 && next->n > 0 && next->k > 0;
    return (place){.g = more ? next : NULL};
}

/* The packed panel of a held B, or NULL. */
static const float *held_panel(place at, int64_t j) {
    const gemm_problem *g = at.g;
    if (!g->held) return NULL;
    return g->held + (g->held_column + j) * ((g->k + 1) / 2) + at.p / 2 * PANEL;
}

static region matrix_region(const float *x, int64_t rows, int64_t cols, int64_t ld) {
    if (cols == ld) return (region){x, (rows * cols + CACHE_LINE - 1) / CACHE_LINE, CACHE_LINE, 1, 0};
    return (region){x, rows, ld, (cols + CACHE_LINE - 1) / CACHE_LINE, CACHE_LINE};
}

/* What is read where a row block begins, and where a panel does. */
static region rows_region(place at) {
    const gemm_problem *g = at.g;
    if (!g) return (region){0};
    const row_range r = block_rows(at);
    if (g->form == GEMM_TN)
        return matrix_region(g->a + at.p * g->lda + r.begin, k_at(at), r.end - r.begin, g->lda);
    return matrix_region(g->a + r.begin * g->lda + at.p, r.end - r.begin, k_at(at), g->lda);
}

static region panel_region(place at, int64_t j) {
    const gemm_problem *g = at.g;
    if (!g) return (region){0};
    const float *packed = held_panel(at, j);
    const int64_t columns = min64(PANEL, g->n - j), k = k_at(at);
    if (packed) return matrix_region(packed, (k + 1) / 2, PANEL, PANEL);
    if (g->form == GEMM_NT) return matrix_region(g->b + j * g->ldb + at.p, columns, k, g->ldb);
    return matrix_region(g->b + at.p * g->ldb + j, k, columns, g->ldb);
}

void CPU_(bf16_panel)(float *dst, void *scratch, const gemm_problem *g, int64_t p, int64_t j) {
    const int64_t k = min64(GEMM_K_BLOCK, g->k - p), columns = min64(PANEL, g->n - j);
    if (g->form == GEMM_NT) {
        CPU_(bf16_rows)(scratch, PAIRS, g->b + j * g->ldb + p, g->ldb, columns, k);
        CPU_(pack_transposed)(dst, PANEL, scratch, PAIRS, columns, (k + 1) / 2);
    } else {
        CPU_(bf16_panels)(dst, PANEL, 0, g->b + p * g->ldb + j, g->ldb, k, columns);
    }
}

static void pack_rows(bf16_scratch *s, place at, row_range r) {
    const gemm_problem *g = at.g;
    const int64_t k = k_at(at), rows = r.end - r.begin;
    if (g->form == GEMM_TN)
        CPU_(bf16_tiles)(s->a, TILE_STEP, g->a + at.p * g->lda + r.begin, g->lda, k, rows);
    else CPU_(bf16_rows)(s->a, PAIRS, g->a + r.begin * g->lda + at.p, g->lda, rows, k);
}

/* Where the panel at j is packed, now if it was not before: with one row block it is not read again. */
static const float *take_panel(bf16_scratch *s, place at, int64_t j) {
    const float *held = held_panel(at, j);
    float *panel = s->b + (row_blocks(at.g) > 1 ? (j - at.j) * PAIRS : 0);
    if (held) return held;
    if (at.block == 0) CPU_(bf16_panel)(panel, s->rows, at.g, at.p, j);
    return panel;
}

/* The tiles of a row block over a panel.  They ask for `panel`, and with what is left of them for `rows`,
 * from line *asked on. */
static void panel_tiles(bf16_scratch *s, place at, row_range r, int64_t j, int stream, const region *panel,
                        const region *rows, int64_t *asked) {
    const gemm_problem *g = at.g;
    const int64_t columns = min64(PANEL, g->n - j), count = tiles_of(r.end - r.begin);
    const float *d = at.p == 0 ? g->d : g->c;
    gemm_kernel *kernel = NULL;
    gemm_tile t = {.k = (k_at(at) + 1) / 2,
                   .b_step = PANEL,
                   .ldc = g->ldc,
                   .stream = stream && columns % GEMM_LANES == 0};
    t.a_step = g->form == GEMM_TN ? GEMM_LANES : PAIRS;
    int64_t of_panel = 0;
    t.b = take_panel(s, at, j);
    for (int64_t tile = 0, last = 0; tile < count; tile++) {
        const row_range in = tile_rows(tile, r.end - r.begin);
        const int64_t height = in.end - in.begin, place = (r.begin + in.begin) * g->ldc + j;
        t.a = g->form == GEMM_TN ? s->a + tile * TILE_STEP : s->a + in.begin * PAIRS;
        t.c = g->c + place;
        t.d = d ? d + place : NULL;
        fetches f;
        fetch_begin(&f, t.k);
        if (!stream) fetch_result(&f, &t, height);
        fetch_region(&f, panel, &of_panel);
        fetch_region(&f, rows, asked);
        fetch_end(&f, &t);
        if (height != last)
            kernel = CPU_(bf16_kernel_for)(g->form, (int)height, columns > GEMM_LANES ? 2 : 1);
        last = height;
        if (columns % GEMM_LANES) CPU_(gemm_edge_tile)(kernel, s->edge, t, height, columns);
        else kernel(&t);
    }
}

static void row_block(bf16_scratch *s, place at, place after, int stream) {
    const row_range r = block_rows(at);
    const int64_t end = min64(at.j + COLUMN_BLOCK, at.g->n);
    const region rows = rows_region(after),
                 first = after.block == 0 ? panel_region(after, after.j) : (region){0};
    int64_t asked = 0;
    pack_rows(s, at, r);
    for (int64_t j = at.j; j < end; j += PANEL) {
        region panel = {0};
        if (j + PANEL >= end) panel = first;
        else if (at.block == 0 || held_panel(at, j)) panel = panel_region(at, j + PANEL);
        panel_tiles(s, at, r, j, stream, &panel, &rows, &asked);
    }
}

void CPU_(gemm_bf16)(void *scratch, const gemm_problem *g, const gemm_problem *next) {
    if (g->m <= 0 || g->n <= 0) return;
    if (g->k <= 0) { /* nothing is multiplied */
        CPU_(gemm_float)(scratch, g, next);
        return;
    }
    const int stream =
        g->k <= GEMM_K_BLOCK && !g->d && stream_wanted(g->m * g->n * (int64_t)sizeof *g->c, g->c, g->ldc);
    for (place at = {.g = g}, after; at.g == g; at = after) {
        after = place_after(at, next);
        row_block(scratch, at, after, stream);
    }
    stream_end(stream);
}
