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
    int64_t rows, chunks, total; /* total: chunks of all rows of all heads */
} gathered;
enum { OPERANDS = 4 };
typedef struct gathered_list {
    gathered operand[OPERANDS];
} gathered_list;

/* A thread rounds a chunk. */
static __global__ void __launch_bounds__(THREADS)
    gather_kernel(const __grid_constant__ gathered_list list, int64_t heads) {
    kernel_begins();
    const gathered &g = list.operand[blockIdx.y];
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= g.total) return;
    int64_t at = i % g.chunks * CHUNK, row = i / g.chunks % g.rows, head = i / g.chunks / g.rows;
    int64_t b = head / heads, h = head % heads;
    const float *l = g.left.x + (b * g.rows + row) * g.left.ld + h * g.left.head_stride;
    const float *r = g.right.x + (b * g.rows + row) * g.right.ld + h * g.right.head_stride;
    float x[CHUNK];
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
    ((uint4 *)g.dst)[i] = make_uint4(bf16_pair(x[0], x[1]), bf16_pair(x[2], x[3]), bf16_pair(x[4], x[5]),
                                     bf16_pair(x[6], x[7]));
}

static gathered gather(bf16 *dst, attention_shape s, int64_t rows, strip left, strip right) {
    int64_t chunks = whole_chunks(left.width + right.width) / CHUNK;
    return gathered{dst, left, right, rows, chunks, s.batch * s.heads * rows * chunks};
}

static size_t head_bytes(attention_shape s, int64_t rows, int64_t width) {
    return whole_256((size_t)(s.batch * s.heads * rows * whole_chunks(width)) * sizeof(bf16));
}

size_t attention_operand_bytes(attention_shape s, bool backward) {
    int64_t keys = s.past + s.seq;
    return head_bytes(s, s.seq, s.nope + s.rope) + head_bytes(s, keys, s.nope + s.rope) +
           head_bytes(s, keys, s.v) + (backward ? head_bytes(s, s.seq, s.v) : 0);
}

attention_operands attention_round(kernel_context *ctx, attention_shape s, char *room, const float *q,
                                   const float *kv, const float *k_rope, int64_t ld_k_rope,
                                   const float *d_o) {
    int64_t keys = s.past + s.seq, qk = s.nope + s.rope;
    bf16 *q16 = (bf16 *)room, *k16 = (bf16 *)(room += head_bytes(s, s.seq, qk));
    bf16 *v16 = (bf16 *)(room += head_bytes(s, keys, qk)), *d_o16 = (bf16 *)(room + head_bytes(s, keys, s.v));
    strip nothing = strip_of(q, 0, 0, 0);
    gathered_list list = {{
        gather(q16, s, s.seq, strip_of(q, s.heads * qk, qk, qk), nothing),
        gather(k16, s, keys, strip_of(kv, s.heads * (s.nope + s.v), s.nope + s.v, s.nope),
               strip_of(k_rope, ld_k_rope, 0, s.rope)),
        gather(v16, s, keys, strip_of(kv + s.nope, s.heads * (s.nope + s.v), s.nope + s.v, s.v), nothing),
    }};
    int operands = OPERANDS - 1;
    if (d_o)
        list.operand[operands++] = gather(d_o16, s, s.seq, strip_of(d_o, s.heads * s.v, s.v, s.v), nothing);
    int64_t most = 0;
    for (int i = 0; i < operands; i++) most = max(most, list.operand[i].total);
    LAUNCH(gather_kernel, dim3((unsigned)divide_up(most, THREADS), (unsigned)operands), THREADS, 0, ctx, list,
           s.heads);
    return attention_operands{q16, k16, v16, d_o16, whole_chunks(qk), whole_chunks(s.v)};
}

static __device__ __forceinline__ float rounded(float x) {
    return __uint_as_float(bf16_pair(x, 0) << 16);
}

static __global__ void __launch_bounds__(THREADS)
    round_floats_kernel(float *y, const float *x, int64_t cols, int64_t ld, int64_t total) {
    kernel_begins();
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < total) y[i] = rounded(x[i / cols * ld + i % cols]);
}

void attention_round_floats(kernel_context *ctx, float *y, const float *x, int64_t rows, int64_t cols,
                            int64_t ld) {
    LAUNCH(round_floats_kernel, dim3((unsigned)divide_up(rows * cols, THREADS)), THREADS, 0, ctx, y, x, cols,
           ld, rows * cols);
}

/* A warp for each row of a head. */
static __global__ void __launch_bounds__(THREADS)
    delta_kernel(float *delta, const float *d_o, const float *o, int64_t rows, int64_t v, bool round) {
    kernel_begins();
    int64_t row = (int64_t)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    float sum = 0;
    for (int64_t c = threadIdx.x % WARP; row < rows && c < v; c += WARP) {
        float x = d_o[row * v + c];
        sum = fmaf(round ? rounded(x) : x, o[row * v + c], sum);
    }
    sum = warp_sum(sum);
    if (row < rows && threadIdx.x % WARP == 0) delta[row] = sum;
}

void attention_delta(kernel_context *ctx, attention_shape s, float *delta, const float *d_o, const float *o,
                     bool round) {
    int64_t rows = s.batch * s.seq * s.heads;
    LAUNCH(delta_kernel, dim3((unsigned)divide_up(rows, THREADS / WARP)), THREADS, 0, ctx, delta, d_o, o,
           rows, s.v, round);
}

static __global__ void __launch_bounds__(THREADS)
    fold_rope_kernel(float *dk_rope, int64_t ld, const float *part, int64_t heads, int64_t rope,
                     int64_t total) {
    kernel_begins();
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = i / rope, c = i % rope;
    if (i >= total) return;
    float sum = part[row * heads * rope + c];
    for (int64_t h = 1; h < heads; h++) sum += part[(row * heads + h) * rope + c];
    dk_rope[row * ld + c] = sum;
}

void attention_fold_rope(kernel_context *ctx, attention_shape s, float *dk_rope, int64_t ld,
                         const float *part) {
    int64_t total = s.batch * s.seq * s.rope;
    if (!total) return;
    LAUNCH(fold_rope_kernel, dim3((unsigned)divide_up(total, THREADS)), THREADS, 0, ctx, dk_rope, ld, part,
           s.heads, s.rope, total);
}
