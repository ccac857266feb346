#include "train/state.h"

#include <string.h>

#include "launch/host.h"
#include "launch/memory.h"
#include "model/init.h"
#include "train/memory_check.h"
#include "train/stages.h"
#include "train/step.h"

model_config_all state_model_config(const config *c, int64_t eos) {
    batch_shape most = stages_largest(c);
    return (model_config_all){.model = c->model,
                              .router = c->router,
                              .loss = c->loss,
                              .batch = most.micro_batch_size,
                              .seq = most.seq_len,
                              .chunks = c->parallel.chunks,
                              .eos = eos,
                              .slack = c->parallel.expert_capacity};
}

static void history_create(state *s) {
    int64_t n = s->c.model.n_routed_experts, layers = s->c.model.num_layers;
    s->history = mem_alloc((size_t)layers * sizeof *s->history, "controller history");
    for (int64_t l = 0; l < layers; l++) {
        bias_history *h = &s->history[l];
        h->e1_N = mem_alloc((size_t)n * sizeof *h->e1_N, "controller history");
        h->e2_N = mem_alloc((size_t)n * sizeof *h->e2_N, "controller history");
        h->waiting_N = mem_alloc((size_t)n * sizeof *h->waiting_N, "controller history");
    }
}

static void training_create(state *s) {
    const config *c = &s->c;
    gradients_create(&s->gradients, &s->model.p, &s->k, &s->mesh);
    optimizer_create(&s->optimizer, &c->optim, &s->model.p, s->model.weights, &s->gradients, &s->k, &s->mesh);
    optimizer_transfer(&s->optimizer, &c->transfer, c->model.hidden_size);
    history_create(s);
    s->figures = step_figures(&c->model);
    s->figure = mem_alloc((size_t)s->figures * sizeof(double), "figures");
    s->figure_sum = mem_alloc((size_t)s->figures * sizeof(double), "figures");
    s->row_sum = mem_alloc((size_t)c->model.hidden_size * sizeof(double), "figures");
    s->sample_loss = mem_alloc((size_t)stages_most_samples(c) * sizeof(double), "losses of samples");
    if (!s->k.host_memory) {
        s->router =
            mem_alloc((size_t)(experts_total(&c->model) * c->model.hidden_size) * sizeof(real), "figures");
        s->pieces =
            mem_alloc_pages((size_t)(3 * s->gradients.owned_count) * sizeof(real), "the state on the host");
    }
    s->figure_all = mem_alloc((size_t)(s->figures * s->mesh.ranks) * sizeof(double), "figures");
}

static void close_ranks(state *s) {
    comm_free(s->host);
    mesh_close(&s->mesh);
}

int state_create(state *s, const config *c, comm *world, int64_t eos, int training, error *e) {
    *s = (state){.run = c, .c = *c};
    int code = stages_check(c, comm_size(world), e);
    if (!code)
        code = mesh_open(&s->mesh, world, &c->parallel, stages_largest(c).micro_batches,
                         c->model.n_routed_experts, e);
    if (code) return code;
    s->host = comm_host(world);
    s->cores = host_cores(s->host);
    s->c.kernels.threads = c->parallel.threads ? (int)c->parallel.threads : s->cores;
    s->c.kernels.local_rank = comm_rank(s->host);
    code = kernels_open(&s->k, &s->c.kernels, e);
    if (comm_agree(world, e)) {
        if (!code) kernels_close(&s->k);
        close_ranks(s);
        return e->code;
    }
    if (!training) s->c.model.recompute = 1; /* no backward pass: layers may share one layer's memory */
    model_config_all m = state_model_config(&s->c, eos);
    if (!transport_choose(&s->k, world, (transport_kind)c->parallel.transport, s->transport, e))
        memory_check(s, &m, training, e);
    if (comm_agree(world, e)) {
        code = e->code;
        kernels_close(&s->k);
        close_ranks(s);
        return code;
    }
    model_create(&s->model, &m, &s->k, &s->mesh);
    if (training) training_create(s);
    state_enter(s, 0);
    return 0;
}

void state_enter(state *s, int64_t step) {
    int64_t stage = stage_of(s->run, step);
    batch_shape b = stage_batch(s->run, stage);
    s->stage = stage;
    s->c.train.seq_len = b.seq_len;
    s->c.train.micro_batches = b.micro_batches;
    s->c.train.micro_batch_size = b.micro_batch_size;
    mesh_batch(&s->mesh, b.micro_batches);
    model_rope(&s->model, s->c.model.rope_theta = b.rope_theta);
    s->model.mtp_on = s->model.p.mtp && step >= s->c.loss.mtp_start;
    s->optimizer.mtp_waits = s->model.p.mtp && !s->model.mtp_on;
}

void state_destroy(state *s) {
    for (int64_t l = 0; s->history && l < s->c.model.num_layers; l++) {
        mem_free(s->history[l].e1_N);
        mem_free(s->history[l].e2_N);
        mem_free(s->history[l].waiting_N);
    }
    mem_free(s->history);
    mem_free(s->figure);
    mem_free(s->figure_all);
    mem_free(s->figure_sum);
    mem_free(s->row_sum);
    mem_free(s->sample_loss);
    spikes_free(&s->spikes);
    mem_free(s->router);
    mem_free(s->pieces);
    optimizer_destroy(&s->optimizer);
    gradients_destroy(&s->gradients);
    model_destroy(&s->model);
    kernels_close(&s->k);
    close_ranks(s);
}

void state_initialise(state *s) {
    init_config init = transfer_init(&s->c.transfer, s->c.model.hidden_size, &s->c.init);
    init_weights(&s->model.p, &init, (uint64_t)s->c.train.seed, &s->k, s->model.weights,
                 s->c.kernels.threads);
}

void state_reset(state *s) {
    const model_config *c = &s->c.model;
    size_t n = (size_t)c->n_routed_experts;
    s->k.zero(s->k.ctx, s->gradients.owned_count, s->optimizer.m);
    s->k.zero(s->k.ctx, s->gradients.owned_count, s->optimizer.v);
    memset(s->model.router_bias_LE, 0, (size_t)(c->num_layers * experts_total(c)) * sizeof(real));
    for (int64_t l = 0; l < c->num_layers; l++) {
        bias_history *h = &s->history[l];
        memset(h->e1_N, 0, n * sizeof *h->e1_N);
        memset(h->e2_N, 0, n * sizeof *h->e2_N);
        memset(h->waiting_N, 0, n * sizeof *h->waiting_N);
        h->waiting_tokens = 0;
    }
    spikes_free(&s->spikes);
    state_set_lb_alpha(s, s->run->router.lb_alpha);
    s->step = s->position = s->optimizer.steps = s->optimizer.mtp_steps = 0;
}

void state_set_lb_alpha(state *s, double alpha) {
    s->c.router.lb_alpha = s->model.x.router.lb_alpha = alpha;
}
