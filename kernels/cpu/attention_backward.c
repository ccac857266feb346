/* Causal attention of MLA shape, backward.  The probabilities are computed again from lse.  For each span of
 * keys, ascending, and each block of queries that sees some of them, and each block of KEYS keys of the span:
 *
 *     P = exp(scale Q K^T - lse)        dV += P^T dO        delta = rowsum(dO * O)
 *     dS = scale P * (dO V^T - delta)   dK += dS^T Q        dQ += dS K
 *
 * Each product of two blocks is summed from zero and then added, blocks ascending, so a span's length decides
 * no bits.  Threads share out heads; the heads' parts of dk_rope wait in the shared scratch until all of them
 * are there, and are added in order. */
#include "kernels/cpu/attention.h"

enum {
    KEYS = 64,       /* decides bits */
    QUERIES = KEYS,  /* likewise */
    SPAN = 4 * KEYS, /* keys for which a block of queries is loaded once */
};

/* The matrices of one head that only the backward has. */
typedef struct gradients {
    float *dq, *dk, *dv; /* with ld_q, ld_kv, ld_kv of the head */
    float *dk_rope;      /* [key of this group, rope] */
    const float *d_o, *o;
    int64_t ld_o;
    const float *lse;
    int64_t ld_lse;
} gradients;

/* A thread's scratch.  The span's keys and values as operands, both ways round, and their gradients; a block
 * of queries; the squares where it meets a block of keys.  Rows are in whole lanes. */
typedef struct blocks {
    float *keys_t, *values_t;       /* [SPAN / KEYS][along(width), KEYS], [SPAN / KEYS][along(v), KEYS] */
    float *keys, *d_keys, *d_value; /* [SPAN, width] (of pairs half of it), [SPAN, width], [SPAN, v] */
    float *q, *d_o, *d_q;           /* [QUERIES, width or v] */
    float *minus_lse, *minus_delta; /* [QUERIES] */
    float *p, *ds;                  /* [QUERIES, KEYS] */
    /* What products multiply: q, d_o and ds in a sum along their rows, and q, d_o, p and ds in one over the
     * queries.  In float32 these are the above; in bf16 pairs of them. */
    float *q_along, *d_o_along, *ds_along, *q_across, *d_o_across, *p_across, *ds_across;
    float *room; /* [2 * KEYS, width or v] */
} blocks;

static blocks cut_blocks(const kernel_context *ctx, const attention_head *a) {
    cutter c = cut_scratch(ctx);
    int64_t width = whole_lanes(a->width), v = whole_lanes(a->v);
    blocks x = {
        .keys_t = cut(&c, SPAN * a->width),
        .values_t = cut(&c, SPAN * a->v),
        .keys = cut(&c, SPAN * width),
        .d_keys = cut(&c, SPAN * width),
        .d_value = cut(&c, SPAN * v),
        .q = cut(&c, QUERIES * width),
        .d_o = cut(&c, QUERIES * v),
        .d_q = cut(&c, QUERIES * width),
        .minus_lse = cut(&c, QUERIES),
        .minus_delta = cut(&c, QUERIES),
        .p = cut(&c, QUERIES * KEYS),
        .ds = cut(&c, QUERIES * KEYS),
    };
    if (a->dtype == DTYPE_BF16) {
        x.q_along = cut(&c, QUERIES * row_along(a, a->width));
        x.d_o_along = cut(&c, QUERIES * row_along(a, a->v));
        x.ds_along = cut(&c, QUERIES * row_along(a, KEYS));
        x.q_across = cut(&c, QUERIES / 2 * width);
        x.d_o_across = cut(&c, QUERIES / 2 * v);
        x.p_across = cut(&c, QUERIES / 2 * KEYS);
        x.ds_across = cut(&c, QUERIES / 2 * KEYS);
        x.room = cut(&c, 2 * KEYS * (width > v ? width : v));
    } else {
        x.q_along = x.q_across = x.q;
        x.d_o_along = x.d_o_across = x.d_o;
        x.ds_along = x.ds_across = x.ds;
        x.p_across = x.p;
    }
    return x;
}

/* Block `block` of a span. */
static blocks block_of(const blocks *x, const attention_head *a, int64_t block) {
    int64_t width = whole_lanes(a->width), v = whole_lanes(a->v);
    blocks y = *x;
    y.keys_t += block * KEYS * a->width;
    y.values_t += block * KEYS * a->v;
    y.keys += block * KEYS * width;
    y.d_keys += block * KEYS * width;
    y.d_value += block * KEYS * v;
    return y;
}

