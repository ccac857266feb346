/* Attention: which kernels compute it, and their operands. */
#include "kernels/cuda/attention.cuh"

static bool on_tensor_cores(const kernel_context *ctx, attention_shape s) {
    return ctx->matrix->dtype == DTYPE_BF16 && s.nope + s.rope <= TENSOR_QK && s.v <= TENSOR_V;
}

/* Says that x [T, cols] is written: where the kernels on tensor cores leave it rounded, too. */
static bf16 *rounded_result(kernel_context *ctx, attention_shape s, const float *x, int64_t cols) {
    if (on_tensor_cores(ctx, s)) return wrote_operand(ctx, x, s.batch * s.seq, cols);
    wrote(ctx, x, floats(s.batch * s.seq, cols, cols));
    return NULL;
}

static float scale_of(attention_shape s) {
    return (float)(1 / sqrt((double)(s.nope + s.rope)));
}

/* Operands for attention_float.cu: as they are, or, in bf16, rounded copies in room. */
static attention_floats float_operands(kernel_context *ctx, attention_shape s, char *room, const float *q,
                                       const float *kv, const float *k_rope, int64_t ld_k_rope,
                                       const float *d_o, const int32_t *first_key) {
    attention_floats p = {s, q, kv, k_rope, d_o, ld_k_rope, first_key, scale_of(s)};
    if (ctx->matrix->dtype == DTYPE_FLOAT32) return p;
    int64_t rows = s.batch * s.seq, keys = s.batch * (s.past + s.seq);
    int64_t q_cols = s.heads * (s.nope + s.rope), kv_cols = s.heads * (s.nope + s.v), o_cols = s.heads * s.v;
    float *y = (float *)room;
    attention_round_floats(ctx, y, q, rows, q_cols, q_cols);
    p.q = y, y += rows * q_cols;
    attention_round_floats(ctx, y, kv, keys, kv_cols, kv_cols);
    p.kv = y, y += keys * kv_cols;
    attention_round_floats(ctx, y, k_rope, keys, s.rope, ld_k_rope);
    p.k_rope = y, p.ld_k_rope = s.rope, y += keys * s.rope;
    if (!d_o) return p;
    attention_round_floats(ctx, y, d_o, rows, o_cols, o_cols);
    p.d_o = y;
    return p;
}

static size_t operand_bytes(const kernel_context *ctx, attention_shape s, bool backward) {
    if (on_tensor_cores(ctx, s)) return attention_operand_bytes(s, backward);
    if (ctx->matrix->dtype == DTYPE_FLOAT32) return 0;
    int64_t query = s.heads * (s.nope + s.rope + (backward ? s.v : 0)),
            key = s.heads * (s.nope + s.v) + s.rope;
    return whole_256((size_t)(s.batch * (s.seq * query + (s.past + s.seq) * key)) * sizeof(float));
}

/* Of figures or delta [T, heads], and of each head's part of dk_rope [T, heads, rope]. */
static size_t delta_bytes(const kernel_context *ctx, attention_shape s) {
    if (on_tensor_cores(ctx, s))
        return whole_256((size_t)(s.batch * s.heads * s.seq) * sizeof(query_figures));
    return whole_256((size_t)(s.batch * s.seq * s.heads) * sizeof(float));
}
static size_t part_bytes(attention_shape s) {
    return whole_256((size_t)(s.batch * s.seq * s.heads * s.rope) * sizeof(float));
}
size_t attention_scratch_bytes(const kernel_context *ctx, attention_shape s) {
    return delta_bytes(ctx, s) + part_bytes(s) + operand_bytes(ctx, s, true);
}

extern "C" void cuda_attention_forward(kernel_context *ctx, attention_shape s, float *o, float *lse,
                                       const float *q, const float *kv, const float *k_rope,
                                       int64_t ld_k_rope, const int32_t *first_key) {
    if (!s.batch || !s.seq) return;
    char *room = matrix_scratch(ctx, operand_bytes(ctx, s, false));
    bf16 *rounded = rounded_result(ctx, s, o, s.heads * s.v);
    wrote(ctx, lse, floats(s.batch * s.seq, s.heads, s.heads));
    if (on_tensor_cores(ctx, s)) {
        attention_operands x = attention_round(ctx, s, room, q, kv, k_rope, ld_k_rope, NULL);
        attention_call p = {s, x, first_key, scale_of(s), rounded};
        attention_forward_bf16(ctx, &p, o, lse);
    } else {
        attention_floats p = float_operands(ctx, s, room, q, kv, k_rope, ld_k_rope, NULL, first_key);
        attention_forward_float(ctx, &p, o, lse);
    }
}

extern "C" void cuda_attention_backward(kernel_context *ctx, attention_shape s, float *dq, float *dkv,
                                        float *dk_rope, int64_t ld_dk_rope, const float *d_o, const float *o,
                                        const float *lse, const float *q, const float *kv,
                                        const float *k_rope, int64_t ld_k_rope, const int32_t *first_key) {
    if (!s.batch || !s.seq) return;
    bool in_bf16 = ctx->matrix->dtype == DTYPE_BF16;
    int64_t tokens = s.batch * s.seq;
    wrote(ctx, dq, floats(tokens, s.heads * (s.nope + s.rope), s.heads * (s.nope + s.rope)));
    wrote(ctx, dk_rope, floats(tokens, s.rope, ld_dk_rope));
    bf16 *rounded = rounded_result(ctx, s, dkv, s.heads * (s.nope + s.v));
    char *room = matrix_scratch(ctx, attention_scratch_bytes(ctx, s));
    float *part = (float *)(room + delta_bytes(ctx, s));
    char *operands = room + delta_bytes(ctx, s) + part_bytes(s);
    if (on_tensor_cores(ctx, s)) {
        query_figures *figures = (query_figures *)room;
        attention_figures(ctx, s, figures, lse, first_key, d_o, o);
        attention_operands x = attention_round(ctx, s, operands, q, kv, k_rope, ld_k_rope, d_o);
        attention_call p = {s, x, first_key, scale_of(s), rounded};
        attention_dq_bf16(ctx, &p, dq, figures);
        attention_dkv_bf16(ctx, &p, dkv, part, figures);
    } else {
        float *delta = (float *)room;
        attention_delta(ctx, s, delta, d_o, o, in_bf16);
        attention_floats p = float_operands(ctx, s, operands, q, kv, k_rope, ld_k_rope, d_o, first_key);
        attention_dq_float(ctx, &p, dq, lse, delta);
        attention_dkv_float(ctx, &p, dkv, part, lse, delta);
    }
    attention_fold_rope(ctx, s, dk_rope, ld_dk_rope, part);
}
