/* How many bytes of the backend a model takes beside its weights. */
#include "model/model.h"

static model_config_all worst_of(const model_config_all *c) {
    model_config_all all = *c;
    all.slack = 1e9; /* exchange_shape_of cuts it to what can come */
    return all;
}

model_config_all model_room(const model_config_all *c, const kernels *k, const mesh *mesh) {
    model_config_all worst = worst_of(c);
    return model_bytes_of(&worst, k, mesh) <= model_bytes_of(c, k, mesh) ? worst : *c;
}

size_t model_activation_bytes(const model_config_all *c, const kernels *k, const mesh *mesh) {
    model_config_all room = model_room(c, k, mesh);
    return model_bytes_of(&room, k, mesh);
}

size_t model_worst_bytes(const model_config_all *c, const kernels *k, const mesh *mesh) {
    model_config_all worst = worst_of(c);
    return model_bytes_of(&worst, k, mesh);
}

size_t model_backend_bytes(const model_config_all *c, const kernels *k, const mesh *mesh, int64_t weights) {
    if (!k->own_bytes) return 0;
    const model_config *m = &c->model;
    const int64_t heads = m->num_attention_heads, h = m->hidden_size, tokens = c->batch * c->seq;
    const model_config_all room = model_room(c, k, mesh);
    const exchange_shape e = model_exchange_shape(&room, mesh);
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
