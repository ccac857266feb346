/* Causal attention of MLA shape, forward: a running softmax over blocks of KEYS keys (Dao et al., "Flash-
 * Attention").  A block of queries meets each block of keys once; a tile of its rows computes its scores,
 * takes them through the softmax and multiplies them with the values while they lie in L1.  Scores are powers
 * of two from there on: 2^(score scale log2(e)). */
#include "kernels/cpu/attention.h"

#include <float.h>
#include <math.h>

enum {
    KEYS = 256,    /* a step of the running softmax: decides bits */
    QUERIES = 256, /* at most so many rows share a packed block of keys; decides no bits */
};

attention_head CPU_(attention_head_of)(const kernel_context *ctx, attention_shape s, int64_t b, int64_t h,
                                       const float *q, const float *kv, const float *k_rope,
                                       int64_t ld_k_rope, const int32_t *first_key) {
    int64_t width = s.nope + s.rope, keys = s.past + s.seq;
    attention_head a = {
        .keys = keys, .past = s.past, .nope = s.nope, .rope = s.rope, .v = s.v, .width = width};
    a.ld_q = s.heads * width;
    a.ld_kv = s.heads * (s.nope + s.v);
    a.ld_k_rope = ld_k_rope;
    a.q = q + b * s.seq * a.ld_q + h * width;
    a.k = kv + b * keys * a.ld_kv + h * (s.nope + s.v);
    a.value = a.k + s.nope;
    a.k_rope = k_rope + b * keys * ld_k_rope;
    a.first_key = first_key ? first_key + b * s.seq : NULL;
    a.dtype = ctx->dtype;
    a.scale = (float)(1 / sqrt((double)width));
    a.scale_2 = (float)(LOG2_E / sqrt((double)width));
    return a;
}

/* What a block of queries carries from one block of keys to the next. */
typedef struct running {
    float *out;  /* [QUERIES, whole_lanes(v)]: sum of 2^(score - top) * value */
    float *top;  /* [QUERIES]: largest score so far */
    float *sums; /* [QUERIES, LANES]: sum of 2^(score - top), lane by lane */
    int began;   /* otherwise out and sums are still to be written */
} running;

/* A block of keys as operands, and where a tile of queries meets it. */
typedef struct packed_keys {
    float *keys;   /* panels of [along(width), PANEL] */
    float *values; /* [along(KEYS), whole_lanes(v)] */
    float *scores; /* [TILE_ROWS, KEYS] */
    float *p;      /* what becomes of them, in pairs */
} packed_keys;

/* Of the scores [begin, end), whole lanes of keys, those outside of [from, to) become minus infinity; returns
 * the largest. */
static float mask_row(float *scores, int64_t begin, int64_t end, int64_t from, int64_t to) {
    vf unseen = vf_set1(-INFINITY), most = unseen;
    for (int64_t c = begin; c < from && c < end; c += LANES)
        vf_store(scores + c, vf_select(vm_first(from - c), unseen, vf_load(scores + c)));
    for (int64_t c = to > 0 ? to / LANES * LANES : 0; c < end; c += LANES)
        vf_store(scores + c, vf_select(vm_first(to - c), vf_load(scores + c), unseen));
    for (int64_t c = begin; c < end; c += LANES) most = vf_max(most, vf_load(scores + c));
    return vf_max_lane(most);
}

/* The m rows of scores [m, KEYS] of a tile, of which the keys [begin, end) are there, masked, become
 * 2^(score - top), where top covers this block's largest score of each row, most [LANES], too.  What was
 * summed before under another top is scaled to the new one. */
