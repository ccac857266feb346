#include "ckpt/route.h"

#include <stdlib.h>
#include <string.h>

#include "launch/memory.h"

static int by_place(const void *a, const void *b) {
    const extent *x = a, *y = b;
    if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Every element of every tensor exactly once? */
static void check_cover(const route *r, int64_t n_tensors, int64_t n) {
    extent *all = mem_alloc((size_t)n * sizeof *all, "a checkpoint's slices");
    int64_t tensor = 0, at = 0;
    memcpy(all, r->extents, (size_t)n * sizeof *all);
    qsort(all, (size_t)n, sizeof *all, by_place);
    for (int64_t i = 0; i <= n; i++) {
        while (tensor < n_tensors && at == ckpt_elements(&r->tensors[tensor])) tensor++, at = 0;
        if (i == n) break;
        if (all[i].count == 0) continue;
        if (tensor == n_tensors || all[i].tensor != tensor || all[i].offset != at)
            FAULT(EXIT_BUG,
                  "checkpoint: slice %lld+%lld of tensor %lld where element %lld of tensor %lld was to come",
                  (long long)all[i].offset, (long long)all[i].count, (long long)all[i].tensor, (long long)at,
                  (long long)tensor);
        at += all[i].count;
    }
    if (tensor < n_tensors)
        FAULT(EXIT_BUG, "checkpoint: nobody gives element %lld of %s", (long long)at,
              r->tensors[tensor].name);
    mem_free(all);
}

void route_open(route *r, comm *c, const ckpt_tensor *tensors, int64_t n_tensors, const ckpt_slice *mine,
                int64_t n_mine) {
    int ranks = comm_size(c), me = comm_rank(c);
    *r = (route){.c = c, .tensors = tensors, .mine = mine};
    r->first = mem_alloc((size_t)(ranks + 1) * sizeof *r->first, "slice counts");
    r->walk = mem_alloc((size_t)ranks * sizeof *r->walk, "window walks");
    r->sent = mem_alloc((size_t)ranks * sizeof *r->sent, "slice cursors");
    r->received = mem_alloc((size_t)ranks * sizeof *r->received, "slice cursors");
    r->scratch = mem_alloc(sizeof *r->scratch, "a window");

    comm_all_gather(c, "checkpoint slice counts", r->first + 1, &n_mine, sizeof n_mine);
    for (int q = 0; q < ranks; q++) r->first[q + 1] += r->first[q];
    r->extents = mem_alloc((size_t)r->first[ranks] * sizeof *r->extents, "a checkpoint's slices");
    for (int64_t i = 0; i < n_mine; i++) {
        r->extents[r->first[me] + i] = (extent){mine[i].tensor, mine[i].offset, mine[i].count};
        REQUIRE(i == 0 || by_place(&r->extents[r->first[me] + i - 1], &r->extents[r->first[me] + i]) <= 0);
    }
    size_t *offset = mem_alloc((size_t)(ranks + 1) * sizeof *offset, "slice offsets");
    for (int q = 0; q <= ranks; q++) offset[q] = (size_t)r->first[q] * sizeof *r->extents;
    comm_all_gather_ranges(c, "checkpoint slices", r->extents, offset);
    mem_free(offset);
    check_cover(r, n_tensors, r->first[ranks]);
}

void route_close(route *r) {
    mem_free(r->extents);
    mem_free(r->first);
    mem_free(r->walk);
    mem_free(r->sent);
    mem_free(r->received);
    mem_free(r->scratch);
    mem_free(r->part);
    *r = (route){0};
}

void route_begin(route *r, int files, const int64_t *first) {
    int ranks = comm_size(r->c);
    REQUIRE(files <= ranks);
    r->files = files;
    for (int q = 0; q < files; q++) r->walk[q] = (window_walk){r->tensors, first[q], first[q + 1], 0};
    memset(r->sent, 0, (size_t)ranks * sizeof *r->sent);
    memset(r->received, 0, (size_t)ranks * sizeof *r->received);
}

static void add_part(route *r, int peer, void *data, const overlap *o) {
    if (r->parts == r->capacity) {
        r->capacity = 2 * r->capacity + 64;
        r->part = mem_grow(r->part, (size_t)r->capacity * sizeof *r->part, "message parts");
    }
    r->part[r->parts++] = (comm_part){peer, data, (size_t)o->count * o->element};
}

static char *in_slice(const route *r, const overlap *o) {
    return (char *)r->mine[o->extent].data + (size_t)o->skip * o->element;
}

/* What I hold of a window of rank q's file. */
static void add_sends(route *r, int q, const window *w) {
    int me = comm_rank(r->c), span = 0;
    const extent *list = r->extents + r->first[me];
    int64_t n = r->first[me + 1] - r->first[me];
    overlap o;
    while (window_overlap(w, r->tensors, list, n, &r->sent[q], &span, &o))
        add_part(r, q, in_slice(r, &o), &o);
}

/* What others hold of a window of mine; what I hold myself is copied. */
static void add_receives(route *r, const window *w, char *staging) {
    int me = comm_rank(r->c), ranks = comm_size(r->c);
    for (int q = 0; q < ranks; q++) {
        const extent *list = r->extents + r->first[q];
        int64_t n = r->first[q + 1] - r->first[q];
        int span = 0;
        overlap o;
        while (window_overlap(w, r->tensors, list, n, &r->received[q], &span, &o)) {
            if (q != me) add_part(r, q, staging + o.at, &o);
            else memcpy(staging + o.at, in_slice(r, &o), (size_t)o.count * o.element);
        }
    }
}

int route_next(route *r, window *out, void *staging, comm_request **request) {
    int me = comm_rank(r->c), any = 0;
    out->spans = 0;
    out->bytes = 0;
    *request = NULL;
    r->parts = 0;
    for (int q = 0; q < r->files; q++) {
        window *w = q == me ? out : r->scratch;
        if (!window_next(&r->walk[q], w)) continue;
        any = 1;
        if (q != me) add_sends(r, q, w);
    }
    if (!any) return 0;
    int sends = r->parts;
    if (out->spans) add_receives(r, out, staging);
    *request = comm_exchange(r->c, "checkpoint window", sends, r->part, r->parts - sends, r->part + sends);
    return 1;
}
