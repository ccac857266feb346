/* Causal attention of MLA shape, forward: a running softmax over blocks of KEYS keys (Dao et al., "Flash-
 * Attention").  A block of queries meets each block of keys once; a tile of its rows computes its scores,
 * takes them through the softmax and multiplies them with the values while they lie in L1. */
#include "kernels/cpu/attention.h"

#include <float.h>
#include <math.h>

#include "kernels/math.h"

enum { QUERIES = 128 }; /* rows for which a block of keys is packed once; decides no bits */

attention_head CPU_(attention_head_of)(attention_shape s, int64_t b, int64_t h, const float *q,
                                       const float *kv, const float *k_rope, int64_t ld_k_rope,
                                       const int32_t *first_key) {
    int64_t width = s.nope + s.rope, row = b * s.seq;
    attention_head a = {.seq = s.seq, .nope = s.nope, .rope = s.rope, .v = s.v, .width = width};
    a.ld_q = s.heads * width;
    a.ld_kv = s.heads * (s.nope + s.v);
    a.ld_k_rope = ld_k_rope;
    a.q = q + row * a.ld_q + h * width;
    a.k = kv + row * a.ld_kv + h * (s.nope + s.v);
    a.value = a.k + s.nope;
    a.k_rope = k_rope + row * ld_k_rope;
    a.first_key = first_key ? first_key + row : NULL;
    a.scale = (float)(1 / sqrt((double)width));
    return a;
}

/* What a block of queries carries from one block of keys to the next. */
typedef struct running {
    float *out;  /* [QUERIES, whole_lanes(v)]: sum of exp(score - top) * value */
    float *top;  /* [QUERIES]: largest score so far */
    float *sums; /* [QUERIES, LANES]: sum of exp(score - top), lane by lane */
} running;

/* One row's scores of a block, of which [0, computed) are there, become exp(score - top), and 0 outside of
 * the keys [from, to) that the row sees.  What was summed before under another top is scaled to the new one.
 */
static void softmax_row(float *scores, int64_t from, int64_t to, int64_t computed, float scale, int64_t v,
                        float *out, float *top, float *sums) {
    vf unseen = vf_set1(-INFINITY), most = unseen;
    if (from > 0 || to < computed) {
        for (int64_t c = 0; c < computed; c += LANES) {
            vf s = vf_select(vm_first(to - c), vf_load(scores + c), unseen);
            vf_store(scores + c, vf_select(vm_first(from - c), unseen, s));
        }
    }
    for (int64_t c = 0; c < computed; c += LANES) most = vf_max(most, vf_load(scores + c));
    float before = *top, now = fmaxf(before, vf_max_lane(most) * scale);
    vf minus_top = vf_set1(-now), sum = vf_zero();
    for (int64_t c = 0; c < computed; c += LANES) {
        vf p = vf_exp(vf_fma(vf_load(scores + c), vf_set1(scale), minus_top));
        vf_store(scores + c, p);
        sum = vf_add(sum, p);
    }
    if (now != before) {
        vf factor = vf_exp(vf_set1(before - now));
        vf_store(sums, vf_mul(vf_load(sums), factor));
        for (int64_t c = 0; c < v; c += LANES) vf_store(out + c, vf_mul(vf_load(out + c), factor));
        *top = now;
    }
    vf_store(sums, vf_add(vf_load(sums), sum));
}

/* Rows [row, row + m) of the sequence, a tile, meet the packed block of keys that starts at `key`. */
static void meet_keys(const attention_head *a, int64_t row, int64_t m, int64_t key, const float *keys,
                      const float *values, float *scores, running r) {
    int64_t padded = whole_lanes(a->v);
    int64_t seen = min64(KEYS, row + m - key), computed = whole_lanes(seen); /* by the tile's last row */
    tile_product(GEMM_NN, m, computed, a->width, scores, KEYS, 0, a->q + row * a->ld_q, a->ld_q, keys, KEYS);
    for (int64_t i = 0; i < m; i++) {
        int64_t to = min64(KEYS, row + i + 1 - key);
        softmax_row(scores + i * KEYS, first_key_of(a, row + i) - key, to, computed, a->scale, a->v,
                    r.out + i * padded, r.top + i, r.sums + i * LANES);
    }
    tile_product(GEMM_NN, m, padded, seen, r.out, padded, 1, scores, KEYS, values, padded);
}

static void forward_queries(const kernel_context *ctx, const attention_head *a, int64_t row, int64_t rows,
                            float *o, int64_t ld_o, float *lse, int64_t ld_lse) {
    int64_t padded = whole_lanes(a->v);
    cutter scratch = cut_scratch(ctx);
    float *keys = cut(&scratch, a->width * KEYS), *values = cut(&scratch, KEYS * padded);
    float *scores = cut(&scratch, TILE_ROWS * KEYS);
    running r = {cut(&scratch, QUERIES * padded), cut(&scratch, QUERIES), cut(&scratch, QUERIES * LANES)};
    memset(r.out, 0, (size_t)(rows * padded) * sizeof *r.out);
    memset(r.sums, 0, (size_t)(rows * LANES) * sizeof *r.sums);
    for (int64_t i = 0; i < rows; i++) r.top[i] = -FLT_MAX;

    for (int64_t key = first_key_of(a, row) / KEYS * KEYS; key < row + rows; key += KEYS) {
        int64_t n = min64(KEYS, a->seq - key);
        pack_keys(a, key, n, keys);
        pack_rows(values, n, a->v, a->value + key * a->ld_kv, a->ld_kv);
        for (int64_t t = 0; t < tiles_of(rows); t++) {
            row_range at = tile_rows(t, rows);
            if (row + at.end <= key) continue;
            running part = {r.out + at.begin * padded, r.top + at.begin, r.sums + at.begin * LANES};
            meet_keys(a, row + at.begin, at.end - at.begin, key, keys, values, scores, part);
        }
    }
    for (int64_t i = 0; i < rows; i++) {
        float sum = vf_sum(vf_load(r.sums + i * LANES));
        lse[i * ld_lse] = (float)(r.top[i] + fixed_log(sum));
        for (int64_t c = 0; c < a->v; c += LANES)
            vf_store_n(o + i * ld_o + c, vf_div(vf_load(r.out + i * padded + c), vf_set1(sum)), a->v - c);
    }
}

void CPU_(attention_forward)(kernel_context *ctx, attention_shape s, float *o, float *lse, const float *q,
                             const float *kv, const float *k_rope, int64_t ld_k_rope,
                             const int32_t *first_key) {
    int64_t blocks = (s.seq + QUERIES - 1) / QUERIES;
    int threads = threads_for(ctx, s.batch * s.heads * s.seq * (s.nope + s.rope));
    /* the last queries have most keys to see: they go first, and what is left evens out */
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t i = 0; i < s.batch * s.heads * blocks; i++) {
        int64_t block = blocks - 1 - i / (s.batch * s.heads), head = i % (s.batch * s.heads);
        int64_t b = head / s.heads, h = head % s.heads, row = block * QUERIES;
        attention_head a = CPU_(attention_head_of)(s, b, h, q, kv, k_rope, ld_k_rope, first_key);
        int64_t at = (b * s.seq + row) * s.heads + h;
        forward_queries(ctx, &a, row, min64(QUERIES, s.seq - row), o + at * s.v, s.heads * s.v, lse + at,
                        s.heads);
    }
}
