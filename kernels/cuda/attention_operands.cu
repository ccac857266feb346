/* What attention needs before and after its kernels: rounded operands head by head, delta, the sum over
 * heads. */
#include "kernels/cuda/attention.cuh"

enum { THREADS = 256 };

/* Columns [0, width) of the rows of one operand: element c of row i of head h of sequence b is at
 * x + (b * rows + i) * ld + h * head_stride + c. */
typedef struct strip {
    const float *x;
    int64_t ld, head_stride, width;
    bool whole; /* can be read 16 bytes at a time, from multiples of 4 on */
} strip;

static strip strip_of(const float *x, int64_t ld, int64_t head_stride, int64_t width) {
    return strip{x, ld, head_stride, width, aligned16(x, ld) && head_stride % 4 == 0};
}

/* One operand: dst [batch, heads, rows, chunks of CHUNK] = the columns of `left`, then those of `right`, then
 * zeros. */
typedef struct gathered {
    bf16 *dst;
    strip left, right;
    unsigned rows, chunks;
} gathered;
enum { OPERANDS = 4 };
typedef struct gathered_list {
    gathered operand[OPERANDS];
    unsigned operands;
} gathered_list;

/* A thread rounds a chunk; x: of one head, y: the head, z: sequence and operand. */
static __global__ void __launch_bounds__(THREADS) gather_kernel(const __grid_constant__ gathered_list list) {
    kernel_begins();
    const gathered &g = list.operand[blockIdx.z % list.operands];
    unsigned i = blockIdx.x * THREADS + threadIdx.x, row = i / g.chunks;
    if (row >= g.rows) return;
    int64_t b = blockIdx.z / list.operands, h = blockIdx.y, at = (int64_t)(i % g.chunks) * CHUNK;
    const float *l = g.left.x + (b * g.rows + row) * g.left.ld + h * g.left.head_stride;
    const float *r = g.right.x + (b * g.rows + row) * g.right.ld + h * g.right.head_stride;
    __align__(16) float x[CHUNK];
    if (at + CHUNK <= g.left.width && g.left.whole) {
        *(float4 *)x = *(const float4 *)(l + at);
        *(float4 *)(x + 4) = *(const float4 *)(l + at + 4);
    } else {
#pragma unroll
        for (int c = 0; c < CHUNK; c++)
            x[c] = at + c < g.left.width                   ? l[at + c]
                   : at + c < g.left.width + g.right.width ? r[at + c - g.left.width]
                                                           : 0;
    }
    uint4 *dst = (uint4 *)g.dst + (b * gridDim.y + h) * g.rows * g.chunks + i;
    *dst = make_uint4(bf16_pair(x[0], x[1]), bf16_pair(x[2], x[3]), bf16_pair(x[4], x[5]),
                      bf16_pair(x[6], x[7]));
}

static gathered gather(bf16 *dst, int64_t rows, int width, strip left, strip right) {
    return gathered{dst, left, right, (unsigned)rows, (unsigned)(width / CHUNK)};
}

static size_t head_bytes(attention_shape s, int64_t rows, int width) {
    return whole_256((size_t)(s.batch * s.heads * rows * width) * sizeof(bf16));
}

size_t attention_operand_bytes(attention_shape s, bool backward) {
    int64_t keys = s.past + s.seq;
    head_widths w = widths_of(s);
    return head_bytes(s, s.seq, w.qk) + head_bytes(s, keys, w.qk) + head_bytes(s, keys, w.v) +
           (backward ? head_bytes(s, s.seq, w.v) : 0);
}

attention_operands attention_round(kernel_context *ctx, attention_shape s, char *room, const float *q,
                                   const float *kv, const float *k_rope, int64_t ld_k_rope,
                                   const float *d_o) {
    int64_t keys = s.past + s.seq, qk = s.nope + s.rope;
    head_widths w = widths_of(s);
    bf16 *q16 = (bf16 *)room, *k16 = (bf16 *)(room += head_bytes(s, s.seq, w.qk));
    bf16 *v16 = (bf16 *)(room += head_bytes(s, keys, w.qk)),
         *d_o16 = (bf16 *)(room + head_bytes(s, keys, w.v));
    strip nothing = strip_of(q, 0, 0, 0);
    gathered_list list = {
        {gather(q16, s.seq, w.qk, strip_of(q, s.heads * qk, qk, qk), nothing),
         gather(k16, keys, w.qk, strip_of(kv, s.heads * (s.nope + s.v), s.nope + s.v, s.nope),
                strip_of(k_rope, ld_k_rope, 0, s.rope)),
         gather(v16, keys, w.v, strip_of(kv + s.nope, s.heads * (s.nope + s.v), s.nope + s.v, s.v), nothing)},
        OPERANDS - 1};
    if (d_o)
        list.operand[list.operands++] =
            gather(d_o16, s.seq, w.v, strip_of(d_o, s.heads * s.v, s.v, s.v), nothing);
    LAUNCH(gather_kernel, grid3(divide_up(keys * w.qk / CHUNK, THREADS), s.heads, s.batch * list.operands),
           THREADS, 0, ctx, list);
    return attention_operands{q16, k16, v16, d_o16};
}

