/* What attention's kernels share.
 *
 * Blocks of KEYS keys, counted from key 0 of the sequence, meet tiles of queries.  A row is a
 * position in its sequence; the first query stands at `past`. */
#ifndef CARACAL_KERNELS_CUDA_ATTENTION_CUH
#define CARACAL_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/matrix.cuh"

enum { KEYS = 64 }; /* decides bits */

/* One head's operands for the tensor cores: [batch, heads, rows, whole_chunks(width)] each, keys with k_rope
 * behind k_nope.  d_o is there in the backward only. */
typedef struct attention_operands {
    const bf16 *q, *k, *v, *d_o;
    int64_t ld_qk, ld_v; /* between rows */
} attention_operands;

/* Largest widths of keys and values for which there are kernels on tensor cores; wider heads are computed by
 * those of attention_float.cu from rounded operands. */
enum { TENSOR_QK = 192, TENSOR_V = 128 };

typedef struct attention_call {
    attention_shape s;
    attention_operands x;
    const int32_t *first_key; /* NULL: 0 */
    float scale;              /* of scores */
    bf16 *rounded;            /* where o, or dkv, is left rounded too; NULL: nowhere (wrote_operand) */
} attention_call;

static __device__ __forceinline__ int64_t keys_of(attention_shape s) {
    return s.past + s.seq;
}
/* The first key that query i of sequence b may see. */
static __device__ __forceinline__ int64_t first_key_of(const attention_call &p, int64_t b, int64_t i) {
    return p.first_key ? p.first_key[b * p.s.seq + i] : 0;
}

/* Starts to fill a tile [ROWS, COLUMNS] with rows [row, ...) of one head of an operand that has `rows` of
 * them. */
template <int ROWS, int COLUMNS, int THREADS>
static __device__ __forceinline__ void load_rows(char *tile, const bf16 *x, int64_t ld, int64_t row,
                                                 int64_t rows) {
    tile_load<ROWS, COLUMNS, THREADS>(tile, x + row * ld, ld, rows - row, ld);
}

/* Rows of a head's results: [T, heads, width] each. */
static __device__ __forceinline__ int64_t result_row(attention_shape s, int64_t b, int64_t i, int64_t h) {
    return (b * s.seq + i) * s.heads + h;
}

/* Element i of a result, and of its rounded copy. */
static __device__ __forceinline__ void store_result(float *to, bf16 *rounded, int64_t i, float x) {
    to[i] = x;
    if (rounded) rounded[i] = (bf16)bf16_pair(x, 0);
}

/* ---- attention_operands.cu ---- */

/* Bytes of rounded operands, of q [T, ...] or of keys and values. */
size_t attention_operand_bytes(attention_shape s, bool backward);
/* Rounds q, keys, values and, in the backward, d_o into room. */
attention_operands attention_round(kernel_context *ctx, attention_shape s, char *room, const float *q,
                                   const float *kv, const float *k_rope, int64_t ld_k_rope, const float *d_o);
/* y = x [rows, cols] (ld), each element rounded to bf16. */
void attention_round_floats(kernel_context *ctx, float *y, const float *x, int64_t rows, int64_t cols,
                            int64_t ld);
/* delta [T, heads] = <d_o, o>; in bf16 with d_o rounded, as the products that it is compared with read it. */
void attention_delta(kernel_context *ctx, attention_shape s, float *delta, const float *d_o, const float *o,
                     bool rounded);
/* dk_rope [T, rope] = sum over heads ascending of part [T, heads, rope] */
void attention_fold_rope(kernel_context *ctx, attention_shape s, float *dk_rope, int64_t ld,
                         const float *part);

/* ---- attention_forward.cu, attention_dq.cu, attention_dkv.cu: tensor cores ---- */

void attention_forward_bf16(kernel_context *ctx, const attention_call *p, float *o, float *lse);
void attention_dq_bf16(kernel_context *ctx, const attention_call *p, float *dq, const float *lse,
                       const float *delta);
/* dk_rope_part [T, heads, rope] */
void attention_dkv_bf16(kernel_context *ctx, const attention_call *p, float *dkv, float *dk_rope_part,
                        const float *lse, const float *delta);

/* Calls run<QK, V>(...) with the smallest widths that there are kernels for. */
#define ATTENTION_WIDTHS(run, s, ...)                                                                        \
    do {                                                                                                     \
        int64_t qk = (s).nope + (s).rope, v = (s).v;                                                         \
        if (qk <= 64 && v <= 64) run<64, 64>(__VA_ARGS__);                                                   \
        else if (qk <= 96 && v <= 64) run<96, 64>(__VA_ARGS__);                                              \
        else if (qk <= 128) run<128, 128>(__VA_ARGS__);                                                      \
        else run<TENSOR_QK, TENSOR_V>(__VA_ARGS__);                                                          \
    } while (0)

/* ---- attention_float.cu: any widths ---- */

typedef struct attention_floats {
    attention_shape s;
    const float *q, *kv, *k_rope, *d_o;
    int64_t ld_k_rope;
    const int32_t *first_key;
    float scale;
} attention_floats;

void attention_forward_float(kernel_context *ctx, const attention_floats *p, float *o, float *lse);
void attention_dq_float(kernel_context *ctx, const attention_floats *p, float *dq, const float *lse,
                        const float *delta);
void attention_dkv_float(kernel_context *ctx, const attention_floats *p, float *dkv, float *dk_rope_part,
                         const float *lse, const float *delta);

#endif