/* The block of n keys from `key`. */
static void load_keys(const attention_head *a, int64_t key, int64_t n, blocks x) {
    int64_t width = whole_lanes(a->width);
    pack_keys(a, key, n, x.keys_t, x.room);
    transpose_operand(a, x.values_t, x.room, n, a->v, a->value + key * a->ld_kv, a->ld_kv);
    if (a->dtype == DTYPE_BF16) {
        copy_keys(a, key, n, x.room);
        rows_operand(a, x.keys, n, a->width, x.room, width);
    } else {
        copy_keys(a, key, n, x.keys);
    }
}

/* `fresh`: no span before had these queries, so that dq holds nothing yet. */
static void load_queries(const attention_head *a, const gradients *g, int64_t row, int64_t n, int fresh,
                         blocks *x) {
    pack_rows(x->q, n, a->width, a->q + row * a->ld_q, a->ld_q);
    if (fresh) memset(x->d_q, 0, (size_t)(n * whole_lanes(a->width)) * sizeof *x->d_q);
    else pack_rows(x->d_q, n, a->width, g->dq + row * a->ld_q, a->ld_q);
    pack_rows(x->d_o, n, a->v, g->d_o + row * g->ld_o, g->ld_o);
    for (int64_t i = 0; i < n; i++) {
        const float *d_o = x->d_o + i * whole_lanes(a->v), *o = g->o + (row + i) * g->ld_o;
        vf sum = vf_zero();
        for (int64_t c = 0; c < a->v; c += LANES)
            sum = vf_fma(vf_load(d_o + c), vf_load_n(o + c, a->v - c), sum);
        x->minus_delta[i] = -a->scale * vf_sum(sum);
        x->minus_lse[i] = -(float)LOG2_E * g->lse[(row + i) * g->ld_lse];
    }
    if (a->dtype != DTYPE_BF16) return;
    int64_t width = whole_lanes(a->width), v = whole_lanes(a->v);
    CPU_(bf16_rows)(x->q_along, row_along(a, a->width), x->q, width, n, a->width);
    CPU_(bf16_rows)(x->d_o_along, row_along(a, a->v), x->d_o, v, n, a->v);
    rows_operand(a, x->q_across, n, a->width, x->q, width);
    rows_operand(a, x->d_o_across, n, a->v, x->d_o, v);
}

static soon queries_soon(const attention_head *a, const gradients *g, int64_t row, int64_t n) {
    return (soon){{{a->q + row * a->ld_q, n, a->width, a->ld_q},
                   {g->dq + row * a->ld_q, n, a->width, a->ld_q},
                   {g->d_o + row * g->ld_o, n, a->v, g->ld_o},
                   {g->o + row * g->ld_o, n, a->v, g->ld_o}}};
}

/* One row: p holds scores and ds holds dO V^T; they become P and dS.  The keys [from, to) are seen, of which
 * [0, computed) have been computed; P and dS are zero elsewhere. */
static void gradient_row(const attention_head *a, float *p, float *ds, int64_t from, int64_t to,
                         int64_t computed, float minus_lse, float minus_delta) {
    vf zero = vf_zero(), s = vf_set1(a->scale), s_2 = vf_set1(a->scale_2);
    vf l = vf_set1(minus_lse), d = vf_set1(minus_delta);
    int masked = from > 0 || to < KEYS;
    for (int64_t c = 0; c < computed; c += LANES) {
        vf p_c = vf_exp2(vf_fma(vf_load(p + c), s_2, l));
        vf ds_c = vf_mul(p_c, vf_fma(vf_load(ds + c), s, d));
        if (masked) {
            p_c = vf_select(vm_first(from - c), zero, vf_select(vm_first(to - c), p_c, zero));
            ds_c = vf_select(vm_first(from - c), zero, vf_select(vm_first(to - c), ds_c, zero));
        }
        vf_store(p + c, p_c);
        vf_store(ds + c, ds_c);
    }
    for (int64_t c = computed; c < KEYS; c += LANES) {
        vf_store(p + c, zero);
        vf_store(ds + c, zero);
    }
}

