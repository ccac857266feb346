#include "train/stages.h"

int64_t stage_of(const config *c, int64_t step) {
    int64_t stage = 0;
    while (stage < c->data.stages && c->data.stage[stage].after <= step) stage++;
    return stage;
}

batch_shape stage_batch(const config *c, int64_t stage) {
    const train_config *t = &c->train;
    if (!stage) return (batch_shape){t->seq_len, t->micro_batches, t->micro_batch_size, c->model.rope_theta};
    const data_stage *g = &c->data.stage[stage - 1];
    return (batch_shape){g->seq_len, g->micro_batches, g->micro_batch_size, g->rope_theta};
}

int64_t stage_tokens(const config *c, int64_t stage) {
    batch_shape b = stage_batch(c, stage);
    return b.micro_batches * b.micro_batch_size * b.seq_len;
}

double stages_tokens(const config *c, int64_t steps) {
    double tokens = 0;
    int64_t from = 0;
    for (int64_t stage = 0; from < steps; stage++) {
        int64_t end = stage < c->data.stages ? c->data.stage[stage].after : steps;
        if (end > steps) end = steps;
        tokens += (double)(end - from) * (double)stage_tokens(c, stage);
        from = end;
    }
    return tokens;
}

batch_shape stages_largest(const config *c) {
    batch_shape most = stage_batch(c, 0);
    int64_t tokens = 0;
    for (int64_t stage = 0; stage <= c->data.stages; stage++) {
        batch_shape b = stage_batch(c, stage);
        if (b.seq_len > most.seq_len) most.seq_len = b.seq_len;
        if (b.micro_batches > most.micro_batches) most.micro_batches = b.micro_batches;
        if (b.micro_batch_size * b.seq_len > tokens) tokens = b.micro_batch_size * b.seq_len;
    }
    most.micro_batch_size = (tokens + most.seq_len - 1) / most.seq_len;
    return most;
}

int64_t stages_most_samples(const config *c) {
    int64_t most = 0;
    for (int64_t stage = 0; stage <= c->data.stages; stage++) {
        batch_shape b = stage_batch(c, stage);
        if (b.micro_batches * b.micro_batch_size > most) most = b.micro_batches * b.micro_batch_size;
    }
    return most;
}

int64_t stages_row(const config *c) {
    int64_t most = 0;
    for (int64_t stage = 0; stage <= c->data.stages; stage++) {
        batch_shape b = stage_batch(c, stage);
        int64_t row = b.micro_batch_size * (b.seq_len + 2);
        if (row > most) most = row;
    }
    return most;
}

int stages_check(const config *c, int64_t ranks, error *e) {
    mesh m;
    for (int64_t stage = 0; stage <= c->data.stages; stage++)
        if (mesh_plan(&m, ranks, &c->parallel, stage_batch(c, stage).micro_batches, c->model.n_routed_experts,
                      e))
            return stage ? error_within(e, "data.stages: the stage after step %lld",
                                        (long long)c->data.stage[stage - 1].after)
                         : e->code;
    return 0;
}