static __device__ __forceinline__ float rounded(float x) {
    return __uint_as_float(bf16_pair(x, 0) << 16);
}

static __global__ void __launch_bounds__(THREADS)
    round_floats_kernel(float *y, const float *x, unsigned blocks_per_row, int64_t cols, int64_t ld) {
    kernel_begins();
    int64_t row = blockIdx.x / blocks_per_row,
            c = (int64_t)(blockIdx.x % blocks_per_row) * THREADS + threadIdx.x;
    if (c < cols) y[row * cols + c] = rounded(x[row * ld + c]);
}

void attention_round_floats(kernel_context *ctx, float *y, const float *x, int64_t rows, int64_t cols,
                            int64_t ld) {
    int64_t per_row = divide_up(cols, THREADS);
    if (cols)
        LAUNCH(round_floats_kernel, grid3(rows * per_row), THREADS, 0, ctx, y, x, (unsigned)per_row, cols,
               ld);
}

/* A block for each token, a warp for each head in turn.  Either of delta and figures is NULL. */
static __global__ void __launch_bounds__(THREADS)
    delta_kernel(attention_shape s, float *delta, query_figures *figures, const float *lse,
                 const int32_t *first_key, const float *d_o, const float *o, bool round) {
    kernel_begins();
    unsigned b = blockIdx.x / (unsigned)s.seq, i = blockIdx.x % (unsigned)s.seq;
    int first = first_key ? first_key[blockIdx.x] : 0;
    for (int64_t h = threadIdx.x / WARP; h < s.heads; h += THREADS / WARP) {
        int64_t row = result_row(s, b, i, h);
        float sum = 0;
        for (int64_t c = threadIdx.x % WARP; c < s.v; c += WARP) {
            float x = d_o[row * s.v + c];
            sum = fmaf(round ? rounded(x) : x, o[row * s.v + c], sum);
        }
        sum = warp_sum(sum);
        if (threadIdx.x % WARP) continue;
        if (delta) delta[row] = sum;
        else figures[(b * s.heads + h) * s.seq + i] = query_figures{lse[row] * LOG2_E, sum, first};
    }
}

void attention_delta(kernel_context *ctx, attention_shape s, float *delta, const float *d_o, const float *o,
                     bool round) {
    LAUNCH(delta_kernel, grid3(s.batch * s.seq), THREADS, 0, ctx, s, delta, nullptr, nullptr, nullptr, d_o, o,
           round);
}

void attention_figures(kernel_context *ctx, attention_shape s, query_figures *figures, const float *lse,
                       const int32_t *first_key, const float *d_o, const float *o) {
    LAUNCH(delta_kernel, grid3(s.batch * s.seq), THREADS, 0, ctx, s, nullptr, figures, lse, first_key, d_o, o,
           true);
}

static __global__ void __launch_bounds__(THREADS)
    fold_rope_kernel(float *dk_rope, int64_t ld, const float *part, int64_t heads, unsigned rope,
                     unsigned total) {
    kernel_begins();
    unsigned i = blockIdx.x * THREADS + threadIdx.x, c = i % rope;
    int64_t row = i / rope;
    if (i >= total) return;
    float sum = part[row * heads * rope + c];
    for (int64_t h = 1; h < heads; h++) sum += part[(row * heads + h) * rope + c];
    dk_rope[row * ld + c] = sum;
}

void attention_fold_rope(kernel_context *ctx, attention_shape s, float *dk_rope, int64_t ld,
                         const float *part) {
    int64_t total = s.batch * s.seq * s.rope;
    if (!total) return;
    REQUIRE(total <= INT32_MAX); /* part has 8 GiB and more then */
    LAUNCH(fold_rope_kernel, grid3(divide_up(total, THREADS)), THREADS, 0, ctx, dk_rope, ld, part, s.heads,
           (unsigned)s.rope, (unsigned)total);
}
