/* Gradient of q on tensor cores: a block has QUERIES rows of one head, and goes through the blocks of keys as
 * the forward does, computing the scores again.  Nothing is added by two blocks. */
#include "kernels/cuda/attention.cuh"

enum { QUERIES = 128, THREADS = QUERIES / GROUP_ROWS * GROUP, PLACES = 2 };
static const float LOG2_E = 1.44269504f;

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
    dq_kernel(attention_call p, float *dq, const float *lse, const float *delta) {
    kernel_begins();
    constexpr int K_BYTES = tile_bytes(KEYS, QK), PLACE = K_BYTES + tile_bytes(KEYS, V),
                  PANELS = (QK + PANEL - 1) / PANEL;
    DYNAMIC_SHARED(char, shared);
    char *q_tile = tile_memory(shared), *d_o_tile = q_tile + tile_bytes(QUERIES, QK);
    char *places = d_o_tile + tile_bytes(QUERIES, V);
    const attention_shape s = p.s;
    int64_t b = blockIdx.z, h = blockIdx.y, head = b * s.heads + h;
    int64_t query =
        (int64_t)(gridDim.x - 1 - blockIdx.x) * QUERIES; /* the last see most keys: they go first */
    int64_t last = min(query + QUERIES, s.seq) - 1, group = query + threadIdx.x / GROUP * GROUP_ROWS;
    int group_row = threadIdx.x / GROUP * GROUP_ROWS;
    const bf16 *k = p.x.k + head * s.seq * p.x.ld_qk, *v = p.x.v + head * s.seq * p.x.ld_v;

    load_rows<QUERIES, QK, THREADS>(q_tile, p.x.q + head * s.seq * p.x.ld_qk, p.x.ld_qk, query, s.seq);
    load_rows<QUERIES, V, THREADS>(d_o_tile, p.x.d_o + head * s.seq * p.x.ld_v, p.x.ld_v, query, s.seq);
    int64_t first_block = first_key_of(p, b, query) / KEYS, end_block = last / KEYS + 1;
    auto fill = [&](int64_t block) {
        char *to = places + block % PLACES * PLACE;
        if (block < end_block) {
            load_rows<KEYS, QK, THREADS>(to, k, p.x.ld_qk, block * KEYS, s.seq);
            load_rows<KEYS, V, THREADS>(to + K_BYTES, v, p.x.ld_v, block * KEYS, s.seq);
        }
        copy_async_commit();
    };
    fill(first_block);
    rows r;
    int64_t group_first = first_key_of(p, b, min(group + GROUP_ROWS, s.seq) - 1);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int64_t i = min(group + 16 * warp_of_group() + threadIdx.x % WARP / 4 + 8 * half, s.seq - 1);
        r.position[half] = (int)i;
        r.first[half] = (int)first_key_of(p, b, i);
        r.lse[half] = lse[result_row(s, b, i, h)] * LOG2_E;
        r.delta[half] = delta[result_row(s, b, i, h)];
    }
    copy_async_wait<0>();
    tile_filled();
    __syncthreads();

    float sum[PANELS][PANEL / 8][4] = {};
    for (int64_t block = first_block; block < end_block; block++) {
        int64_t key = block * KEYS;
        fill(block + 1);
        char *keys_at = places + block % PLACES * PLACE, *values_at = keys_at + K_BYTES;
        if (group < s.seq && key < group + GROUP_ROWS) {
            float score[KEYS / 8][4] = {}, d_weight[KEYS / 8][4] = {};
            products_begin(score, d_weight);
            tile_product_start<KEYS, ALONG_K, ALONG_K, QK / 16>(score, q_tile, panel_bytes(QUERIES),
                                                                group_row, keys_at, panel_bytes(KEYS), 0);
            tile_product_start<KEYS, ALONG_K, ALONG_K, V / 16>(d_weight, d_o_tile, panel_bytes(QUERIES),
                                                               group_row, values_at, panel_bytes(KEYS), 0);
            products_wait<0>(score, d_weight);
            if (key + KEYS - 1 > group || key < group_first)
                gradients<true>(score, d_weight, p.scale * LOG2_E, (int)key, r);
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

    int64_t width = s.nope + s.rope;
#pragma unroll
    for (int e = 0; e < PANELS * PANEL / 8 * 4; e++) {
        int64_t i = group + 16 * warp_of_group() + threadIdx.x % WARP / 4 + e / 2 % 2 * 8;
        int c = e / 4 * 8 + threadIdx.x % 4 * 2 + e % 2;
        if (i < s.seq && c < width)
            dq[result_row(s, b, i, h) * width + c] = p.scale * sum[e / 32][e / 4 % 8][e % 4];
    }
}

template <int QK, int V>
static void run(kernel_context *ctx, const attention_call *p, float *dq, const float *lse,
                const float *delta) {
    constexpr int SHARED_BYTES = TILE_ALIGNMENT + tile_bytes(QUERIES, QK) + tile_bytes(QUERIES, V) +
                                 PLACES * (tile_bytes(KEYS, QK) + tile_bytes(KEYS, V));
    LAUNCH((dq_kernel<QK, V>),
           dim3((unsigned)divide_up(p->s.seq, QUERIES), (unsigned)p->s.heads, (unsigned)p->s.batch), THREADS,
           SHARED_BYTES, ctx, *p, dq, lse, delta);
}

void attention_dq_bf16(kernel_context *ctx, const attention_call *p, float *dq, const float *lse,
                       const float *delta) {
    ATTENTION_WIDTHS(run, p->s, ctx, p, dq, lse, delta);
}