/* P and dS of the loaded blocks, and what the queries' gradient gets of them. */
static void query_side(const attention_head *a, int64_t row, int64_t n, int64_t key, const blocks *x,
                       soon coming) {
    int64_t width = whole_lanes(a->width), tiles = tiles_in(n, row == key);
    int64_t q_step = row_along(a, a->width), d_o_step = row_along(a, a->v), ds_step = row_along(a, KEYS);
    for (int64_t t = 0; t < tiles; t++) {
        fetch_soon(share_of(coming, t, tiles));
        row_range at = tile_of(t, n, row == key);
        int64_t m = at.end - at.begin, seen = min64(KEYS, row + at.end - key);
        int64_t computed = seen > 0 ? whole_lanes(seen) : 0;
        float *p = x->p + at.begin * KEYS, *ds = x->ds + at.begin * KEYS;
        float *ds_along = x->ds_along + at.begin * ds_step;
        tile_product(a, GEMM_NN, m, computed, a->width, p, KEYS, 0, x->q_along + at.begin * q_step, q_step,
                     packed_panels(a, x->keys_t, a->width));
        tile_product(a, GEMM_NN, m, computed, a->v, ds, KEYS, 0, x->d_o_along + at.begin * d_o_step, d_o_step,
                     packed_panels(a, x->values_t, a->v));
        for (int64_t i = 0; i < m; i++) {
            int64_t r = row + at.begin + i;
            gradient_row(a, p + i * KEYS, ds + i * KEYS, first_key_of(a, r) - key, min64(KEYS, r + 1 - key),
                         computed, x->minus_lse[at.begin + i], x->minus_delta[at.begin + i]);
        }
        if (seen <= 0) continue;
        if (a->dtype == DTYPE_BF16) CPU_(bf16_rows)(ds_along, ds_step, ds, KEYS, m, seen);
        tile_product(a, GEMM_NN, m, width, seen, x->d_q + at.begin * width, width, 1, ds_along, ds_step,
                     whole_rows(x->keys, width));
    }
    if (a->dtype == DTYPE_BF16) {
        rows_operand(a, x->p_across, n, KEYS, x->p, KEYS);
        rows_operand(a, x->ds_across, n, KEYS, x->ds, KEYS);
    }
}

/* What these queries add to the gradients of the block's n keys and values, of which those from the same rows
 * are the first. */
static void key_side(const attention_head *a, int64_t row, int64_t rows, int64_t key, int64_t n,
                     const blocks *x) {
    int64_t width = whole_lanes(a->width), v = whole_lanes(a->v);
    for (int64_t t = 0; t < tiles_in(n, row == key); t++) {
        row_range at = tile_of(t, n, row == key);
        int64_t m = at.end - at.begin,
                from = key + at.begin - row; /* no query before sees any of these keys */
        if (from < 0) from = 0;
        if (from >= rows) break;
        if (a->dtype == DTYPE_BF16) from -= from % 2; /* whole pairs */
        int64_t skipped = along(a, from);
        tile_product(a, GEMM_TN, m, v, rows - from, x->d_value + at.begin * v, v, row != key,
                     x->p_across + skipped * KEYS + at.begin, KEYS,
                     whole_rows(x->d_o_across + skipped * v, v));
        tile_product(a, GEMM_TN, m, width, rows - from, x->d_keys + at.begin * width, width, row != key,
                     x->ds_across + skipped * KEYS + at.begin, KEYS,
                     whole_rows(x->q_across + skipped * width, width));
    }
}

static void store_queries(const attention_head *a, int64_t row, int64_t n, const blocks *x, float *dq) {
    for (int64_t i = 0; i < n; i++)
        copy_row(dq + (row + i) * a->ld_q, x->d_q + i * whole_lanes(a->width), a->width);
}

static void store_keys(const attention_head *a, int64_t key, int64_t n, const blocks *x, const gradients *g,
                       float *dk_rope) {
    for (int64_t j = 0; j < n; j++) {
        const float *d_key = x->d_keys + j * whole_lanes(a->width);
        copy_row(g->dk + (key + j) * a->ld_kv, d_key, a->nope);
        copy_row(dk_rope + j * a->rope, d_key + a->nope, a->rope);
        copy_row(g->dv + (key + j) * a->ld_kv, x->d_value + j * whole_lanes(a->v), a->v);
    }
}

/* A block of queries with each block of the span [begin, end) that it sees. */
static void meet_span(const attention_head *a, const blocks *x, int64_t row, int64_t rows, int64_t begin,
                      int64_t end, soon coming) {
    int64_t seen = min64(end, row + rows), met = (seen - begin + KEYS - 1) / KEYS;
    for (int64_t i = 0; i < met; i++) {
        int64_t key = begin + i * KEYS, n = min64(KEYS, end - key);
        if (first_key_of(a, row) >= key + n) continue;
        blocks y = block_of(x, a, i);
        query_side(a, row, rows, key, &y, share_of(coming, i, met));
        key_side(a, row, rows, key, n, &y);
    }
}

/* The keys [begin, end) of one head with all the queries that see them; `next` is what the thread will read
 * afterwards. */