static void softmax_tile(int64_t m, float *scores, int64_t begin, int64_t end, const float *most,
                         float scale_2, int64_t v, running r) {
    float factor[LANES];
    vf before = vf_load_n(r.top, m), top = vf_max(before, vf_mul(vf_load(most), vf_set1(scale_2)));
    vf_store_n(r.top, top, m);
    vf_store(factor, vf_exp2(vf_sub(before, top)));
    for (int64_t i = 0; i < m; i++) {
        float *row = scores + i * KEYS, *sums = r.sums + i * LANES;
        vf minus_top = vf_set1(-r.top[i]), sum = vf_zero();
        for (int64_t c = begin; c < end; c += LANES) {
            vf p = vf_exp2(vf_fma(vf_load(row + c), vf_set1(scale_2), minus_top));
            vf_store(row + c, p);
            sum = vf_add(sum, p);
        }
        vf_store(sums, r.began ? vf_fma(vf_load(sums), vf_set1(factor[i]), sum) : sum);
    }
    if (!r.began || !vm_bits(vm_and(vf_less(before, top), vm_first(m)))) return; /* every factor is 1 */
    for (int64_t i = 0; i < m; i++)
        for (int64_t c = i * v; c < (i + 1) * v; c += LANES)
            vf_store(r.out + c, vf_mul(vf_load(r.out + c), vf_set1(factor[i])));
}

/* Rows [row, row + m) of the sequence, a tile, whose queries are q, meet the packed block of keys that starts
 * at `key`. */
static void meet_keys(const attention_head *a, int64_t row, int64_t m, const float *q, int64_t ld_q,
                      int64_t key, const packed_keys *packed, running r) {
    const int64_t padded = whole_lanes(a->v);
    const int64_t seen = min64(KEYS, row + m - key), end = whole_lanes(seen); /* by the tile's last row */
    int64_t begin = first_key_of(a, row) - key;                               /* by its first */
    begin = begin > 0 ? min64(begin, KEYS) / PANEL * PANEL : 0;
    const int64_t panels = begin / PANEL, from = along(a, begin);
    float most[LANES] = {0};
    float *scores = packed->scores;
    const float *p = scores;
    columns keys = packed_panels(a, packed->keys, a->width), values = whole_rows(packed->values, padded);
    keys.at += panels * keys.panel;
    values.at += from * values.ld;
    tile_product(a, GEMM_NN, m, end - begin, a->width, scores + begin, KEYS, 0, q, ld_q, keys);
    for (int64_t i = 0; i < m; i++)
        most[i] = mask_row(scores + i * KEYS, begin, end, first_key_of(a, row + i) - key, row + i + 1 - key);
    softmax_tile(m, scores, begin, end, most, a->scale_2, padded, r);
    if (a->dtype == DTYPE_BF16) {
        CPU_(bf16_rows)(packed->p, KEYS, scores, KEYS, m, seen);
        p = packed->p;
    }
    tile_product(a, GEMM_NN, m, padded, seen - begin, r.out, padded, r.began, p + from, KEYS, values);
}

/* o and lse of the queries whose keys are all met. */
static void finish(const attention_head *a, int64_t rows, running r, float *o, int64_t ld_o, float *lse,
                   int64_t ld_lse) {
    int64_t padded = whole_lanes(a->v);
    for (int64_t i = 0; i < rows; i += LANES) {
        float sum[LANES], log_sum[LANES];
        int64_t n = min64(LANES, rows - i);
        for (int64_t j = 0; j < LANES; j++) sum[j] = j < n ? vf_sum(vf_load(r.sums + (i + j) * LANES)) : 1;
        vf top = vf_load_n(r.top + i, n), rest = vf_fma(top, vf_set1(LN_2_LOW), vf_log(vf_load(sum)));
        vf_store(log_sum, vf_fma(top, vf_set1(LN_2), rest));
        for (int64_t j = 0; j < n; j++) {
            lse[(i + j) * ld_lse] = log_sum[j];
            vf inverse = vf_set1(1 / sum[j]);
            for (int64_t c = 0; c < a->v; c += LANES)
                vf_store_n(o + (i + j) * ld_o + c, vf_mul(vf_load(r.out + (i + j) * padded + c), inverse),
                           a->v - c);
        }
    }
}

