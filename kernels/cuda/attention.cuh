/* What attention's kernels share.
 *
 * Blocks of KEYS keys, counted from key 0 of the sequence, meet tiles of queries.  A row is a
 * position in its sequence; the first query stands at `past`. */
#ifndef CARACAL_KERNELS_CUDA_ATTENTION_CUH
#define CARACAL_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/matrix.cuh"

enum { KEYS = 64 }; /* decides bits */

/* Widths of keys and values that there are kernels on tensor cores for; wider heads are computed by those of
 * attention_float.cu from rounded operands. */
enum { TENSOR_QK = 192, TENSOR_V = 128 };
typedef struct head_widths {
    int qk, v;
} head_widths;
/* The smallest of them that hold the heads of s. */
static inline head_widths widths_of(attention_shape s) {
    int64_t qk = s.nope + s.rope;
    if (qk <= 64 && s.v <= 64) return head_widths{64, 64};
    if (qk <= 96 && s.v <= 64) return head_widths{96, 64};
    if (qk <= 128) return head_widths{128, 128};
    return head_widths{TENSOR_QK, TENSOR_V};
}

/* One head's operands for the tensor cores: [batch, heads, rows, widths_of] each, keys with k_rope behind
 * k_nope, zeros behind both.  d_o is there in the backward only. */
typedef struct attention_operands {
    const bf16 *q, *k, *v, *d_o;
} attention_operands;

/* What the backward on tensor cores reads of each query of a head, [batch, heads, seq]: in one copy. */
typedef struct __align__(16) query_figures {
    float lse, delta; /* lse in units of log2(e) */
    int first;        /* key that it sees */
}
query_figures;
static const float LOG2_E = 1.44269504f;

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
static __device__ __forceinline__ int first_key_of(const attention_call &p, int64_t b, int64_t i) {
    return p.first_key ? p.first_key[b * p.s.seq + i] : 0;
}

/* Starts to fill a tile [ROWS, COLUMNS] with rows [row, ...) of one head of an operand that has `rows` of
 * them. */
template <int ROWS, int COLUMNS, int THREADS>
static __device__ __forceinline__ void load_rows(char *tile, const bf16 *x, int row, int rows) {
    tile_load<ROWS, COLUMNS, THREADS>(tile, x + (int64_t)row * COLUMNS, COLUMNS, rows - row, COLUMNS);
}

/* Rows of a head's results: [T, heads, width] each. */
static __device__ __forceinline__ int64_t result_row(attention_shape s, int64_t b, int64_t i, int64_t h) {
    return (b * s.seq + i) * s.heads + h;
}

/* Elements i and, if there are two, i + 1 of a result and of its rounded copy (NULL: none).  `pairs`: all
 * such i are even, and `to` is a multiple of 8 bytes. */
static __device__ __forceinline__ void store_pair(float *to, bf16 *rounded, int64_t i, float x, float y,
                                                  bool two, bool pairs) {
    if (pairs && two) {
        store8(to + i, make_float2(x, y));
        if (rounded) *(uint32_t *)(rounded + i) = bf16_pair(x, y);
        return;
    }
    to[i] = x;
    if (two) to[i + 1] = y;
    if (rounded) rounded[i] = (bf16)bf16_pair(x, 0);
    if (rounded && two) rounded[i + 1] = (bf16)bf16_pair(y, 0);
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
/* The same in bf16, with lse [T, heads] and first_key [T] (NULL: 0), as figures. */
void attention_figures(kernel_context *ctx, attention_shape s, query_figures *figures, const float *lse,
                       const int32_t *first_key, const float *d_o, const float *o);
/* dk_rope [T, rope] = sum over heads ascending of part [T, heads, rope] */
void attention_fold_rope(kernel_context *ctx, attention_shape s, float *dk_rope, int64_t ld,
                         const float *part);

/* ---- attention_forward.cu, attention_dq.cu, attention_dkv.cu: tensor cores ---- */

void attention_forward_bf16(kernel_context *ctx, const attention_call *p, float *o, float *lse);
void attention_dq_bf16(kernel_context *ctx, const attention_call *p, float *dq, const query_figures *figures);
/* dk_rope_part [T, heads, rope] */
void attention_dkv_bf16(kernel_context *ctx, const attention_call *p, float *dkv, float *dk_rope_part,
                        const query_figures *figures);

/* Calls run<QK, V>(...) with the widths of s. */
#define ATTENTION_WIDTHS(run, s, ...)                                                                        \
    do {                                                                                                     \
        int qk = widths_of(s).qk;                                                                            \
        if (qk == 64) run<64, 64>(__VA_ARGS__);                                                              \
        else if (qk == 96) run<96, 64>(__VA_ARGS__);                                                         \
        else if (qk == 128) run<128, 128>(__VA_ARGS__);                                                      \
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
