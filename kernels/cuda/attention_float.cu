/* Attention with float32 products, for any widths: a block has SIDE rows of one head and meets SIDE columns
 * at a time; thread (i, j) has their score, and columns j, j + SIDE, ... of row i's sums, which lie in shared
 * memory.  For verification, and for heads wider than the kernels on tensor cores are made for. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/math.cuh"

#include <float.h>

enum { SIDE = 16, THREADS = SIDE * SIDE };

/* The head that a block works on. */
typedef struct head {
    int64_t b, h, qk;
} head;

static __device__ __forceinline__ head head_of(const attention_floats &p) {
    return head{blockIdx.z, blockIdx.y, p.s.nope + p.s.rope};
}
static __device__ __forceinline__ int64_t first_of(const attention_floats &p, const head &x, int64_t i) {
    return p.first_key ? p.first_key[x.b * p.s.seq + i] : 0;
}

/* tile [SIDE][width] = rows [row, row + SIDE) of what of(row, column) gives, zero from `rows` on. */
template <class F>
static __device__ __forceinline__ void fill(float *tile, int64_t row, int64_t rows, int64_t width, F of) {
    for (int64_t at = threadIdx.x; at < SIDE * width; at += THREADS)
        tile[at] = row + at / width < rows ? of(row + at / width, at % width) : 0;
}
static __device__ __forceinline__ void fill_queries(float *tile, const attention_floats &p, const head &x,
                                                    int64_t row) {
    fill(tile, row, p.s.seq, x.qk,
         [&](int64_t i, int64_t c) { return p.q[result_row(p.s, x.b, i, x.h) * x.qk + c]; });
}
static __device__ __forceinline__ void fill_d_o(float *tile, const attention_floats &p, const head &x,
                                                int64_t row) {
    fill(tile, row, p.s.seq, p.s.v,
         [&](int64_t i, int64_t c) { return p.d_o[result_row(p.s, x.b, i, x.h) * p.s.v + c]; });
}
static __device__ __forceinline__ void fill_keys(float *tile, const attention_floats &p, const head &x,
                                                 int64_t row) {
    const attention_shape s = p.s;
    fill(tile, row, keys_of(s), x.qk, [&](int64_t i, int64_t c) {
        int64_t at = x.b * keys_of(s) + i;
        return c < s.nope ? p.kv[(at * s.heads + x.h) * (s.nope + s.v) + c]
                          : p.k_rope[at * p.ld_k_rope + c - s.nope];
    });
}
static __device__ __forceinline__ void fill_values(float *tile, const attention_floats &p, const head &x,
                                                   int64_t row) {
    const attention_shape s = p.s;
    fill(tile, row, keys_of(s), s.v, [&](int64_t i, int64_t c) {
        return p.kv[((x.b * keys_of(s) + i) * s.heads + x.h) * (s.nope + s.v) + s.nope + c];
    });
}

static __device__ __forceinline__ float dot(const float *a, const float *b, int64_t n) {
    float sum = 0;
    for (int64_t c = 0; c < n; c++) sum = fmaf(a[c], b[c], sum);
    return sum;
}

/* Columns j, j + SIDE, ... of row i: sum [SIDE][width] = factor * sum + weights [SIDE] of row i times rows of
 * x. */
static __device__ __forceinline__ void add_rows(float *sum, const float *weights, const float *x,
                                                int64_t width, float factor) {
    int64_t i = threadIdx.x / SIDE, j = threadIdx.x % SIDE;
    for (int64_t c = j; c < width; c += SIDE) {
        float total = sum[i * width + c] * factor;
        for (int n = 0; n < SIDE; n++) total = fmaf(weights[i * SIDE + n], x[n * width + c], total);
        sum[i * width + c] = total;
    }
}