/* `after` is what the thread will read then. */
static void forward_queries(const kernel_context *ctx, const attention_head *a, int64_t row, int64_t rows,
                            float *o, int64_t ld_o, float *lse, int64_t ld_lse, soon after) {
    int64_t padded = whole_lanes(a->v), width = whole_lanes(a->width), ld_q = a->ld_q;
    cutter scratch = cut_scratch(ctx);
    packed_keys packed = {cut(&scratch, a->width * KEYS), cut(&scratch, KEYS * padded),
                          cut(&scratch, TILE_ROWS * KEYS), cut(&scratch, TILE_ROWS * KEYS)};
    running r = {cut(&scratch, QUERIES * padded), cut(&scratch, QUERIES), cut(&scratch, QUERIES * LANES), 0};
    float *room = NULL;
    const float *q = a->q + (row - a->past) * a->ld_q;
    if (a->dtype == DTYPE_BF16) {
        float *pairs = cut(&scratch, QUERIES * width);
        CPU_(bf16_rows)(pairs, width, q, a->ld_q, rows, a->width);
        q = pairs;
        ld_q = width;
        room = cut(&scratch, 2 * KEYS * width);
    }
    for (int64_t i = 0; i < rows; i++) r.top[i] = -FLT_MAX;

    for (int64_t key = first_key_of(a, row) / KEYS * KEYS; key < row + rows; key += KEYS) {
        int64_t n = min64(KEYS, row + rows - key);
        pack_keys(a, key, n, packed.keys, room);
        rows_operand(a, packed.values, n, a->v, a->value + key * a->ld_kv, a->ld_kv);
        int64_t next = key + KEYS, left = row + rows - next;
        soon coming = left > 0 ? keys_soon(a, next, min64(KEYS, left)) : after;
        int diagonal = next > row;
        for (int64_t t = 0, tiles = tiles_in(rows, diagonal); t < tiles; t++) {
            fetch_soon(share_of(coming, t, tiles));
            row_range at = tile_of(t, rows, diagonal);
            if (row + at.end <= key) continue;
            running part = {r.out + at.begin * padded, r.top + at.begin, r.sums + at.begin * LANES, r.began};
            meet_keys(a, row + at.begin, at.end - at.begin, q + at.begin * ld_q, ld_q, key, &packed, part);
        }
        r.began = 1;
    }
    finish(a, rows, r, o, ld_o, lse, ld_lse);
}

/* Rows of one piece of work: half of QUERIES where threads could not share the work evenly otherwise. */
static int64_t rows_together(attention_shape s, int threads) {
    int64_t pieces = s.batch * s.heads * ((s.seq + QUERIES - 1) / QUERIES);
    return threads > 1 && pieces < 4 * threads ? QUERIES / 2 : QUERIES;
}

void CPU_(attention_forward)(kernel_context *ctx, attention_shape s, float *o, float *lse, const float *q,
                             const float *kv, const float *k_rope, int64_t ld_k_rope,
                             const int32_t *first_key) {
    int threads = threads_for(ctx, s.batch * s.heads * s.seq * (s.nope + s.rope));
    int64_t together = rows_together(s, threads), blocks = (s.seq + together - 1) / together;
    int64_t heads = s.batch * s.heads;
    heads_open(ctx, threads, heads, blocks);
#pragma omp parallel num_threads(threads)
    for (head_piece x; heads_next(ctx, threads, heads, &x);) {
        /* the last queries have most keys to see: they go first, and what is left evens out */
        int64_t b = x.head / s.heads, h = x.head % s.heads, row = (blocks - 1 - x.piece) * together;
        attention_head a = CPU_(attention_head_of)(ctx, s, b, h, q, kv, k_rope, ld_k_rope, first_key);
        int64_t at = (b * s.seq + row) * s.heads + h;
        soon after = {0};
        if (x.next >= 0) {
            attention_head later = CPU_(attention_head_of)(ctx, s, x.next / s.heads, x.next % s.heads, q, kv,
                                                           k_rope, ld_k_rope, first_key);
            after = keys_soon(&later, 0, min64(KEYS, later.keys));
        }
        forward_queries(ctx, &a, s.past + row, min64(together, s.seq - row), o + at * s.v, s.heads * s.v,
                        lse + at, s.heads, after);
    }
}
