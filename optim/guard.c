#include "optim/guard.h"

#include <stdio.h>
#include <string.h>

#include "kernels/twin.h"
#include "launch/digest.h"

_Static_assert(SUM_BLOCK * sizeof(float) == DIGEST_BLOCK, "the same blocks in memory and in messages");

void guard_create(guard *g, const params *p, const kernels *k) {
    int64_t most = 0;
    *g = (guard){.p = p, .k = k};
    for (int64_t i = 0; i < p->n; i++) most = p->param[i].count > most ? p->param[i].count : most;
    for (int i = 0; i < GUARDED; i++)
        g->digest[i] = mem_alloc((size_t)p->blocks * sizeof *g->digest[i], "digests of the state");
    size_t longest = (size_t)(most / SUM_BLOCK + 1) * sizeof *g->now;
    g->table = k->alloc(k->ctx, longest, "digests of the state");
    g->now = twin_alloc(k, g->table, longest, "digests of the state");
    g->block = mem_alloc(SUM_BLOCK * sizeof *g->block, "digests of the state");
}

void guard_destroy(guard *g) {
    if (!g->k) return;
    for (int i = 0; i < GUARDED; i++) mem_free(g->digest[i]);
    twin_free(g->table, g->now);
    g->k->free(g->k->ctx, g->table);
    mem_free(g->block);
    *g = (guard){0};
}

static uint64_t *place_of(const guard *g, int what, const piece *q) {
    return g->digest[what] + g->p->param[q->param].first_block + q->offset / SUM_BLOCK;
}

static const real *values_of(const piece *q, int what) {
    return what == GUARD_WEIGHT ? q->weight : what == GUARD_MOMENT_1 ? q->m : q->v;
}

/* out, in host memory, = digests of the blocks of x. */
static void digest_of_blocks(const guard *g, int64_t n, uint64_t *out, const real *x) {
    uint64_t *to = g->k->host_memory ? out : g->table;
    g->k->digest(g->k->ctx, n, to, x);
    twin_read(g->k, out, to, (size_t)((n + SUM_BLOCK - 1) / SUM_BLOCK) * sizeof *out);
}

void guard_note(guard *g, const piece *q) {
    for (int what = 0; what < (q->m && g->note_moments ? GUARDED : 1); what++)
        digest_of_blocks(g, q->count, place_of(g, what, q), values_of(q, what));
}

/* Elements `from` .. of a piece are not what they were. */
static void describe(guard *g, int what, const piece *q, int64_t from, uint64_t was) {
    static const char *const kind[] = {"", "first moment of ", "second moment of "};
    int64_t n = q->count - from < SUM_BLOCK ? q->count - from : SUM_BLOCK, first = q->offset + from;
    size_t bytes = (size_t)n * sizeof(real);
    const char *name = g->p->param[q->param].name;
    g->k->to_host(g->k->ctx, g->block, values_of(q, what) + from, bytes);
    int64_t bit = digest_changed_bit(g->block, bytes, was);
    if (bit < 0) {
        error_set(&g->found, EXIT_SDC, "%s%s: something in elements %lld to %lld changed after the update",
                  kind[what], name, (long long)first, (long long)(first + n - 1));
        return;
    }
    int64_t i = bit / 8 / (int64_t)sizeof(real), at = first + i;
    double now = (double)g->block[i];
    ((unsigned char *)g->block)[bit / 8] ^= (unsigned char)(1u << bit % 8);
    double then = (double)g->block[i];
    error_set(&g->found, EXIT_SDC, "%s%s [%lld] was %.9g (%a) after the update, and is %.9g (%a)", kind[what],
              name, (long long)at, then, then, now, now);
}

void guard_verify(guard *g, const piece *q) {
    int64_t blocks = (q->count + SUM_BLOCK - 1) / SUM_BLOCK;
    for (int what = 0; what < (q->m && g->moments_noted ? GUARDED : 1); what++) {
        const uint64_t *was = place_of(g, what, q);
        digest_of_blocks(g, q->count, g->now, values_of(q, what));
        for (int64_t i = 0; i < blocks && !g->found.code; i++)
            if (g->now[i] != was[i]) describe(g, what, q, i * SUM_BLOCK, was[i]);
    }
}
