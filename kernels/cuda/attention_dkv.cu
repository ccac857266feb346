/* Gradients of keys and values on tensor cores: a block has ROWS keys of one head and goes through the blocks
 * of queries that see them, with scores transposed: a row is a key, a column a query.  Nothing is added by
 * two blocks; of the part of keys that all heads share, each head leaves its own sum. */
#include "kernels/cuda/attention.cuh"

/* QUERIES a block of queries, as many as the registers hold beside the sums. */
enum { ROWS = 128, THREADS = ROWS / GROUP_ROWS * GROUP, QUERIES = 64, PLACES = 2 };
static const float LOG2_E = 1.44269504f;

/* What a block of queries brings beside q and d_o. */
typedef struct query_figures {
    float lse[QUERIES], delta[QUERIES];
    int first[QUERIES]; /* key; of rows beyond the last, one that is never reached */
} query_figures;

/* Scores become weights, and the gradients of weights those of scores.  row: this thread's first key; query:
 * column 0.  EDGE: some of these queries do not see some of the group's keys. */
template <bool EDGE>
static __device__ __forceinline__ void weights(float (&score)[QUERIES / 8][4],
                                               float (&d_weight)[QUERIES / 8][4], float scale, int row,
                                               int query, const query_figures *f) {
#pragma unroll
    for (int j = 0; j < QUERIES / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int column = 8 * j + threadIdx.x % 4 * 2 + i % 2, at = row + i / 2 * 8;
            float x = fmaf(score[j][i], scale, -f->lse[column]);
            if (EDGE)
                x = (at > query + column) | (at < f->first[column]) ? -INFINITY : x; /* | : no branches */
            score[j][i] = exp2_approximate(x);
            d_weight[j][i] = score[j][i] * (d_weight[j][i] - f->delta[column]);
        }
}

