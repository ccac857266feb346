/* Attention forward on tensor cores: a running softmax over blocks of keys (Dao, "FlashAttention-2").  A
 * block has QUERIES rows of one head, 64 to a group of warps; their q stays in registers, blocks of keys and
 * values come through two places in shared memory each.  So that tensor cores have work during a softmax, the
 * next block's scores are multiplied beside it (AHEAD 1; Shah and others, "FlashAttention-3"), or, where
 * heads are small, a second block of the launch has room beside the first. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/math.cuh"

#include <float.h>

enum { QUERIES = 128, THREADS = QUERIES / GROUP_ROWS * GROUP, PLACES = 2 };
static const double LN_2 = 0x1.62e42fefa39efp-1;

/* Largest, and sum, of what the four lanes that share a row hold. */
static __device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}
static __device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

/* What a thread carries from one block of keys to the next, for its two rows: lane / 4 and 8 more. */
template <int V> struct running {
    float out[1][V / 8][4]; /* sum of 2^(score - top) * value */
    float top[2];           /* largest score so far, of scores in units of log2(e) */
    float sum[2];           /* of 2^(score - top), over this thread's columns */
};

/* Scores become 2^(score - top); out and sum are scaled to the new top. */
template <int V>
static __device__ __forceinline__ void softmax(float (&score)[KEYS / 8][4], running<V> &r, float scale) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float most = -INFINITY, sum = 0;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
            most = fmaxf(most, fmaxf(score[j][2 * half], score[j][2 * half + 1]));
        float top = fmaxf(r.top[half], row_max(most) * scale), factor = exp2_approximate(r.top[half] - top);
        r.top[half] = top;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                score[j][i] = exp2_approximate(fmaf(score[j][i], scale, -top));
                sum += score[j][i];
            }
        r.sum[half] = fmaf(r.sum[half], factor, sum);
#pragma unroll
        for (int j = 0; j < V / 8; j++) {
            r.out[0][j][2 * half] *= factor;
            r.out[0][j][2 * half + 1] *= factor;
        }
    }
}

/* Keys that a row may not see score minus infinity.  key: column 0; position, first: of this thread's two
 * rows. No branches: they would cost more than the scores. */
static __device__ __forceinline__ void mask(float (&score)[KEYS / 8][4], int key, const int *position,
                                            const int *first) {
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = key + 8 * j + threadIdx.x % 4 * 2 + i % 2;
            bool hidden = (at > position[i / 2]) | (at < first[i / 2]);
            score[j][i] = hidden ? -INFINITY : score[j][i];
        }
}

static __device__ __forceinline__ void clear(float (&x)[1][KEYS / 8][4]) {
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[0][j][i] = 0;
}

