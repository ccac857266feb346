#include "ckpt/layout.h"

#include <stdio.h>

#include "launch/error.h"

const char *shape_text(int rank, const int64_t *shape, char text[SHAPE_TEXT]) {
    int used = snprintf(text, SHAPE_TEXT, "[");
    for (int i = 0; i < rank; i++)
        used +=
            snprintf(text + used, SHAPE_TEXT - (size_t)used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(text + used, SHAPE_TEXT - (size_t)used, "]");
    return text;
}

int64_t shape_elements(int rank, const int64_t *shape) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= shape[i];
    return n;
}

size_t ckpt_type_size(int type) {
    return type == CKPT_F32 ? 4 : 8;
}

const char *ckpt_type_name(int type) {
    static const char *const name[] = {"float32", "float64", "int64"};
    return name[type];
}

int64_t ckpt_elements(const ckpt_tensor *t) {
    return shape_elements(t->rank, t->shape);
}

size_t ckpt_bytes(const ckpt_tensor *t) {
    return (size_t)ckpt_elements(t) * ckpt_type_size(t->type);
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

chunk_grid chunk_grid_of(const ckpt_tensor *t) {
    REQUIRE(t->rank >= 1 && t->rank <= 4);
    int64_t limit = CHUNK_BYTES / (int64_t)ckpt_type_size(t->type), inner = 1;
    /* whole trailing dimensions while they fit; the next one is cut into equal pieces */
    int cut = t->rank - 1;
    while (cut > 0 && inner * t->shape[cut] <= limit) inner *= t->shape[cut--];
    int64_t pieces = ceil_div(t->shape[cut], limit / inner);
    chunk_grid g = {.run = t->shape[cut] * inner};
    for (int i = 0; i < 4; i++) g.chunk[i] = i < cut || i >= t->rank ? 1 : t->shape[i];
    g.chunk[cut] = ceil_div(t->shape[cut], pieces);
    g.full = g.chunk[cut] * inner;
    g.run_chunks = ceil_div(g.run, g.full);
    g.chunks = ckpt_elements(t) / g.run * g.run_chunks;
    return g;
}

chunk_span chunk_at(const ckpt_tensor *t, const chunk_grid *g, int64_t index) {
    int64_t in_run = index % g->run_chunks * g->full;
    chunk_span s = {.offset = index / g->run_chunks * g->run + in_run};
    s.count = g->run - in_run < g->full ? g->run - in_run : g->full;
    int64_t rest = s.offset;
    for (int i = t->rank - 1; i >= 0; i--) {
        s.corner[i] = rest % t->shape[i];
        rest /= t->shape[i];
    }
    return s;
}

int64_t chunk_holding(const chunk_grid *g, int64_t offset) {
    return offset / g->run * g->run_chunks + offset % g->run / g->full;
}

void ckpt_assign(const ckpt_tensor *tensors, int64_t n, int64_t files, int64_t *first) {
    int64_t total = 0, before = 0, file = 0;
    for (int64_t i = 0; i < n; i++) total += (int64_t)ckpt_bytes(&tensors[i]);
    int64_t share = files ? ceil_div(total, files) : 0;
    first[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t bytes = (int64_t)ckpt_bytes(&tensors[i]);
        /* a tensor belongs where its middle falls */
        int64_t here = (before + bytes / 2) / share;
        while (file < here) first[++file] = i;
        before += bytes;
    }
    while (file < files) first[++file] = n;
}

int window_next(window_walk *w, window *out) {
    out->spans = 0;
    out->bytes = 0;
    while (w->tensor < w->end && out->spans < WINDOW_SPANS) {
        const ckpt_tensor *t = &w->tensors[w->tensor];
        chunk_grid g = chunk_grid_of(t);
        size_t full = (size_t)g.full * ckpt_type_size(t->type);
        int64_t fit = (int64_t)((WINDOW_BYTES - out->bytes) / full), left = g.chunks - w->chunk;
        if (fit == 0) break;
        window_span *s = &out->span[out->spans++];
        s->tensor = w->tensor;
        s->chunk = w->chunk;
        s->chunks = fit < left ? fit : left;
        chunk_span last = chunk_at(t, &g, s->chunk + s->chunks - 1);
        s->offset = chunk_at(t, &g, s->chunk).offset;
        s->count = last.offset + last.count - s->offset;
        s->at = out->bytes;
        out->bytes += (size_t)s->count * ckpt_type_size(t->type);
        w->chunk += s->chunks;
        if (w->chunk == g.chunks) w->tensor++, w->chunk = 0;
    }
    return out->spans > 0;
}

int window_overlap(const window *w, const ckpt_tensor *tensors, const extent *list, int64_t n,
                   int64_t *cursor, int *span, overlap *out) {
    while (*span < w->spans && *cursor < n) {
        const window_span *s = &w->span[*span];
        const extent *x = &list[*cursor];
        int64_t s_end = s->offset + s->count, x_end = x->offset + x->count;
        int64_t low = x->offset > s->offset ? x->offset : s->offset, high = x_end < s_end ? x_end : s_end;
        int meet = x->tensor == s->tensor && low < high;
        if (meet) {
            size_t element = ckpt_type_size(tensors[s->tensor].type);
            *out = (overlap){*cursor, low - x->offset, high - low, element,
                             s->at + (size_t)(low - s->offset) * element};
        }
        /* go on in whichever ends first */
        if (x->tensor < s->tensor || (x->tensor == s->tensor && x_end <= s_end)) ++*cursor;
        else ++*span;
        if (meet) return 1;
    }
    return 0;
}
