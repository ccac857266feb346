/* Gradient of q on tensor cores: a block has QUERIES rows of one head, and goes through the blocks of keys as
 * the forward does, computing the scores again.  Nothing is added by two blocks. */
#include "kernels/cuda/attention.cuh"

enum { QUERIES = 128, THREADS = QUERIES / GROUP_ROWS * GROUP, PLACES = 2 };

/* This thread's two rows: their place in the sequence, the first key that they see, figures. */
typedef struct rows {
    int position[2], first[2];
    float lse[2], delta[2]; /* lse in units of log2(e) */
} rows;

/* Scores become their gradients.  key: column 0.  EDGE: some rows of the group do not see some of these keys.
 */
template <bool EDGE>
static __device__ __forceinline__ void gradients(float (&score)[KEYS / 8][4],
                                                 const float (&d_weight)[KEYS / 8][4], float scale, int key,
                                                 const rows &r) {
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = key + 8 * j + threadIdx.x % 4 * 2 + i % 2;
            float x = fmaf(score[j][i], scale, -r.lse[i / 2]);
            if (EDGE)
                x = (at > r.position[i / 2]) | (at < r.first[i / 2]) ? -INFINITY : x; /* | : no branches */
            score[j][i] = exp2_approximate(x) * (d_weight[j][i] - r.delta[i / 2]);
        }
}

template <int QK, int V>
static __global__ void __launch_bounds__(THREADS, 1)
    dq_kernel(attention_call p, float *dq, const query_figures *figures) {
    kernel_begins();
    constexpr int K_BYTES = tile_bytes(KEYS, QK), PLACE = K_BYTES + tile_bytes(KEYS, V),
                  PANELS = (QK + PANEL - 1) / PANEL;
    DYNAMIC_SHARED(char, shared);
    char *q_tile = tile_memory(shared), *d_o_tile = q_tile + tile_bytes(QUERIES, QK);
    char *places = d_o_tile + tile_bytes(QUERIES, V);
    const attention_shape s = p.s;
    int64_t b = blockIdx.z, h = blockIdx.y, head = b * s.heads + h;
    int seq = (int)s.seq;
    int query = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES; /* the last see most keys: they go first */
    int last = min(query + QUERIES, seq) - 1, group_row = (int)threadIdx.x / GROUP * GROUP_ROWS;
    int group = query + group_row;
    const bf16 *k = p.x.k + head * seq * QK, *v = p.x.v + head * seq * V;

    load_rows<QUERIES, QK, THREADS>(q_tile, p.x.q + head * seq * QK, query, seq);
    load_rows<QUERIES, V, THREADS>(d_o_tile, p.x.d_o + head * seq * V, query, seq);
    int first_block = first_key_of(p, b, query) / KEYS, end_block = last / KEYS + 1;
    auto fill = [&](int block) {
        char *to = places + block % PLACES * PLACE;
        if (block < end_block) {
            load_rows<KEYS, QK, THREADS>(to, k, block * KEYS, seq);
            load_rows<KEYS, V, THREADS>(to + K_BYTES, v, block * KEYS, seq);
        }
        copy_async_commit();
    };
    fill(first_block);
    rows r;
    int group_first = first_key_of(p, b, min(group + GROUP_ROWS, seq) - 1);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int i = min(group + 16 * warp_of_group() + (int)threadIdx.x % WARP / 4 + 8 * half, seq - 1);
        r.position[half] = i;
        query_figures f = figures[head * seq + i];
        r.first[half] = f.first;
        r.lse[half] = f.lse;
        r.delta[half] = f.delta;
    }
    copy_async_wait<0>();
    tile_filled();
    __syncthreads();

    float sum[PANELS][PANEL / 8][4] = {};
    for (int block = first_block; block < end_block; block++) {
        int key = block * KEYS;
        fill(block + 1);
        char *keys_at = places + block % PLACES * PLACE, *values_at = keys_at + K_BYTES;
        if (group < seq && key < group + GROUP_ROWS) {
            float score[KEYS / 8][4] = {}, d_weight[KEYS / 8][4] = {};
            products_begin(score, d_weight);
            tile_product_start<KEYS, ALONG_K, ALONG_K, QK / 16>(score, q_tile, panel_bytes(QUERIES),
                                                                group_row, keys_at, panel_bytes(KEYS), 0);
            tile_product_start<KEYS, ALONG_K, ALONG_K, V / 16>(d_weight, d_o_tile, panel_bytes(QUERIES),
                                                               group_row, values_at, panel_bytes(KEYS), 0);
            products_wait<0>(score, d_weight);
            if (key + KEYS - 1 > group || key < group_first)
                gradients<true>(score, d_weight, p.scale * LOG2_E, key, r);
            else gradients<false>(score, d_weight, p.scale * LOG2_E, 0, r);
            uint32_t d_score[KEYS / 16][4];
#pragma unroll
            for (int t = 0; t < KEYS / 16; t++) fragment_of_result(d_score[t], score, t);
            products_begin(sum, d_score);
            fragment_product_start<PANEL, ACROSS_K>(sum, d_score, keys_at, panel_bytes(KEYS));
            products_wait<0>(sum, d_score);
        }
        copy_async_wait<0>();
        tile_filled();
        __syncthreads(); /* the next block is there, and this one is read */
    }

    int width = (int)(s.nope + s.rope);
    bool pairs = width % 2 == 0 && (uintptr_t)dq % 8 == 0;
#pragma unroll
    for (int e = 0; e < PANELS * PANEL / 8 * 4; e += 2) {
        int i = group + 16 * warp_of_group() + (int)threadIdx.x % WARP / 4 + e / 2 % 2 * 8;
        int c = e / 4 * 8 + (int)threadIdx.x % 4 * 2;
        if (i < seq && c < width)
            store_pair(dq, NULL, result_row(s, b, i, h) * width + c, p.scale * sum[e / 32][e / 4 % 8][e % 4],
                       p.scale * sum[e / 32][e / 4 % 8][e % 4 + 1], c + 1 < width, pairs);
    }
}

template <int QK, int V>
static void run(kernel_context *ctx, const attention_call *p, float *dq, const query_figures *figures) {
    constexpr int SHARED_BYTES = TILE_ALIGNMENT + tile_bytes(QUERIES, QK) + tile_bytes(QUERIES, V) +
                                 PLACES * (tile_bytes(KEYS, QK) + tile_bytes(KEYS, V));
    LAUNCH((dq_kernel<QK, V>), grid3(divide_up(p->s.seq, QUERIES), p->s.heads, p->s.batch), THREADS,
           SHARED_BYTES, ctx, *p, dq, figures);
}

void attention_dq_bf16(kernel_context *ctx, const attention_call *p, float *dq,
                       const query_figures *figures) {
    ATTENTION_WIDTHS(run, p->s, ctx, p, dq, figures);
}