template <int QK, int V>
static __global__ void __launch_bounds__(THREADS, 1)
    dkv_kernel(attention_call p, float *dkv, float *dk_rope_part, const float *lse, const float *delta) {
    kernel_begins();
    constexpr int Q_BYTES = tile_bytes(QUERIES, QK), PLACE = Q_BYTES + tile_bytes(QUERIES, V);
    constexpr int QK_PANELS = (QK + PANEL - 1) / PANEL, V_PANELS = (V + PANEL - 1) / PANEL;
    DYNAMIC_SHARED(char, shared);
    SHARED(query_figures, figures, [PLACES]);
    char *k_tile = tile_memory(shared), *v_tile = k_tile + tile_bytes(ROWS, QK),
         *places = v_tile + tile_bytes(ROWS, V);
    const attention_shape s = p.s;
    int64_t b = blockIdx.z, h = blockIdx.y, head = b * s.heads + h, key = (int64_t)blockIdx.x * ROWS;
    int64_t last = min(key + ROWS, s.seq) - 1;
    int group_row = threadIdx.x / GROUP * GROUP_ROWS;
    int64_t row =
        key + group_row + 16 * warp_of_group() + threadIdx.x % WARP / 4; /* this thread's, and 8 more */
    const bf16 *q = p.x.q + head * s.seq * p.x.ld_qk, *d_o = p.x.d_o + head * s.seq * p.x.ld_v;

    load_rows<ROWS, QK, THREADS>(k_tile, p.x.k + head * s.seq * p.x.ld_qk, p.x.ld_qk, key, s.seq);
    load_rows<ROWS, V, THREADS>(v_tile, p.x.v + head * s.seq * p.x.ld_v, p.x.ld_v, key, s.seq);
    auto fill = [&](int64_t block) {
        char *to = places + block % PLACES * PLACE;
        int64_t i = block * QUERIES + threadIdx.x;
        if (block * QUERIES < s.seq) {
            load_rows<QUERIES, QK, THREADS>(to, q, p.x.ld_qk, block * QUERIES, s.seq);
            load_rows<QUERIES, V, THREADS>(to + Q_BYTES, d_o, p.x.ld_v, block * QUERIES, s.seq);
            if (threadIdx.x < QUERIES) {
                query_figures *f = &figures[block % PLACES];
                f->lse[threadIdx.x] = i < s.seq ? lse[result_row(s, b, i, h)] * LOG2_E : 0;
                f->delta[threadIdx.x] = i < s.seq ? delta[result_row(s, b, i, h)] : 0;
                f->first[threadIdx.x] = i < s.seq ? (int)first_key_of(p, b, i) : INT32_MAX;
            }
        }
        copy_async_commit();
    };
    int64_t first_block = key / QUERIES, blocks = (s.seq + QUERIES - 1) / QUERIES;
    fill(first_block);
    copy_async_wait<0>();
    tile_filled();
    __syncthreads();

    float dk[QK_PANELS][PANEL / 8][4] = {}, dv[V_PANELS][PANEL / 8][4] = {};
    for (int64_t block = first_block; block < blocks; block++) {
        const query_figures *f = &figures[block % PLACES];
        if (f->first[0] > last) break; /* documents that begin behind these keys: all threads see the same */
        fill(block + 1);
        char *queries_at = places + block % PLACES * PLACE, *d_o_at = queries_at + Q_BYTES;
        if (block * QUERIES + QUERIES >
            key + group_row) { /* else none of them sees any of the group's keys */
            float score[QUERIES / 8][4] = {}, d_weight[QUERIES / 8][4] = {};
            products_begin(score, d_weight);
            tile_product_start<QUERIES, ALONG_K, ALONG_K, QK / 16>(
                score, k_tile, panel_bytes(ROWS), group_row, queries_at, panel_bytes(QUERIES), 0);
            tile_product_start<QUERIES, ALONG_K, ALONG_K, V / 16>(d_weight, v_tile, panel_bytes(ROWS),
                                                                  group_row, d_o_at, panel_bytes(QUERIES), 0);
            products_wait<0>(score, d_weight);
            if (block * QUERIES < key + group_row + GROUP_ROWS - 1 || f->first[QUERIES - 1] > key + group_row)
                weights<true>(score, d_weight, p.scale * LOG2_E, (int)row, (int)(block * QUERIES), f);
            else weights<false>(score, d_weight, p.scale * LOG2_E, 0, 0, f);
            uint32_t weight[QUERIES / 16][4], d_score[QUERIES / 16][4];
#pragma unroll
            for (int t = 0; t < QUERIES / 16; t++) {
                fragment_of_result(weight[t], score, t);
                fragment_of_result(d_score[t], d_weight, t);
            }
            products_begin(dv, dk, weight, d_score);
            fragment_product_start<PANEL, ACROSS_K>(dv, weight, d_o_at, panel_bytes(QUERIES));
            fragment_product_start<PANEL, ACROSS_K>(dk, d_score, queries_at, panel_bytes(QUERIES));
            products_wait<0>(dv, dk, weight, d_score);
        }
        copy_async_wait<0>();
        tile_filled();
        __syncthreads(); /* the next block is there, and this one is read */
    }

#pragma unroll
    for (int e = 0; e < QK_PANELS * PANEL / 8 * 4; e++) {
        int64_t i = row + e / 2 % 2 * 8;
        int c = e / 4 * 8 + threadIdx.x % 4 * 2 + e % 2;
        if (i >= s.seq || c >= s.nope + s.rope) continue;
        int64_t at = result_row(s, b, i, h);
        float x = p.scale * dk[e / 32][e / 4 % 8][e % 4];
        if (c < s.nope) store_result(dkv, p.rounded, at * (s.nope + s.v) + c, x);
        else dk_rope_part[at * s.rope + c - s.nope] = x;
    }
#pragma unroll
    for (int e = 0; e < V_PANELS * PANEL / 8 * 4; e++) {
        int64_t i = row + e / 2 % 2 * 8;
        int c = e / 4 * 8 + threadIdx.x % 4 * 2 + e % 2;
        if (i < s.seq && c < s.v)
            store_result(dkv, p.rounded, result_row(s, b, i, h) * (s.nope + s.v) + s.nope + c,
                         dv[e / 32][e / 4 % 8][e % 4]);
    }
}

template <int QK, int V>
static void run(kernel_context *ctx, const attention_call *p, float *dkv, float *dk_rope_part,
                const float *lse, const float *delta) {
    constexpr int SHARED_BYTES = TILE_ALIGNMENT + tile_bytes(ROWS, QK) + tile_bytes(ROWS, V) +
                                 PLACES * (tile_bytes(QUERIES, QK) + tile_bytes(QUERIES, V));
    LAUNCH((dkv_kernel<QK, V>),
           dim3((unsigned)divide_up(p->s.seq, ROWS), (unsigned)p->s.heads, (unsigned)p->s.batch), THREADS,
           SHARED_BYTES, ctx, *p, dkv, dk_rope_part, lse, delta);
}

void attention_dkv_bf16(kernel_context *ctx, const attention_call *p, float *dkv, float *dk_rope_part,
                        const float *lse, const float *delta) {
    ATTENTION_WIDTHS(run, p->s, ctx, p, dkv, dk_rope_part, lse, delta);
}
