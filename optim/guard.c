#include "optim/guard.h"

#include <string.h>

#include "kernels/twin.h"
#include "launch/digest.h"

_Static_assert(SUM_BLOCK * sizeof(float) == DIGEST_BLOCK, "the same blocks in memory and in messages");

int64_t piece_block(const params *p, const piece *q) {
    return p->param[q->param].first_block + q->offset / SUM_BLOCK;
}

static int is_behind(const real *x, const real *before, int64_t count) {
    return before ? x == before + count : !x;
}

int64_t pieces_in_a_row(const params *p, const piece *q, int64_t n, int64_t *count) {
    int64_t i = 1;
    *count = q->count;
    for (; i < n && *count % SUM_BLOCK == 0; *count += q[i++].count) {
        const param *first = &p->param[q->param], *next = &p->param[q[i].param];
        if (next->bucket != first->bucket || next->group != first->group ||
            piece_block(p, &q[i]) != piece_block(p, q) + *count / SUM_BLOCK ||
            !is_behind(q[i].weight, q->weight, *count) || !is_behind(q[i].gradient, q->gradient, *count) ||
            !is_behind(q[i].m, q->m, *count) || !is_behind(q[i].v, q->v, *count))
            break;
    }
    return i;
}

void guard_create(guard *g, const params *p, const kernels *k) {
    size_t all = (size_t)p->blocks * sizeof *g->now;
    *g = (guard){.p = p, .k = k};
    for (int i = 0; i < GUARDED; i++) g->digest[i] = mem_alloc(all, "digests of the state");
    g->table = k->alloc(k->ctx, all, "digests of the state");
    g->now = twin_alloc(k, g->table, all, "digests of the state");
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

static int64_t blocks_of(const piece *q) {
    return (q->count + SUM_BLOCK - 1) / SUM_BLOCK;
}

static const real *values_of(const piece *q, int what) {
    return what == GUARD_WEIGHT ? q->weight : what == GUARD_MOMENT_1 ? q->m : q->v;
}

/* g->now = digests of the pieces' blocks: a device is given them all before the host waits. */
static void digest_now(const guard *g, int what, const piece *q, int64_t n) {
    int64_t begin = g->p->blocks, end = 0;
    for (int64_t i = 0, row, count; i < n; i += row) {
        int64_t first = piece_block(g->p, &q[i]);
        row = pieces_in_a_row(g->p, &q[i], n - i, &count);
        g->k->digest(g->k->ctx, count, g->table + first, values_of(&q[i], what));
        int64_t behind = piece_block(g->p, &q[i + row - 1]) + blocks_of(&q[i + row - 1]);
        begin = first < begin ? first : begin;
        end = behind > end ? behind : end;
    }
    if (begin < end)
        twin_read(g->k, g->now + begin, g->table + begin, (size_t)(end - begin) * sizeof *g->now);
}

void guard_note(guard *g, const piece *q, int64_t n) {
    for (int what = 0; what < (n && q->m && g->note_moments ? GUARDED : 1); what++) {
        digest_now(g, what, q, n);
        for (int64_t i = 0; i < n; i++) {
            int64_t first = piece_block(g->p, &q[i]);
            memcpy(g->digest[what] + first, g->now + first, (size_t)blocks_of(&q[i]) * sizeof *g->now);
        }
    }
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

void guard_verify(guard *g, const piece *q, int64_t n) {
    for (int what = 0; what < (n && q->m && g->moments_noted ? GUARDED : 1); what++) {
        digest_now(g, what, q, n);
        for (int64_t i = 0; i < n; i++) {
            int64_t first = piece_block(g->p, &q[i]);
            const uint64_t *was = g->digest[what] + first, *now = g->now + first;
            for (int64_t b = 0; b < blocks_of(&q[i]) && !g->found.code; b++)
                if (now[b] != was[b]) describe(g, what, &q[i], b * SUM_BLOCK, was[b]);
        }
    }
}
