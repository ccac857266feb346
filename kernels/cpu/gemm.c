/* Matrix products.
 *
 * The loops, outside in: COLUMN_BLOCK columns of B, a block of k, ROW_BLOCK tiles of rows, a panel of B, a
 * tile. So a panel of B stays in L1 while the row block, whose part of A fits into L2, goes by.  A cache line
 * is asked for with each k: first the next panel of B, which a step finds in main memory, then the next row
 * block's A, if it lies by rows, and last the tile's own part of C; where A by columns is new, C first, and
 * then A until the tile's last step.  Threads have parts of C, and one that has done its own helps with the
 * last block of another's (claims.h): parts are equal, but cores are not.  None of this decides bits: an
 * element of C is always its block sums added in order.
 */
#include <string.h>

#include "kernels/cpu/gemm_ahead.h"
#include "kernels/cpu/held.h"

enum {
    COLUMN_BLOCK = 12 * PANEL,  /* columns of B that are packed at one time */
    ROW_BLOCK = 16,             /* tiles */
    BALANCED_PRODUCT = 1 << 22, /* multiply-adds below which it is over before help would pay */
    PACK_ROWS = 256, /* with more rows than this a B whose panels can be read in place is packed too */
    /* Rows a multiple of 4 KiB apart share the sets of L1, which hold some 12 lines each: B is packed sooner,
     * and fewer rows of A are read side by side. */
    ALIASED = 1024,
    PACK_ROWS_ALIASED = 4 * TILE_ROWS,
    TILE_ROWS_ALIASED = TILE_ROWS < 10 ? TILE_ROWS : 10,
    /* A by columns, so far apart, is copied first where tiles are low, and ask for its lines sooner than L2
     * can answer.  High ones do not wait, and L1 has more room for B while A is not in it. */
    COPIES_COLUMNS = TILE_ROWS < 10,
    COLUMNS_STEP = ROW_BLOCK * TILE_ROWS + CACHE_LINE, /* of the copy: an odd number of lines */
    K_AHEAD = 8,                                       /* of it, that are asked for */
};

/* What lies in a thread's scratch. */
typedef struct gemm_scratch {
    float panel[GEMM_K_BLOCK * COLUMN_BLOCK];
    float columns[GEMM_K_BLOCK * COLUMNS_STEP]; /* of A, under a row block */
    float edge[TILE_ROWS * PANEL];              /* a tile that sticks out of C */
} gemm_scratch;
_Static_assert(sizeof(gemm_scratch) <= THREAD_SCRATCH, "a thread's scratch is too small");

/* The rows of C in tiles of nearly equal height, for a remainder of one or two rows would run at half speed:
 * the first `taller` have height + 1 rows.  Before them comes one of `head` rows where a tile is to pack B.
 */
typedef struct tiling {
    int64_t head, heads, height, taller, tiles;
} tiling;

/* A panel of B and the tiles above it. */
typedef struct panel_work {
    int64_t p, k;       /* the block of k */
    int64_t j, columns; /* of C */
    int64_t begin, end; /* tiles */
    int fused;          /* the first tile packs */
    const float *a;     /* of the first tile's first row, in this block of k */
    int64_t a_step;
    region soon, rows; /* what is asked for: of B and of A */
    int new_columns;   /* of A, which no panel before has read */
} panel_work;

static tiling tiling_for(const gemm_problem *g) {
    tiling t = {0};
    if (g->form == GEMM_NT && g->k % 8 == 0 && !g->held) t.head = min64(FUSED_ROWS, g->m);
    t.heads = t.head > 0;
    const int64_t most = g->form == GEMM_TN || g->lda % ALIASED ? TILE_ROWS : TILE_ROWS_ALIASED;
    const int64_t rows = g->m - t.head, tiles = (rows + most - 1) / most;
    if (tiles) {
        t.height = rows / tiles;
        t.taller = rows % tiles;
    }
    t.tiles = t.heads + tiles;
    return t;
}

