/* Weights that are packed once a step, or once for a generation.  A copy belongs to one matrix in one form;
 * hold drops all of them, so that none outlives what it was made of. */
#include "kernels/cpu/held.h"

#include <string.h>

#include "launch/memory.h"

enum {
    LEAST_HELD = 4096, /* elements; fewer are packed as fast as found */
    /* A copy takes at least half a float an element (in bf16), and the room is a float for each weight: half
     * of the slots are enough. */
    WEIGHTS_A_SLOT = LEAST_HELD / 4,
    /* In float32: with more rows transposing costs next to nothing beside the products, and packing a copy
     * costs what transposing does in about so many products. */
    FEW_ROWS = 64,
    FEW_USES = 16,
};

struct held_matrix {
    const float *b; /* NULL: an empty slot */
    gemm_form form;
    int64_t n, k, ldb;
    int64_t uses;
    const float *packed; /* NULL: not yet */
};

void CPU_(held_free)(held *h) {
    mem_free(h->room);
    mem_free(h->slot);
    *h = (held){0};
}

/* A float for each weight: both forms of it in bf16, one in float32. */
static void make_room(held *h) {
    mem_free(h->room);
    h->size = h->n;
    h->room = mem_alloc_pages((size_t)h->size * sizeof *h->room, "packed weights");
}

static void make_slots(held *h) {
    mem_free(h->slot);
    for (h->slots = 1; h->slots < h->n / WEIGHTS_A_SLOT; h->slots *= 2) continue;
    h->slot = mem_alloc((size_t)h->slots * sizeof *h->slot, "the list of packed weights");
}

void CPU_(hold)(kernel_context *ctx, int64_t n, const float *x) {
    held *h = ctx->held;
    if (h->taken) memset(h->slot, 0, (size_t)h->slots * sizeof *h->slot);
    h->used = h->taken = 0;
    h->x = x;
    h->n = n;
    if (ctx->dtype == DTYPE_BF16 && n > h->size) make_room(h);
}

/* Might a copy of B be kept? */
static int may_be_held(const kernel_context *ctx, const gemm_problem *g) {
    const held *h = ctx->held;
    if (!h->n || g->form == GEMM_TN || g->n * g->k < LEAST_HELD) return 0; /* TN: activations */
    if (ctx->dtype == DTYPE_FLOAT32 && (g->form != GEMM_NT || g->m > FEW_ROWS)) return 0;
    const int64_t rows = g->form == GEMM_NT ? g->n : g->k, cols = g->form == GEMM_NT ? g->k : g->n;
    const uintptr_t begin = (uintptr_t)g->b, held_begin = (uintptr_t)h->x;
    const uintptr_t end = begin + (uintptr_t)((rows - 1) * g->ldb + cols) * sizeof *g->b;
    return begin >= held_begin && end <= held_begin + (uintptr_t)h->n * sizeof *g->b;
}

/* The slot of B, or the empty one that it would get. */
static held_matrix *slot_of(const held *h, const gemm_problem *g) {
    const uint64_t hash = ((uintptr_t)g->b / sizeof *g->b + (uint64_t)g->form) * UINT64_C(0x9e3779b97f4a7c15);
    for (int64_t i = (int64_t)(hash >> 32) & (h->slots - 1);; i = (i + 1) & (h->slots - 1)) {
        held_matrix *m = &h->slot[i];
        if (!m->b || (m->b == g->b && m->form == g->form && m->n == g->n && m->k == g->k && m->ldb == g->ldb))
            return m;
    }
}

const float *CPU_(held_find)(const kernel_context *ctx, const gemm_problem *g) {
    return ctx->held->taken && may_be_held(ctx, g) ? slot_of(ctx->held, g)->packed : NULL;
}

static void pack(const kernel_context *ctx, const gemm_problem *g, float *to, int64_t panels, int64_t depth) {
#pragma omp parallel for num_threads(threads_for(ctx, panels *depth *PANEL)) schedule(static)
    for (int64_t i = 0; i < panels; i++) {
        float *panel = to + i * depth * PANEL;
        const int64_t j = i * PANEL;
        if (ctx->dtype == DTYPE_FLOAT32)
            CPU_(pack_transposed)(panel, PANEL, g->b + j * g->ldb, g->ldb, min64(PANEL, g->n - j), g->k);
        for (int64_t p = 0; ctx->dtype == DTYPE_BF16 && p < g->k; p += GEMM_K_BLOCK)
            CPU_(bf16_panel)(panel + p / 2 * PANEL, thread_scratch(ctx), g, p, j);
    }
}

const float *CPU_(held_pack)(const kernel_context *ctx, const gemm_problem *g) {
    held *h = ctx->held;
    if (!may_be_held(ctx, g)) return NULL;
    if (!h->taken && h->slots < h->n / WEIGHTS_A_SLOT) make_slots(h);
    held_matrix *m = slot_of(h, g);
    if (m->packed) return m->packed;
    if (!m->b) {
        if (2 * h->taken >= h->slots) return NULL;
        *m = (held_matrix){g->b, g->form, g->n, g->k, g->ldb, 0, NULL};
        h->taken++;
    }
    if (ctx->dtype == DTYPE_FLOAT32 && ++m->uses < FEW_USES) return NULL;
    const int64_t depth = ctx->dtype == DTYPE_FLOAT32 ? g->k : (g->k + 1) / 2;
    const int64_t panels = (g->n + PANEL - 1) / PANEL, size = panels * depth * PANEL;
    if (h->n > h->size) {                                          /* the first copy */
        if ((size_t)h->n * sizeof *h->room > mem_left()) h->n = 0; /* no run ends for want of a copy */
        else make_room(h);
    }
    if (!h->n || size > h->size - h->used) return NULL;
    float *to = h->room + h->used;
    h->used += size;
    pack(ctx, g, to, panels, depth);
    return m->packed = to;
}
