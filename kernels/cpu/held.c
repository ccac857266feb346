/* Weights that are packed once a step.  A copy belongs to one matrix in one form; hold drops all of them, so
 * that none outlives what it was made of. */
#include "kernels/cpu/held.h"

#include <string.h>

#include "launch/memory.h"

/* Fewer elements are packed as fast as found.  Each copy takes at least half a float an element, and the room
 * is a float for each weight: there are never more copies than half the slots. */
enum { LEAST_HELD = 4096, WEIGHTS_A_SLOT = LEAST_HELD / 4 };

struct held_matrix {
    const float *b; /* NULL: an empty slot */
    gemm_form form;
    int64_t n, k, ldb;
    const float *pairs;
};

void CPU_(held_free)(held *h) {
    mem_free(h->room);
    mem_free(h->slot);
    *h = (held){0};
}

/* Room for both forms of every weight. */
static void make_room(held *h, int64_t n) {
    CPU_(held_free)(h);
    h->size = n;
    h->room = mem_alloc_pages((size_t)n * sizeof *h->room, "weights in bf16");
    for (h->slots = 1; h->slots < n / WEIGHTS_A_SLOT; h->slots *= 2) continue;
    h->slot = mem_alloc((size_t)h->slots * sizeof *h->slot, "the list of weights in bf16");
}

void CPU_(hold)(kernel_context *ctx, int64_t n, const float *x) {
    held *h = ctx->held;
    if (ctx->dtype != DTYPE_BF16) return; /* operands are read as they are */
    if (n > h->size) make_room(h, n);
    else if (h->used) memset(h->slot, 0, (size_t)h->slots * sizeof *h->slot);
    h->used = 0;
    h->x = x;
    h->n = n;
}

/* The slot of B, or the empty one that it would get; NULL where no copy may be kept. */
static held_matrix *slot_of(const held *h, const gemm_problem *g) {
    if (g->form == GEMM_TN || g->n * g->k < LEAST_HELD) return NULL; /* activations */
    const int64_t rows = g->form == GEMM_NT ? g->n : g->k, cols = g->form == GEMM_NT ? g->k : g->n;
    const uintptr_t begin = (uintptr_t)g->b, held_begin = (uintptr_t)h->x;
    const uintptr_t end = begin + (uintptr_t)((rows - 1) * g->ldb + cols) * sizeof *g->b;
    if (begin < held_begin || end > held_begin + (uintptr_t)h->n * sizeof *g->b) return NULL;
    const uint64_t hash = (begin / sizeof *g->b + (uint64_t)g->form) * 0x9e3779b97f4a7c15u;
    for (int64_t i = (int64_t)(hash >> 32) & (h->slots - 1);; i = (i + 1) & (h->slots - 1)) {
        held_matrix *m = &h->slot[i];
        if (!m->b || (m->b == g->b && m->form == g->form && m->n == g->n && m->k == g->k && m->ldb == g->ldb))
            return m;
    }
}

const float *CPU_(held_pairs)(const kernel_context *ctx, const gemm_problem *g) {
    const held_matrix *m = ctx->held->n ? slot_of(ctx->held, g) : NULL;
    return m ? m->pairs : NULL;
}

const float *CPU_(held_pack)(const kernel_context *ctx, const gemm_problem *g) {
    held *h = ctx->held;
    held_matrix *m = h->n ? slot_of(h, g) : NULL;
    if (!m || m->b) return m ? m->pairs : NULL;
    const int64_t pairs = (g->k + 1) / 2, panels = (g->n + PANEL - 1) / PANEL, size = panels * pairs * PANEL;
    if (size > h->size - h->used) return NULL;
    float *to = h->room + h->used;
    h->used += size;
    *m = (held_matrix){g->b, g->form, g->n, g->k, g->ldb, to};
#pragma omp parallel for num_threads(threads_for(ctx, size)) schedule(static)
    for (int64_t i = 0; i < panels; i++)
        for (int64_t p = 0; p < g->k; p += GEMM_K_BLOCK) CPU_(bf16_panel)
    (to + (i * pairs + p / 2) * PANEL, thread_scratch(ctx), g, p, i * PANEL);
    return to;
}