static __global__ void __launch_bounds__(THREADS) forward_kernel(attention_floats p, float *o, float *lse) {
    kernel_begins();
    DYNAMIC_SHARED(float, q);
    SHARED(float, weight, [SIDE * SIDE]);
    const attention_shape s = p.s;
    const head x = head_of(p);
    float *k = q + SIDE * x.qk, *v = k + SIDE * x.qk, *out = v + SIDE * s.v;
    int64_t row = (int64_t)blockIdx.x * SIDE, i = threadIdx.x / SIDE, j = threadIdx.x % SIDE;
    int64_t mine = min(row + i, s.seq - 1), last = min(row + SIDE, s.seq) - 1;
    fill_queries(q, p, x, row);
    fill(out, 0, 0, s.v, [](int64_t, int64_t) { return 0.0f; });
    float top = -FLT_MAX, sum = 0;
    for (int64_t key = first_of(p, x, row) / SIDE * SIDE; key <= s.past + last; key += SIDE) {
        fill_keys(k, p, x, key);
        fill_values(v, p, x, key);
        __syncthreads();
        bool seen = key + j <= s.past + mine && key + j >= first_of(p, x, mine);
        float score = seen ? p.scale * dot(q + i * x.qk, k + j * x.qk, x.qk) : -INFINITY, most = top,
              added = 0;
        weight[threadIdx.x] = score;
        __syncthreads();
        for (int n = 0; n < SIDE; n++) most = fmaxf(most, weight[i * SIDE + n]);
        __syncthreads();
        weight[threadIdx.x] = exp_f(score - most);
        __syncthreads();
        for (int n = 0; n < SIDE; n++) added += weight[i * SIDE + n];
        float factor = exp_f(top - most);
        add_rows(out, weight, v, s.v, factor);
        sum = fmaf(sum, factor, added);
        top = most;
        __syncthreads();
    }
    if (row + i >= s.seq) return;
    int64_t at = result_row(s, x.b, row + i, x.h);
    for (int64_t c = j; c < s.v; c += SIDE) o[at * s.v + c] = out[i * s.v + c] / sum;
    if (j == 0) lse[at] = (float)(top + log_d(sum));
}

/* The weight exp(score - lse) of query i and key j of the sequence, 0 where it is not seen, and the gradient
 * of its score. */
static __device__ __forceinline__ float weight_of(const attention_floats &p, const head &x, int64_t i,
                                                  int64_t j, const float *q, const float *k, const float *v,
                                                  const float *d_o, const float *lse, const float *delta,
                                                  float *d_score) {
    *d_score = 0;
    if (i >= p.s.seq || j > i || j < first_of(p, x, i)) return 0;
    int64_t at = result_row(p.s, x.b, i, x.h);
    float weight = exp_f(p.scale * dot(q, k, x.qk) - lse[at]);
    *d_score = weight * (dot(d_o, v, p.s.v) - delta[at]);
    return weight;
}

static __global__ void __launch_bounds__(THREADS)
    dq_kernel(attention_floats p, float *dq, const float *lse, const float *delta) {
    kernel_begins();
    DYNAMIC_SHARED(float, q);
    SHARED(float, d_score, [SIDE * SIDE]);
    const attention_shape s = p.s;
    const head x = head_of(p);
    float *k = q + SIDE * x.qk, *sum = k + SIDE * x.qk, *d_o = sum + SIDE * x.qk, *v = d_o + SIDE * s.v;
    int64_t row = (int64_t)blockIdx.x * SIDE, i = threadIdx.x / SIDE, j = threadIdx.x % SIDE;
    int64_t last = min(row + SIDE, s.seq) - 1;
    fill_queries(q, p, x, row);
    fill_d_o(d_o, p, x, row);
    fill(sum, 0, 0, x.qk, [](int64_t, int64_t) { return 0.0f; });
    for (int64_t key = first_of(p, x, row) / SIDE * SIDE; key <= last; key += SIDE) {
        fill_keys(k, p, x, key);
        fill_values(v, p, x, key);
        __syncthreads();
        weight_of(p, x, row + i, key + j, q + i * x.qk, k + j * x.qk, v + j * s.v, d_o + i * s.v, lse, delta,
                  &d_score[threadIdx.x]);
        __syncthreads();
        add_rows(sum, d_score, k, x.qk, 1);
        __syncthreads();
    }
    if (row + i >= s.seq) return;
    for (int64_t c = j; c < x.qk; c += SIDE)
        dq[result_row(s, x.b, row + i, x.h) * x.qk + c] = p.scale * sum[i * x.qk + c];
}

