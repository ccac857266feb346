#include "model/model.h"

size_t model_backend_bytes(const model_config_all *c, const kernels *k, const mesh *mesh, int64_t weights) {
    if (!k->own_bytes) return 0;
    const model_config *m = &c->model;
    const int64_t heads = m->num_attention_heads, h = m->hidden_size, tokens = c->batch * c->seq;
    const exchange_shape e = model_exchange_shape(c, mesh);
    const attention_shape s = {.batch = c->batch,
                               .seq = c->seq,
                               .heads = heads,
                               .nope = m->qk_nope_head_dim,
                               .rope = m->qk_rope_head_dim,
                               .v = m->v_head_dim};
    const int64_t read[] = {
        tokens * 2 * m->ffn_hidden_size,
        tokens * 2 * h, /* of MTP */
        tokens * heads * (s.nope + s.rope),
        tokens * heads * (s.nope + s.v),
        e.capacity * 2 * m->expert_ffn_hidden_size,
        e.capacity * h,
        (tokens < k->head_rows ? tokens : k->head_rows) * m->vocab_size,
    };
    int64_t operand = 0;
    for (size_t i = 0; i < sizeof read / sizeof *read; i++)
        if (read[i] > operand) operand = read[i];
    return k->own_bytes(k->ctx, weights, operand, s);
}
