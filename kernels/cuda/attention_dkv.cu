/* Gradients of keys and values on tensor cores: a block has ROWS keys of one head and goes through the blocks
 * of queries that see them, with scores transposed: a row is a key, a column a query.  Nothing is added by
 * two blocks; of the part of keys that all heads share, each head leaves its own sum. */
#include "kernels/cuda/attention.cuh"

/* QUERIES a block of queries, as many as the registers hold beside the sums. */
enum { ROWS = 128, THREADS = ROWS / GROUP_ROWS * GROUP, QUERIES = 64, PLACES = 2 };

/* Scores become weights, and the gradients of weights those of scores.  row: this thread's first key; query:
 * column 0.  EDGE: some of these queries do not see some of the group's keys. */
template <bool EDGE>
static __device__ __forceinline__ void weights(float (&score)[QUERIES / 8][4],
                                               float (&d_weight)[QUERIES / 8][4], float scale, int row,
                                               int query, const query_figures *of) {
#pragma unroll
    for (int j = 0; j < QUERIES / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int column = 8 * j + (int)threadIdx.x % 4 * 2 + i % 2, at = row + i / 2 * 8;
            query_figures f = of[column];
            float x = fmaf(score[j][i], scale, -f.lse);
            if (EDGE) x = (at > query + column) | (at < f.first) ? -INFINITY : x; /* | : no branches */
            score[j][i] = exp2_approximate(x);
            d_weight[j][i] = score[j][i] * (d_weight[j][i] - f.delta);
        }
}

template <int QK, int V>
static __global__ void __launch_bounds__(THREADS, 1)
    dkv_kernel(attention_call p, float *dkv, float *dk_rope_part, const query_figures *all_figures) {
    kernel_begins();
    constexpr int Q_BYTES = tile_bytes(QUERIES, QK), PLACE = Q_BYTES + tile_bytes(QUERIES, V);
    constexpr int QK_PANELS = (QK + PANEL - 1) / PANEL, V_PANELS = (V + PANEL - 1) / PANEL;
    DYNAMIC_SHARED(char, shared);
    /* zeros behind the last query: its q and d_o are zeros, too, so that nothing comes of it */
    SHARED(query_figures, figures, [PLACES][QUERIES]);
    char *k_tile = tile_memory(shared), *v_tile = k_tile + tile_bytes(ROWS, QK),
         *places = v_tile + tile_bytes(ROWS, V);
    const attention_shape s = p.s;
    int64_t b = blockIdx.z, h = blockIdx.y, head = b * s.heads + h;
    int seq = (int)s.seq, key = (int)blockIdx.x * ROWS, last = min(key + ROWS, seq) - 1;
    int group_row = (int)threadIdx.x / GROUP * GROUP_ROWS;
    int row = key + group_row + 16 * warp_of_group() + (int)threadIdx.x % WARP / 4; /* and 8 more */
    const bf16 *q = p.x.q + head * seq * QK, *d_o = p.x.d_o + head * seq * V;

    load_rows<ROWS, QK, THREADS>(k_tile, p.x.k + head * seq * QK, key, seq);
    load_rows<ROWS, V, THREADS>(v_tile, p.x.v + head * seq * V, key, seq);
    const query_figures *of_head = all_figures + head * seq;
    auto fill = [&](int block) {
        char *to = places + block % PLACES * PLACE;
        int query = block * QUERIES, t = (int)threadIdx.x;
        if (query < seq) {
            load_rows<QUERIES, QK, THREADS>(to, q, query, seq);
            load_rows<QUERIES, V, THREADS>(to + Q_BYTES, d_o, query, seq);
            if (t < QUERIES)
                copy_async16(&figures[block % PLACES][t], of_head + query + t, query + t < seq ? 16 : 0);
        }
        copy_async_commit();
    };
    int first_block = key / QUERIES, blocks = (seq + QUERIES - 1) / QUERIES;
    fill(first_block);
    copy_async_wait<0>();
    tile_filled();
    __syncthreads();

    float dk[QK_PANELS][PANEL / 8][4] = {}, dv[V_PANELS][PANEL / 8][4] = {};
    for (int block = first_block; block < blocks; block++) {
        const query_figures *of = figures[block % PLACES];
        if (of[0].first > last) break; /* documents that begin behind these keys: all threads see the same */
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
            int last_query = min((int)QUERIES, seq - block * QUERIES) - 1;
            if (block * QUERIES < key + group_row + GROUP_ROWS - 1 || of[last_query].first > key + group_row)
                weights<true>(score, d_weight, p.scale * LOG2_E, row, block * QUERIES, of);
            else weights<false>(score, d_weight, p.scale * LOG2_E, 0, 0, of);
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

    int nope = (int)s.nope, rope = (int)s.rope, v = (int)s.v;
    bool pairs =
        nope % 2 == 0 && rope % 2 == 0 && v % 2 == 0 && ((uintptr_t)dkv | (uintptr_t)dk_rope_part) % 8 == 0;
#pragma unroll
    for (int e = 0; e < QK_PANELS * PANEL / 8 * 4; e += 2) {
        int i = row + e / 2 % 2 * 8, c = e / 4 * 8 + (int)threadIdx.x % 4 * 2;
        if (i >= seq || c >= nope + rope) continue;
        int64_t at = result_row(s, b, i, h);
        float x = p.scale * dk[e / 32][e / 4 % 8][e % 4], y = p.scale * dk[e / 32][e / 4 % 8][e % 4 + 1];
        float *part = dk_rope_part + at * rope;
        if (c < nope) store_pair(dkv, p.rounded, at * (nope + v) + c, x, y, c + 1 < nope, pairs);
        else store_pair(part, NULL, c - nope, x, y, c + 1 < nope + rope, pairs);
        if (c + 1 == nope && rope) part[0] = y; /* a pair of which one is of either */
    }
#pragma unroll
    for (int e = 0; e < V_PANELS * PANEL / 8 * 4; e += 2) {
        int i = row + e / 2 % 2 * 8, c = e / 4 * 8 + (int)threadIdx.x % 4 * 2;
        if (i < seq && c < v)
            store_pair(dkv, p.rounded, result_row(s, b, i, h) * (nope + v) + nope + c,
                       dv[e / 32][e / 4 % 8][e % 4], dv[e / 32][e / 4 % 8][e % 4 + 1], c + 1 < v, pairs);
    }
}

template <int QK, int V>
static void run(kernel_context *ctx, const attention_call *p, float *dkv, float *dk_rope_part,
                const query_figures *figures) {
    constexpr int SHARED_BYTES = TILE_ALIGNMENT + tile_bytes(ROWS, QK) + tile_bytes(ROWS, V) +
                                 PLACES * (tile_bytes(QUERIES, QK) + tile_bytes(QUERIES, V));
    LAUNCH((dkv_kernel<QK, V>), grid3(divide_up(p->s.seq, ROWS), p->s.heads, p->s.batch), THREADS,
           SHARED_BYTES, ctx, *p, dkv, dk_rope_part, figures);
}

void attention_dkv_bf16(kernel_context *ctx, const attention_call *p, float *dkv, float *dk_rope_part,
                        const query_figures *figures) {
    ATTENTION_WIDTHS(run, p->s, ctx, p, dkv, dk_rope_part, figures);
}