/* The first row of a tile, or the end of C for the tile after the last. */
static inline int64_t tile_row(const tiling *t, int64_t tile) {
    if (tile < t->heads) return 0;
    tile -= t->heads;
    return t->head + tile * t->height + min64(tile, t->taller);
}

/* Of a held B, the block of k at p of the panel at j. */
static const float *held_panel(const gemm_problem *g, int64_t p, int64_t j) {
    return g->held + (g->held_column + j) * g->k + p * PANEL;
}

/* What to ask for before the panel at p, j is computed: B, or the C that is added to, where a tile has too
 * few steps to ask for its own part of it. */
static region panel_region(const gemm_problem *g, int64_t p, int64_t j) {
    const int64_t k = min64(GEMM_K_BLOCK, g->k - p), columns = min64(PANEL, g->n - j);
    if (g->held) return (region){held_panel(g, p, j), k * PANEL / CACHE_LINE, CACHE_LINE, 1, 0};
    if (g->form == GEMM_NT) {
        if (g->ldb == k) return (region){g->b + j * k, columns * k / CACHE_LINE, CACHE_LINE, 1, 0};
        return (region){g->b + j * g->ldb + p, columns, g->ldb, (k + CACHE_LINE - 1) / CACHE_LINE,
                        CACHE_LINE};
    }
    if (g->form == GEMM_TN && g->d && k < LONG_TILE)
        return (region){g->c + j, g->m, g->ldc, PANEL / CACHE_LINE, CACHE_LINE};
    return (region){g->b + p * g->ldb + j, k, g->ldb, PANEL / CACHE_LINE, CACHE_LINE};
}

/* The same of the panel that is computed after the one at p, j, in this product or in the next. */
static region next_region(const gemm_problem *g, const gemm_problem *next, int64_t p, int64_t j) {
    const int64_t begin = j / COLUMN_BLOCK * COLUMN_BLOCK, end = min64(begin + COLUMN_BLOCK, g->n);
    if (j + PANEL < end) return panel_region(g, p, j + PANEL);
    if (p + GEMM_K_BLOCK < g->k) return panel_region(g, p + GEMM_K_BLOCK, begin);
    if (end < g->n) return panel_region(g, 0, end);
    return next ? panel_region(next, 0, 0) : (region){0};
}

/* A by rows under the tiles [begin, end), in the block of k at p. */
static region rows_region(const gemm_problem *g, const tiling *t, int64_t p, int64_t begin, int64_t end) {
    const int64_t k = min64(GEMM_K_BLOCK, g->k - p), i = tile_row(t, begin);
    return (region){g->a + i * g->lda + p, tile_row(t, end) - i, g->lda, (k + CACHE_LINE - 1) / CACHE_LINE,
                    CACHE_LINE};
}

static const float *panel_in_place(const gemm_problem *g, const panel_work *w) {
    return g->b + (g->form == GEMM_NT ? w->j * g->ldb + w->p : w->p * g->ldb + w->j);
}

/* Sets t->b to the panel: where it is, if that will do, or packed.  Returns whether the first tile is to pack
 * it. */
static int take_panel(const gemm_problem *g, const panel_work *w, gemm_tile *t, float *panel, int packed) {
    const int width = w->columns > GEMM_LANES ? PANEL : GEMM_LANES, whole = w->columns == width;
    const int64_t pack_rows = g->ldb % ALIASED ? PACK_ROWS : PACK_ROWS_ALIASED;
    if (g->held) {
        t->b = held_panel(g, w->p, w->j);
        t->b_step = PANEL;
        return 0;
    }
    t->b = panel;
    t->b_step = width;
    if (g->form != GEMM_NT && g->m <= pack_rows && whole) {
        t->b = panel_in_place(g, w);
        t->b_step = g->ldb;
        return 0;
    }
    if (packed) return 0;
    if (g->form == GEMM_NT ? w->fused : whole) return 1;
    if (g->form == GEMM_NT)
        CPU_(pack_transposed)(panel, width, panel_in_place(g, w), g->ldb, w->columns, w->k);
    else CPU_(pack_columns)(panel, width, panel_in_place(g, w), g->ldb, w->columns, w->k);
    return 0;
}