static void backward_span(const attention_head *a, const gradients *g, blocks *x, int64_t begin, int64_t end,
                          float *dk_rope, soon next) {
    for (int64_t key = begin; key < end; key += KEYS)
        load_keys(a, key, min64(KEYS, end - key), block_of(x, a, (key - begin) / KEYS));
    for (int64_t row = begin; row < a->keys; row += QUERIES) {
        int64_t rows = min64(QUERIES, a->keys - row), left = a->keys - row - rows;
        if (first_key_of(a, row) >= end) break; /* later documents */
        load_queries(a, g, row, rows, first_key_of(a, row) >= begin, x);
        meet_span(a, x, row, rows, begin, end,
                  left > 0 ? queries_soon(a, g, row + rows, min64(QUERIES, left)) : next);
        store_queries(a, row, rows, x, g->dq);
    }
    store_keys(a, begin, end - begin, x, g, dk_rope);
}

/* dk_rope [rows, rope] (ld) = sum over heads, ascending, of part [head, rows, rope] */
static void sum_heads(int64_t heads, int64_t rows, int64_t rope, float *dk_rope, int64_t ld,
                      const float *part) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < rope; c += LANES) {
            vf sum = vf_load_n(part + r * rope + c, rope - c);
            for (int64_t h = 1; h < heads; h++)
                sum = vf_add(sum, vf_load_n(part + (h * rows + r) * rope + c, rope - c));
            vf_store_n(dk_rope + r * ld + c, sum, rope - c);
        }
}

void CPU_(attention_backward)(kernel_context *ctx, attention_shape s, float *dq, float *dkv, float *dk_rope,
                              int64_t ld_dk_rope, const float *d_o, const float *o, const float *lse,
                              const float *q, const float *kv, const float *k_rope, int64_t ld_k_rope,
                              const int32_t *first_key) {
    /* A group of blocks of keys, or of whole sequences, whose heads' parts of dk_rope fit into the scratch.
     */
    float *parts = (float *)ctx->shared;
    int64_t room = SHARED_SCRATCH / (int64_t)sizeof(float) / (s.heads * (s.rope > 0 ? s.rope : 1)); /* keys */
    REQUIRE(room >= KEYS);
    int64_t keys = min64(s.seq, room / KEYS * KEYS), sequences = keys == s.seq && s.seq ? room / s.seq : 1;
    int threads = threads_for(ctx, s.batch * s.heads * s.seq * (s.nope + s.rope));

    for (int64_t b0 = 0; b0 < s.batch; b0 += sequences)
        for (int64_t key = 0; key < s.seq; key += keys) {
            int64_t n = min64(keys, s.seq - key), batch = min64(sequences, s.batch - b0);
            heads_open(ctx, threads, batch * s.heads, 1);
#pragma omp parallel num_threads(threads)
            {
                for (head_piece p; heads_next(ctx, threads, batch * s.heads, &p);) {
                    int64_t b = b0 + p.head / s.heads, h = p.head % s.heads, row = b * s.seq;
                    attention_head a =
                        CPU_(attention_head_of)(ctx, s, b, h, q, kv, k_rope, ld_k_rope, first_key);
                    gradients g = {.ld_o = s.heads * s.v, .ld_lse = s.heads};
                    g.dq = dq + (a.q - q);
                    g.dk = dkv + (a.k - kv);
                    g.dv = g.dk + s.nope;
                    g.dk_rope = parts + p.head * n * s.rope;
                    g.d_o = d_o + (row * s.heads + h) * s.v;
                    g.o = o + (row * s.heads + h) * s.v;
                    g.lse = lse + row * s.heads + h;
                    blocks x = cut_blocks(ctx, &a);
                    for (int64_t begin = key; begin < key + n; begin += SPAN) {
                        int64_t end = min64(begin + SPAN, key + n);
                        soon next = {0};
                        if (end < key + n) {
                            next = keys_soon(&a, end, min64(SPAN, key + n - end));
                        } else if (p.next >= 0) {
                            attention_head l =
                                CPU_(attention_head_of)(ctx, s, b0 + p.next / s.heads, p.next % s.heads, q,
                                                        kv, k_rope, ld_k_rope, first_key);
                            next = keys_soon(&l, key, min64(SPAN, n));
                        }
                        backward_span(&a, &g, &x, begin, end, g.dk_rope + (begin - key) * s.rope, next);
                    }
                }
#pragma omp barrier
#pragma omp for schedule(static) nowait
                for (int64_t b = 0; b < batch; b++)
                    sum_heads(s.heads, n, s.rope, dk_rope + ((b0 + b) * s.seq + key) * ld_dk_rope, ld_dk_rope,
                              parts + b * s.heads * n * s.rope);
            }
        }
}
