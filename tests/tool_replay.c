/* replay CASE_DIR OUT_DIR [--device=ref|cpu|check:cpu] [--isa=..] [--threads=N] [--chunks=N]
 * [--expert-parallel=N]
 *        [--replicas=N] [--recompute] [--expert-capacity=X] [--transport=nccl|host]
 *
 * Runs a golden case (tests/golden/NAME, made by an independent float64 program) through the production
 * training step and writes OUT_DIR/steps.json (shaped like the case's expected.json), grads.safetensors (the
 * first step's gradients before clipping and the first micro-batch's logits) and final.safetensors.  Alone or
 * under mpirun.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ckpt/safetensors.h"
#include "kernels/twin.h"
#include "train/step.h"

static double number(const json_t *j, const char *key, double fallback) {
    const json_t *v = json_object_get(j, key);
    return v ? json_number_value(v) : fallback;
}
static int64_t whole(const json_t *j, const char *key, int64_t fallback) {
    return (int64_t)number(j, key, (double)fallback);
}

static json_t *read_json(const char *dir, const char *file) {
    char path[4096];
    json_error_t error;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    json_t *j = json_load_file(path, 0, &error);
    if (!j) FAULT(EXIT_CORRUPT, "%s: %s", path, error.text);
    return j;
}

static void read_config(config *c, const json_t *j) {
    const char *input = json_string_value(json_object_get(j, "moe_input"));
    *c = (config){0};
    c->model =
        (model_config){.vocab_size = whole(j, "vocab_size", 0),
                       .hidden_size = whole(j, "hidden_size", 0),
                       .num_layers = whole(j, "num_layers", 0),
                       .num_attention_heads = whole(j, "num_attention_heads", 0),
                       .q_lora_rank = whole(j, "q_lora_rank", 0),
                       .kv_lora_rank = whole(j, "kv_lora_rank", 0),
                       .qk_nope_head_dim = whole(j, "qk_nope_head_dim", 0),
                       .qk_rope_head_dim = whole(j, "qk_rope_head_dim", 0),
                       .v_head_dim = whole(j, "v_head_dim", 0),
                       .ffn_hidden_size = whole(j, "ffn_hidden_size", 0),
                       .expert_ffn_hidden_size = whole(j, "expert_ffn_hidden_size", 0),
                       .n_routed_experts = whole(j, "n_routed_experts", 0),
                       .zero_expert_num = whole(j, "zero_expert_num", 0),
                       .moe_topk = whole(j, "moe_topk", 0),
                       .routed_scaling_factor = number(j, "routed_scaling_factor", 1),
                       .rms_norm_eps = number(j, "rms_norm_eps", 1e-5),
                       .latent_norm_eps = number(j, "latent_norm_eps", 1e-6),
                       .rope_theta = number(j, "rope_theta", 1e4),
                       .mla_scale_q_lora = 1,
                       .mla_scale_kv_lora = 1,
                       .moe_input = input && !strcmp(input, "sequential") ? MOE_SEQUENTIAL : MOE_SHORTCUT};
    c->router = (router_config){.expected_ffn_experts = number(j, "expected_ffn_experts", 0),
                                .lb_groups = whole(j, "lb_groups", 1),
                                .lb_alpha = number(j, "lb_alpha", 0),
                                .bias_rate = number(j, "bias_rate", 0),
                                .bias_kp = number(j, "bias_kp", 0),
                                .bias_ki = number(j, "bias_ki", 0),
                                .bias_kd = number(j, "bias_kd", 0),
                                .bias_decay_steps = whole(j, "bias_decay_steps", 0),
                                .bias_budget_gain = 1,
                                .bias_update_interval = 1};
    c->loss =
        (loss_config){.hidden_z_coef = number(j, "hidden_z_coef", 0), .mtp_coef = number(j, "mtp_coef", 0)};
    c->optim = (optim_config){.lr = number(j, "lr", 0),
                              .beta1 = number(j, "beta1", 0),
                              .beta2 = number(j, "beta2", 0),
                              .eps = number(j, "eps", 0),
                              .weight_decay = number(j, "weight_decay", 0),
                              .clip = number(j, "clip", 0),
                              .schedule = LR_CONSTANT};
    c->train = (train_config){.steps = whole(j, "steps", 0),
                              .seq_len = whole(j, "seq_len", 0),
                              .micro_batches = whole(j, "micro_batches", 0),
                              .micro_batch_size = whole(j, "micro_batch", 0)};
    c->parallel = (parallel_config){
        .expert_replicas = 1, .rank_invariant = 1, .chunks = 2, .threads = 1, .expert_capacity = 1.5};
    snprintf(c->kernels.device, sizeof c->kernels.device, "cpu");
    snprintf(c->kernels.isa, sizeof c->kernels.isa, "auto");
}

/* Tokens of one step for this rank, turn by turn. */
static void read_step_tokens(const state *s, const json_t *step, int32_t *out) {
    for (int64_t turn = 0; turn < s->mesh.turns; turn++) {
        const json_t *micro = json_array_get(step, (size_t)mesh_micro_batch(&s->mesh, turn, s->mesh.rank));
        for (size_t b = 0; b < json_array_size(micro); b++) {
            const json_t *row = json_array_get(micro, b);
            for (size_t t = 0; t < json_array_size(row); t++)
                *out++ = (int32_t)json_integer_value(json_array_get(row, t));
        }
    }
}