void CPU_(gemm_edge_tile)(gemm_kernel *kernel, float *edge, gemm_tile t, int64_t rows, int64_t columns) {
    const float *d = t.d;
    float *c = t.c;
    const int64_t ldc = t.ldc;
    t.c = edge;
    t.d = NULL;
    t.ldc = PANEL;
    kernel(&t);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            c[i * ldc + j] = d ? d[i * ldc + j] + edge[i * PANEL + j] : edge[i * PANEL + j];
        }
    }
}

static void panel_tiles(gemm_scratch *scratch, const gemm_problem *g, const tiling *tiles,
                        const panel_work *w, float *panel, int packed) {
    gemm_tile t = {.k = w->k, .a_step = w->a_step, .ldc = g->ldc};
    const int64_t a_row = g->form == GEMM_TN ? 1 : g->lda;
    const float *a = w->a, *d = w->p == 0 ? g->d : g->c;
    int64_t of_panel = 0, of_rows = 0; /* lines that were asked for */
    const int first_packs = take_panel(g, w, &t, panel, packed);
    for (int64_t tile = w->begin; tile < w->end; tile++) {
        const int64_t i = tile_row(tiles, tile), rows = tile_row(tiles, tile + 1) - i;
        const int vectors = w->columns > GEMM_LANES ? 2 : 1, packs = first_packs && tile == w->begin;
        t.a = a;
        a += rows * a_row;
        t.c = g->c + i * g->ldc + w->j;
        t.d = d ? d + i * g->ldc + w->j : NULL;
        const int fused = packs && g->form == GEMM_NT;
        fetches f;
        const int last = !fused && !w->new_columns && t.k >= LONG_TILE; /* there are steps to spare */
        fetch_begin(&f, last ? t.k - RESULT_STEPS * rows : t.k);
        if (fused) fetch_result_now(&t, rows); /* it has steps for one run of lines */
        else if (!last) fetch_result(&f, &t, rows);
        if (w->new_columns) fetch_columns(&f, &t, rows, tile + 1 < tiles->tiles);
        /* fused with FUSED_ROWS rows it asks for nothing */
        if (!fused || (rows < FUSED_ROWS && w->soon.rows >= t.k)) fetch_region(&f, &w->soon, &of_panel);
        if (!fused) fetch_region(&f, &w->rows, &of_rows);
        if (last) fetch_result_last(&f, &t, rows);
        fetch_end(&f, &t);
        if (packs) {
            gemm_tile first = t;
            first.b = panel_in_place(g, w);
            first.b_step = g->ldb;
            first.panel = panel;
            first.panel_mask = tiles->tiles > 1 ? -1 : 8;
            if (fused) CPU_(gemm_fused_kernel_for)((int)rows)(&first);
            else CPU_(gemm_copying_kernel_for)(g->form, (int)rows, vectors)(&first);
            continue;
        }
        gemm_kernel *kernel = CPU_(gemm_kernel_for)(g->form, (int)rows, vectors);
        if (w->columns % GEMM_LANES) CPU_(gemm_edge_tile)(kernel, scratch->edge, t, rows, w->columns);
        else kernel(&t);
    }
}

static void copy_or_zero(const gemm_problem *g) {
    for (int64_t i = 0; i < g->m; i++) {
        float *c = g->c + i * g->ldc;
        if (!g->d) memset(c, 0, (size_t)g->n * sizeof *c);
        else if (g->d != g->c) memcpy(c, g->d + i * g->ldc, (size_t)g->n * sizeof *c);
    }
}

/* One block of columns, one block of k.  Its units are the panels of each row block, row block by row block.
 */
typedef struct block_work {
    const gemm_problem *g, *next;
    tiling tiles;
    int64_t j, columns, p, blocks, panels;
    unsigned packed; /* panels that lie in the thread's scratch */
    int copies;      /* A is copied there, too, a row block at a time, */
    int64_t copied;  /* now this one, or -1 */
} block_work;
_Static_assert(COLUMN_BLOCK / PANEL <= 32, "a bit for each panel");

