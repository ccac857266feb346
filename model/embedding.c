#include "model/embedding.h"

void embedding_gradient_create(embedding_gradient *e, const places *a, const context *x) {
    const size_t lists = x->loss.mtp_coef > 0 ? EMBED_LISTS : 1;
    const size_t t = (size_t)(x->max_batch * x->max_seq);
    /* The lists of ids differ by one for each sequence, but a stage may have as many sequences as tokens. */
    const size_t v = (size_t)x->c.vocab_size, most = lists * t < v ? lists * t : v;
    e->sum_UH = arena_alloc(a->shared, most * (size_t)x->c.hidden_size * sizeof(real));
    e->id_U = arena_alloc(a->shared, most * sizeof *e->id_U);
    e->id_host = twin_place(x->k, a->host, e->id_U, most * sizeof *e->id_U);
    e->row = arena_alloc(a->shared, lists * t * sizeof *e->row);
    e->row_host = twin_place(x->k, a->host, e->row, lists * t * sizeof *e->row);
    e->row_of_V = arena_alloc(a->host, v * sizeof *e->row_of_V);
}

/* row [n] = of each id, a new one for an id that has none. */
static void number_rows(embedding_gradient *e, int64_t n, int32_t *row, const int32_t *ids) {
    for (int64_t i = 0; i < n; i++) {
        int32_t *known = &e->row_of_V[ids[i]];
        if (!*known) {
            e->id_host[e->rows] = ids[i];
            *known = (int32_t)++e->rows;
        }
        row[i] = *known - 1;
    }
}

void embedding_gradient_begin(const context *x, embedding_gradient *e, real *dembedding,
                              const int32_t *const ids[EMBED_LISTS], const int32_t *const host[EMBED_LISTS]) {
    const kernels *k = x->k;
    const int64_t t = x->tokens;
    if (x->accumulate) { /* every id has a row of the table */
        e->sum = dembedding;
        for (int64_t i = 0; i < EMBED_LISTS; i++) e->row_T[i] = ids[i];
        return;
    }
    e->sum = e->sum_UH;
    e->rows = 0;
    for (int64_t i = 0; i < EMBED_LISTS && host[i]; i++) {
        e->row_T[i] = e->row + i * t;
        number_rows(e, t, e->row_host + i * t, host[i]);
        twin_write(k, e->row + i * t, e->row_host + i * t, (size_t)t * sizeof *e->row);
    }
    for (int64_t u = 0; u < e->rows; u++) e->row_of_V[e->id_host[u]] = 0;
    twin_write(k, e->id_U, e->id_host, (size_t)e->rows * sizeof *e->id_U);
    k->zero(k->ctx, e->rows * x->c.hidden_size, e->sum_UH);
}

void embedding_gradient_end(const context *x, const embedding_gradient *e, real *dembedding) {
    const kernels *k = x->k;
    if (!x->accumulate)
        k->embedding_backward(k->ctx, e->rows, x->c.hidden_size, dembedding, e->sum_UH, e->id_U);
}