static void load_weights(state *s, const char *dir) {
    char path[4096];
    error e = {0};
    safetensors file;
    const params *p = &s->model.p;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (safetensors_open(&file, path, &e)) FAULT(e.code, "%s", e.text);
    for (int64_t i = 0; i < p->n; i++) {
        const param *q = &p->param[i];
        if (q->offset < 0) continue;
        const safetensor *t = safetensors_find(&file, q->name);
        if (!t || t->count != q->count)
            FAULT(EXIT_CORRUPT, "%s: tensor %s is missing or misshapen", path, q->name);
        size_t bytes = (size_t)q->count * sizeof(real);
        real *table = params_weight(p, s->model.weights, q),
             *to = twin_alloc(&s->k, table, bytes, "a weight");
        if (safetensors_read_f32(t, 0, q->count, to, &e)) FAULT(e.code, "%s", e.text);
        twin_write(&s->k, table, to, bytes);
        twin_free(table, to);
    }
    int64_t total = experts_total(&s->c.model);
    for (int64_t l = 0; l < s->c.model.num_layers; l++) {
        char name[256];
        snprintf(name, sizeof name, "model.layers.%lld.mlp.router.e_score_correction_bias", (long long)l);
        const safetensor *t = safetensors_find(&file, name);
        if (!t || safetensors_read_f32(t, 0, total, s->model.router_bias_LE + l * total, &e))
            FAULT(EXIT_CORRUPT, "%s: tensor %s is missing", path, name);
    }
    safetensors_close(&file);
}

/* Gathers every parameter's owned pieces (gradient or weight) on all ranks; rank 0 writes them. */
static void write_pieces(state *s, int gradient, const real *logits, int64_t logit_rows, const char *path) {
    const params *p = &s->model.p;
    error e = {0};
    int64_t total = 0, n = p->n + (logits != NULL);
    int64_t *at = mem_alloc((size_t)p->n * sizeof *at, "offsets");
    safetensor_spec *spec = mem_alloc((size_t)n * sizeof *spec, "tensor list");
    for (int64_t i = 0; i < p->n; i++) {
        const param *q = &p->param[i];
        at[i] = total;
        total += q->count;
        spec[i] = (safetensor_spec){
            .name = q->name, .dtype = "F32", .rank = q->rank, .shape = {q->shape[0], q->shape[1]}};
    }
    if (logits)
        spec[p->n] = (safetensor_spec){
            .name = "logits",
            .dtype = "F32",
            .rank = 3,
            .shape = {s->c.train.micro_batch_size, s->c.train.seq_len, p->model.vocab_size}};
    double *all = mem_alloc((size_t)total * sizeof *all, "all parameters");
    float *one = mem_alloc((size_t)total * sizeof *one, "all parameters");
    for (int64_t i = 0; i < s->optimizer.pieces; i++) {
        const piece *q = &s->optimizer.piece[i];
        s->k.to_host(s->k.ctx, one, gradient ? q->gradient : q->weight, (size_t)q->count * sizeof *one);
        for (int64_t j = 0; j < q->count; j++) all[at[q->param] + q->offset + j] = (double)one[j];
    }
    comm_sum_disjoint_f64(s->mesh.world, "gather for output", all, (size_t)total);
    for (int64_t i = 0; i < total; i++) one[i] = (float)all[i];
    if (s->mesh.rank == 0) {
        safetensors_writer *w = NULL;
        if (safetensors_create(&w, path, spec, n, &e)) FAULT(e.code, "%s", e.text);
        for (int64_t i = 0; i < p->n; i++)
            if (safetensors_append(w, one + at[i], p->param[i].count, &e)) FAULT(e.code, "%s", e.text);
        if (logits && safetensors_append(w, logits, logit_rows * p->model.vocab_size, &e))
            FAULT(e.code, "%s", e.text);
        if (safetensors_finish(w, 0, &e)) FAULT(e.code, "%s", e.text);
    }
    mem_free(at);
    mem_free(spec);
    mem_free(all);
    mem_free(one);
}