static block_work block_at(const gemm_problem *g, const gemm_problem *next, int64_t j, int64_t p) {
    block_work b = {.g = g,
                    .next = next,
                    .tiles = tiling_for(g),
                    .j = j,
                    .columns = min64(COLUMN_BLOCK, g->n - j),
                    .p = p};
    b.blocks = (b.tiles.tiles + ROW_BLOCK - 1) / ROW_BLOCK;
    b.panels = (b.columns + PANEL - 1) / PANEL;
    b.copies = COPIES_COLUMNS && g->form == GEMM_TN && g->lda % ALIASED == 0;
    b.copied = -1;
    return b;
}

/* dst [k, COLUMNS_STEP] = columns of A [k, columns]. */
static void copy_columns(float *dst, const float *a, int64_t lda, int64_t columns, int64_t k) {
    for (int64_t p = 0; p < k; p++, a += lda, dst += COLUMNS_STEP) {
        for (int64_t i = 0; i < columns && p + K_AHEAD < k; i += CACHE_LINE)
            __builtin_prefetch(a + K_AHEAD * lda + i);
        memcpy(dst, a, (size_t)columns * sizeof *dst);
    }
}

/* Where A under the row block of w begins, and how far apart its rows, or columns, are. */
static void take_rows(gemm_scratch *scratch, block_work *b, int64_t block, panel_work *w) {
    const gemm_problem *g = b->g;
    const int64_t begin = tile_row(&b->tiles, w->begin), end = tile_row(&b->tiles, w->end);
    w->a = g->a + (g->form == GEMM_TN ? w->p * g->lda + begin : begin * g->lda + w->p);
    w->a_step = g->lda;
    if (!COPIES_COLUMNS || !b->copies) return;
    if (b->copied != block) copy_columns(scratch->columns, w->a, g->lda, end - begin, w->k);
    b->copied = block;
    w->a = scratch->columns;
    w->a_step = COLUMNS_STEP;
}

static void block_unit(gemm_scratch *scratch, block_work *b, int64_t unit) {
    const gemm_problem *g = b->g;
    const int64_t block = unit / b->panels, panel = unit % b->panels, blocks = b->blocks;
    const int64_t j = b->j + panel * PANEL, k = min64(GEMM_K_BLOCK, g->k - b->p);
    panel_work w = {.p = b->p, .k = k, .j = j, .columns = min64(PANEL, g->n - j)};
    w.begin = block * b->tiles.tiles / blocks;
    w.end = (block + 1) * b->tiles.tiles / blocks;
    take_rows(scratch, b, block, &w);
    w.new_columns = panel == 0 && g->form == GEMM_TN && !b->copies;
    w.fused = block == 0 && b->tiles.heads && w.columns == PANEL;
    if (block == 0 || (panel == b->panels - 1 && block == blocks - 1)) /* later row blocks find B in L2 */
        w.soon = next_region(g, b->next, b->p, j);
    if (panel == b->panels - 1 && g->form != GEMM_TN) {
        if (block < blocks - 1)
            w.rows = rows_region(g, &b->tiles, b->p, w.end, (block + 2) * b->tiles.tiles / blocks);
        else if (b->p + k < g->k) w.rows = rows_region(g, &b->tiles, b->p + k, 0, b->tiles.tiles / blocks);
    }
    const int kept = blocks > 1;
    panel_tiles(scratch, g, &b->tiles, &w, scratch->panel + (kept ? panel * PANEL * k : 0),
                kept && b->packed >> panel & 1);
    b->packed |= 1u << panel;
}

/* All of g.  Where `own` is there, units of the last block are left to those that help. */
static void float_blocks(gemm_scratch *scratch, const gemm_problem *g, const gemm_problem *next,
                         claims *own) {
    if (g->m <= 0 || g->n <= 0) return;
    if (g->k <= 0) copy_or_zero(g);
    for (int64_t j = 0; j < g->n; j += COLUMN_BLOCK) {
        for (int64_t p = 0; p < g->k; p += GEMM_K_BLOCK) {
            block_work b = block_at(g, next, j, p);
            const int64_t units = b.blocks * b.panels;
            if (own && j + COLUMN_BLOCK >= g->n && p + GEMM_K_BLOCK >= g->k) { /* the last */
                if (j || p) claims_open(own, units);
                for (int64_t unit; (unit = claims_first(own)) >= 0;) block_unit(scratch, &b, unit);
            } else {
                for (int64_t unit = 0; unit < units; unit++) block_unit(scratch, &b, unit);
            }
        }
    }
}