template <int QK, int V, int AHEAD>
static __global__ void __launch_bounds__(THREADS, AHEAD ? 1 : 2)
    forward_kernel(attention_call p, float *o, float *lse) {
    kernel_begins();
    constexpr int K_BYTES = tile_bytes(KEYS, QK), V_BYTES = tile_bytes(KEYS, V);
    DYNAMIC_SHARED(char, shared);
    char *q_tile = tile_memory(shared), *k_places = q_tile + tile_bytes(QUERIES, QK),
         *v_places = k_places + PLACES * K_BYTES;
    const attention_shape s = p.s;
    int seq = (int)s.seq, past = (int)s.past, keys = past + seq;
    int64_t b = blockIdx.z, h = blockIdx.y, head = b * s.heads + h;
    int query = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES; /* the last see most keys: they go first */
    int last = min(query + QUERIES, seq) - 1, group = query + (int)threadIdx.x / GROUP * GROUP_ROWS;
    const bf16 *k = p.x.k + head * keys * QK, *v = p.x.v + head * keys * V;

    load_rows<QUERIES, QK, THREADS>(q_tile, p.x.q + head * seq * QK, query, seq);
    /* blocks are counted from the first that a query sees: number i lies in place i % PLACES */
    int first_key = first_key_of(p, b, query) / KEYS * KEYS, blocks = (past + last - first_key) / KEYS + 1;
    auto keys_of_block = [&](int i) { return k_places + i % PLACES * K_BYTES; };
    auto values_of_block = [&](int i) { return v_places + i % PLACES * V_BYTES; };
    auto fill_keys = [&](int i) {
        if (i < blocks) load_rows<KEYS, QK, THREADS>(keys_of_block(i), k, first_key + i * KEYS, keys);
    };
    auto fill_values = [&](int i) {
        if (i < blocks) load_rows<KEYS, V, THREADS>(values_of_block(i), v, first_key + i * KEYS, keys);
        copy_async_commit();
    };
    auto all_filled = [&] {
        copy_async_wait<0>();
        tile_filled();
        __syncthreads();
    };
    fill_keys(0);
    copy_async_commit(); /* with q */
    all_filled();
    if (AHEAD) fill_keys(1);
    fill_values(0);
    uint32_t q[QK / 16][4];
    int position[2], first[2];
#pragma unroll
    for (int t = 0; t < QK / 16; t++)
        fragment_a<ALONG_K>(q[t], q_tile, panel_bytes(QUERIES), (int)(threadIdx.x / WARP * 16), 16 * t);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int i = min(group + 16 * warp_of_group() + (int)threadIdx.x % WARP / 4 + 8 * half, seq - 1);
        position[half] = past + i;
        first[half] = first_key_of(p, b, i);
    }
    int group_last =
        past + min(group + GROUP_ROWS, seq) - 1; /* of the rows; masks are needed from there ... */
    int group_seen = past + group, group_first = first_key_of(p, b, min(group + GROUP_ROWS, seq) - 1);

    running<V> r = {{}, {-FLT_MAX, -FLT_MAX}, {}};
    float scores[2][1][KEYS / 8][4] = {}; /* of this block of keys, and of the next */
    if (AHEAD && group < seq) {
        products_begin(scores[0], q);
        fragment_product_start<KEYS, ALONG_K>(scores[0], q, keys_of_block(0), panel_bytes(KEYS));
        products_wait<0>(scores[0], q);
    }
    for (int pair = 0; pair < blocks; pair += 2) {
#pragma unroll
        for (int turn = 0; turn < 2; turn++) { /* by turns: nothing is moved from one to the other */
            if (turn && pair + turn == blocks) break;
            float(&score)[KEYS / 8][4] = scores[turn][0];
            float(&next)[1][KEYS / 8][4] = scores[AHEAD ? turn ^ 1 : turn];
            int key = first_key + (pair + turn) * KEYS;
            all_filled(); /* these keys and values, or, ahead, the next keys; the values before are read */
            fill_keys(pair + turn + 1 + AHEAD);
            fill_values(pair + turn + 1);
            if (group >= seq || key > group_last) continue;
            /* ahead, behind the last block that the group sees, of keys that do not matter */
            clear(next);
            products_begin(next, q);
            fragment_product_start<KEYS, ALONG_K>(next, q, keys_of_block(turn + AHEAD), panel_bytes(KEYS));
            if (!AHEAD) products_wait<0>(next, q);
            if (key + KEYS - 1 > group_seen || key < group_first) mask(score, key, position, first);
            softmax(score, r, p.scale * LOG2_E);
            uint32_t weight[KEYS / 16][4];
#pragma unroll
            for (int t = 0; t < KEYS / 16; t++) fragment_of_result(weight[t], score, t);
            products_begin(r.out, weight);
            fragment_product_start<V, ACROSS_K>(r.out, weight, values_of_block(turn), panel_bytes(KEYS));
            if (AHEAD) products_wait<0>(next, q, r.out, weight);
            else products_wait<0>(r.out, weight);
        }
    }
    copy_async_wait<0>();

    bool pairs = s.v % 2 == 0 && (uintptr_t)o % 8 == 0;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int i = group + 16 * warp_of_group() + (int)threadIdx.x % WARP / 4 + 8 * half;
        float sum = row_sum(r.sum[half]), by = 1 / sum;
        if (i >= seq) continue;
        int64_t at = result_row(s, b, i, h);
        if (threadIdx.x % 4 == 0) lse[at] = (float)(r.top[half] * LN_2 + log_d(sum));
#pragma unroll
        for (int j = 0; j < V / 8; j++) {
            int c = 8 * j + (int)threadIdx.x % 4 * 2;
            if (c < s.v)
                store_pair(o, p.rounded, at * s.v + c, r.out[0][j][2 * half] * by,
                           r.out[0][j][2 * half + 1] * by, c + 1 < s.v, pairs);
        }
    }
}

template <int QK, int V> static void run(kernel_context *ctx, const attention_call *p, float *o, float *lse) {
    constexpr int SHARED_BYTES =
        TILE_ALIGNMENT + tile_bytes(QUERIES, QK) + PLACES * (tile_bytes(KEYS, QK) + tile_bytes(KEYS, V));
    LAUNCH((forward_kernel<QK, V, (QK > 96)>), grid3(divide_up(p->s.seq, QUERIES), p->s.heads, p->s.batch),
           THREADS, SHARED_BYTES, ctx, *p, o, lse);
}

void attention_forward_bf16(kernel_context *ctx, const attention_call *p, float *o, float *lse) {
    ATTENTION_WIDTHS(run, p->s, ctx, p, o, lse);
}