static json_t *report_step(const state *s, const step_result *r) {
    int64_t n = experts_total(&s->c.model);
    json_t *counts = json_array(), *bias = json_array();
    for (int64_t l = 0; l < s->c.model.num_layers; l++) {
        json_t *c = json_array(), *b = json_array();
        for (int64_t i = 0; i < n; i++) {
            json_array_append_new(c, json_integer(r->count[l * n + i]));
            json_array_append_new(b, json_real((double)s->model.router_bias_LE[l * n + i]));
        }
        json_array_append_new(counts, c);
        json_array_append_new(bias, b);
    }
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:f, s:f, s:o}", "lm", r->lm, "lb", r->lb, "z",
                     r->z, "mtp", r->mtp, "total", r->loss, "grad_norm", r->grad_norm, "counts", counts,
                     "ffn_experts_mean", r->ffn_mean_all, "ffn_experts_std", r->ffn_std_all, "bias", bias);
}

static int option(const char *arg, const char *name, const char **value) {
    size_t n = strlen(name);
    if (strncmp(arg, name, n)) return 0;
    *value = arg[n] == '=' ? arg + n + 1 : "";
    return arg[n] == '=' || !arg[n];
}

static void read_options(config *c, int argc, char **argv) {
    for (int i = 3; i < argc; i++) {
        const char *v;
        if (option(argv[i], "--device", &v)) snprintf(c->kernels.device, sizeof c->kernels.device, "%s", v);
        else if (option(argv[i], "--isa", &v)) snprintf(c->kernels.isa, sizeof c->kernels.isa, "%s", v);
        else if (option(argv[i], "--threads", &v)) c->parallel.threads = atoi(v);
        else if (option(argv[i], "--chunks", &v)) c->parallel.chunks = atoi(v);
        else if (option(argv[i], "--expert-parallel", &v)) c->parallel.expert_parallel = atoi(v);
        else if (option(argv[i], "--replicas", &v)) c->parallel.expert_replicas = atoi(v);
        else if (option(argv[i], "--expert-capacity", &v)) c->parallel.expert_capacity = atof(v);
        else if (option(argv[i], "--rank-invariant", &v)) c->parallel.rank_invariant = atoi(v);
        else if (option(argv[i], "--transport", &v))
            c->parallel.transport = strcmp(v, "host") ? TRANSPORT_NCCL : TRANSPORT_HOST;
        else if (option(argv[i], "--recompute", &v)) c->model.recompute = 1;
        else FAULT(EXIT_USAGE, "unknown option %s", argv[i]);
    }
}

int main(int argc, char **argv) {
    error e = {0};
    comm *world;
    config c;
    state s;
    step_result r;
    char path[4096];
    if (argc < 3) FAULT(EXIT_USAGE, "usage: replay CASE_DIR OUT_DIR [--device=ref|cpu] ...");
    json_t *j = read_json(argv[1], "config.json"), *tokens = read_json(argv[1], "tokens.json");
    read_config(&c, j);
    read_options(&c, argc, argv);
    if (comm_open(&world, 60, &e) || state_create(&s, &c, world, -1, 1, &e)) FAULT(e.code, "%s", e.text);
    load_weights(&s, argv[1]);
    step_result_create(&r, &c.model);
    mkdir(argv[2], 0777);

    int64_t rows = c.train.micro_batch_size * c.train.seq_len, v = c.model.vocab_size;
    int32_t *batch = mem_alloc(
        (size_t)(c.train.micro_batches * c.train.micro_batch_size * (c.train.seq_len + 2)) * sizeof *batch,
        "tokens");
    real *logits = mem_alloc((size_t)(rows * v) * sizeof *logits, "logits");
    read_step_tokens(&s, json_array_get(tokens, 0), batch);
    model_forward(&s.model, batch, c.train.micro_batch_size, c.train.seq_len, 1);
    for (int64_t i = 0; i < rows; i++) model_logits(&s.model, i, logits + i * v);

    json_t *steps = json_array();
    for (int64_t i = 0; i < c.train.steps; i++) {
        read_step_tokens(&s, json_array_get(tokens, (size_t)i), batch);
        step_run(&s, batch, &r);
        json_array_append_new(steps, report_step(&s, &r));
        snprintf(path, sizeof path, "%s/grads.safetensors", argv[2]);
        if (i == 0) write_pieces(&s, 1, logits, rows, path);
    }
    snprintf(path, sizeof path, "%s/final.safetensors", argv[2]);
    write_pieces(&s, 0, NULL, 0, path);
    snprintf(path, sizeof path, "%s/steps.json", argv[2]);
    json_t *out = json_pack("{s:o}", "steps", steps);
    if (s.mesh.rank == 0 && json_dump_file(out, path, JSON_INDENT(1) | JSON_REAL_PRECISION(17)))
        FAULT(EXIT_IO, "%s: cannot write", path);
    json_decref(out);
    json_decref(j);
    json_decref(tokens);
    mem_free(batch);
    mem_free(logits);
    step_result_destroy(&r);
    state_destroy(&s);
    comm_close(world);
    return 0;
}