/* Units of another thread's last block. */
static void float_help(gemm_scratch *scratch, const gemm_problem *g, claims *theirs) {
    if (g->m <= 0 || g->n <= 0 || g->k <= 0) return;
    block_work b =
        block_at(g, NULL, (g->n - 1) / COLUMN_BLOCK * COLUMN_BLOCK, (g->k - 1) / GEMM_K_BLOCK * GEMM_K_BLOCK);
    for (int64_t unit; (unit = claims_last(theirs)) >= 0;) block_unit(scratch, &b, unit);
}

void CPU_(gemm_float)(void *scratch, const gemm_problem *g, const gemm_problem *next) {
    float_blocks(scratch, g, next, NULL);
}

/* Where the last block is the only one, threads may help from the start. */
static void open_part(const gemm_problem *g, claims *c) {
    int64_t units = 0;
    if (g->m > 0 && g->n > 0 && g->k > 0 && g->n <= COLUMN_BLOCK && g->k <= GEMM_K_BLOCK) {
        const block_work b = block_at(g, NULL, 0, 0);
        units = b.blocks * b.panels;
    }
    claims_open(c, units);
}

static void on_threads(kernel_context *ctx, gemm_on_thread *product, const gemm_problem *g) {
    const int threads = CPU_(gemm_threads)(ctx, g->m, g->n, g->k);
    const int balanced =
        product == CPU_(gemm_float) && (double)g->m * (double)g->n * (double)g->k >= BALANCED_PRODUCT;
    if (threads == 1) {
        product(thread_scratch(ctx), g, NULL);
        return;
    }
    const gemm_grid grid = CPU_(gemm_grid_for)(ctx, threads, g->form, g->m, g->n, g->k, g->held != NULL);
    const int parts = grid.rows * grid.columns;
    for (int part = 0; balanced && part < parts; part++) {
        const gemm_problem one = CPU_(gemm_part)(g, grid, part);
        open_part(&one, ctx->claims + part);
    }
#pragma omp parallel num_threads(threads)
    {
        void *scratch = thread_scratch(ctx);
#pragma omp for schedule(static, 1) nowait
        for (int part = 0; part < parts; part++) {
            const gemm_problem mine = CPU_(gemm_part)(g, grid, part);
            if (balanced) float_blocks(scratch, &mine, NULL, ctx->claims + part);
            else product(scratch, &mine, NULL);
        }
        for (int i = 1; balanced && i <= parts; i++) {
            const int part = (omp_get_thread_num() + i) % parts;
            const gemm_problem theirs = CPU_(gemm_part)(g, grid, part);
            float_help(scratch, &theirs, ctx->claims + part);
        }
    }
}

void CPU_(gemm)(kernel_context *ctx, gemm_form form, int64_t m, int64_t n, int64_t k, float *c, int64_t ldc,
                const float *d, const float *a, int64_t lda, const float *b, int64_t ldb) {
    gemm_problem g = {form, m, n, k, c, ldc, d, a, lda, b, ldb, NULL, 0};
    g.held = CPU_(held_pack)(ctx, &g);
    on_threads(ctx, gemm_for(ctx), &g);
}

void CPU_(gemm_float32)(kernel_context *ctx, gemm_form form, int64_t m, int64_t n, int64_t k, float *c,
                        int64_t ldc, const float *d, const float *a, int64_t lda, const float *b,
                        int64_t ldb) {
    on_threads(ctx, CPU_(gemm_float), &(gemm_problem){form, m, n, k, c, ldc, d, a, lda, b, ldb, NULL, 0});
}