/* Here a row is a key. */
static __global__ void __launch_bounds__(THREADS)
    dkv_kernel(attention_floats p, float *dkv, float *dk_rope_part, const float *lse, const float *delta) {
    kernel_begins();
    DYNAMIC_SHARED(float, k);
    SHARED(float, weight, [SIDE * SIDE]);
    SHARED(float, d_score, [SIDE * SIDE]);
    const attention_shape s = p.s;
    const head x = head_of(p);
    float *q = k + SIDE * x.qk, *dk = q + SIDE * x.qk, *v = dk + SIDE * x.qk, *d_o = v + SIDE * s.v,
          *dv = d_o + SIDE * s.v;
    int64_t row = (int64_t)blockIdx.x * SIDE, i = threadIdx.x / SIDE, j = threadIdx.x % SIDE;
    int64_t last = min(row + SIDE, s.seq) - 1;
    fill_keys(k, p, x, row);
    fill_values(v, p, x, row);
    fill(dk, 0, 0, x.qk, [](int64_t, int64_t) { return 0.0f; });
    fill(dv, 0, 0, s.v, [](int64_t, int64_t) { return 0.0f; });
    for (int64_t query = row; query < s.seq && first_of(p, x, query) <= last; query += SIDE) {
        fill_queries(q, p, x, query);
        fill_d_o(d_o, p, x, query);
        __syncthreads();
        weight[threadIdx.x] = weight_of(p, x, query + j, row + i, q + j * x.qk, k + i * x.qk, v + i * s.v,
                                        d_o + j * s.v, lse, delta, &d_score[threadIdx.x]);
        __syncthreads();
        add_rows(dv, weight, d_o, s.v, 1);
        add_rows(dk, d_score, q, x.qk, 1);
        __syncthreads();
    }
    if (row + i >= s.seq) return;
    int64_t at = result_row(s, x.b, row + i, x.h);
    for (int64_t c = j; c < x.qk; c += SIDE) {
        if (c < s.nope) dkv[at * (s.nope + s.v) + c] = p.scale * dk[i * x.qk + c];
        else dk_rope_part[at * s.rope + c - s.nope] = p.scale * dk[i * x.qk + c];
    }
    for (int64_t c = j; c < s.v; c += SIDE) dkv[at * (s.nope + s.v) + s.nope + c] = dv[i * s.v + c];
}

static launch_grid grid_of(attention_shape s) {
    return grid3(divide_up(s.seq, SIDE), s.heads, s.batch);
}
/* Bytes of so many tiles of q's width and of v's. */
static int64_t tiles(attention_shape s, int64_t qk, int64_t v) {
    return SIDE * (qk * (s.nope + s.rope) + v * s.v) * (int64_t)sizeof(float);
}

void attention_forward_float(kernel_context *ctx, const attention_floats *p, float *o, float *lse) {
    LAUNCH(forward_kernel, grid_of(p->s), THREADS, tiles(p->s, 2, 2), ctx, *p, o, lse);
}

void attention_dq_float(kernel_context *ctx, const attention_floats *p, float *dq, const float *lse,
                        const float *delta) {
    LAUNCH(dq_kernel, grid_of(p->s), THREADS, tiles(p->s, 3, 2), ctx, *p, dq, lse, delta);
}

void attention_dkv_float(kernel_context *ctx, const attention_floats *p, float *dkv, float *dk_rope_part,
                         const float *lse, const float *delta) {
    LAUNCH(dkv_kernel, grid_of(p->s), THREADS, tiles(p->s, 3, 3), ctx, *p, dkv, dk_rope_part, lse, delta);
}
