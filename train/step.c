#include "train/step.h"

#include <math.h>
#include <string.h>

#include "model/balance.h"
#include "train/figures.h"

/* Forward and backward of one micro-batch on every rank; gradients are on their way when it returns. */
static void turn_run(state *s, int64_t turn, const int32_t *tokens) {
    model *m = &s->model;
    context *x = &m->x;
    gradients *g = &s->gradients;
    const config *c = &s->c;
    int64_t layers = c->model.num_layers;
    int class_of[16384]; /* of each source of my expert group in this turn: no more than there are experts */
    REQUIRE(s->mesh.expert_parallel <= 16384);
    for (int i = 0; i < s->mesh.expert_parallel; i++)
        class_of[i] = mesh_class(
            &s->mesh, mesh_micro_batch(&s->mesh, turn, s->mesh.group * s->mesh.expert_parallel + i));

    gradients_progress(g); /* who is early need not wait for the last turn's until this rank's backward */
    m->x.accumulate = gradients_accumulate(g, turn);
    TRACED(x, "forward",
           model_forward(m, tokens, c->train.micro_batch_size, c->train.seq_len,
                         1.0 / (double)c->train.micro_batches));

    trace *spans = comm_trace(s->mesh.world);
    double began = trace_begin(spans);
    s->sdc.recheck.layer = sdc_layer(s, turn); /* its backward is computed twice and compared */
    real *embedding = gradients_embedding(g, turn), *head = gradients_buffer(g, bucket_head(&m->p), turn);
    real *mtp = m->mtp_on ? gradients_buffer(g, bucket_mtp(&m->p), turn) : NULL;
    TRACED(x, "head", model_head_backward(m, embedding, head, mtp));
    gradients_fold(g, bucket_head(&m->p), turn);
    if (mtp) gradients_fold(g, bucket_mtp(&m->p), turn);
    for (int64_t l = layers - 1; l >= 0; l--) {
        real *dense = gradients_buffer(g, BUCKET_LAYER_0 + l, turn);
        model_layer_backward(m, l, dense, gradients_classes(g, l), class_of);
        gradients_fold(g, BUCKET_LAYER_0 + l, turn);
    }
    model_embedding_backward(m, embedding);
    gradients_fold(g, BUCKET_EMBEDDING, turn);
    trace_end(spans, "backward", -1, began);

    int64_t samples = c->train.micro_batch_size, v = mesh_micro_batch(&s->mesh, turn, s->mesh.rank);
    memcpy(s->sample_loss + v * samples, m->sample_loss, (size_t)samples * sizeof *m->sample_loss);
}

/* The bias controller acts after the optimizer, on the counts of the whole step. */
static void control_biases(state *s, const step_result *r) {
    const model_config *c = &s->c.model;
    int64_t n = experts_total(c),
            tokens = s->c.train.micro_batches * s->c.train.micro_batch_size * s->c.train.seq_len;
    for (int64_t l = 0; l < c->num_layers; l++)
        bias_step(c, &s->c.router, s->step, r->count + l * n, tokens, &s->history[l],
                  s->model.router_bias_LE + l * n);
}

/* The coefficient of the load-balance loss that the next step has, where it is to keep R_g at a target. */
static void control_lb_alpha(state *s, const step_result *r) {
    double most = 0;
    for (int64_t l = 0; l < s->c.model.num_layers; l++)
        if (r->router_grad_ratio[l] > most) most = r->router_grad_ratio[l];
    state_set_lb_alpha(s, balance_step(&s->c.router, most));
}

void step_run(state *s, const int32_t *tokens, step_result *r) {
    const config *c = &s->c;
    const context *x = &s->model.x; /* for the timeline */
    int64_t stride = c->train.micro_batch_size * (c->train.seq_len + 2);

    sdc_begin(s); /* is the state what the last step left? */
    memset(s->sample_loss, 0,
           (size_t)(c->train.micro_batches * c->train.micro_batch_size) * sizeof *s->sample_loss);
    gradients_begin(&s->gradients);
    figures_begin(s);
    const kernels *k = &s->k;
    k->hold(k->ctx, s->model.p.weights, s->model.weights); /* until the update */
    for (int64_t turn = 0; turn < s->mesh.turns; turn++) {
        TRACED(x, "micro-batch", turn_run(s, turn, tokens + turn * stride));
        figures_fold(s);
    }
    k->hold(k->ctx, 0, NULL);
    TRACED(x, "last folds", gradients_end_step(&s->gradients));

    gradient_figures f;
    TRACED(x, "gradient norm", f = optimizer_gradient(&s->optimizer));
    figures_read(s, r);
    r->grad_norm = f.norm;
    r->grad_rms_min = f.rms_min;
    r->grad_rms_max = f.rms_max;
    memcpy(r->grad_rms_min_group, f.rms_min_group, sizeof r->grad_rms_min_group);
    r->lr = optimizer_learning_rate(&c->optim, s->step);
    r->finite = f.finite && isfinite(r->loss);
    if (r->finite) {
        TRACED(x, "optimizer", optimizer_update(&s->optimizer, r->lr, f.norm));
        control_biases(s, r);
        control_lb_alpha(s, r);
    }
    sdc_end(s, r->finite);
    figures_read_biases(s, r);
    s->step++;
    s->position += c->train.micro_batches * c->train.micro_batch_size;
}
