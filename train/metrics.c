#include "train/metrics.h"

#include <stdio.h>

#include "train/json_number.h"
#include "train/stages.h"

/* ---- files ---- */

int metrics_open(metrics *m, const char *run_dir, int with_tensorboard, int64_t step, error *e) {
    *m = (metrics){0};
    if (record_open(&m->metrics, run_dir, "metrics.jsonl", step, e) ||
        record_open(&m->timing, run_dir, "timing.jsonl", step, e) ||
        record_open(&m->eval, run_dir, "eval.jsonl", step, e) ||
        (with_tensorboard && tensorboard_open(&m->tensorboard, run_dir, step, e)))
        metrics_close(m);
    return e->code;
}

void metrics_close(metrics *m) {
    record_close(&m->metrics);
    record_close(&m->timing);
    record_close(&m->eval);
    tensorboard_close(&m->tensorboard);
    *m = (metrics){0};
}

int metrics_sync(metrics *m, error *e) {
    return record_sync(&m->metrics, e) ? e->code : record_sync(&m->eval, e);
}

/* The record gets the line, TensorBoard its numbers under `name`/.  Takes the line. */
static void write_line(metrics *m, record *r, const char *name, json_t *line) {
    error e = {0};
    record_line(r, line);
    if (m->tensorboard.file && tensorboard_row(&m->tensorboard, name, line, &e)) {
        notice("%s; TensorBoard gets no more of this run", e.text);
        tensorboard_close(&m->tensorboard);
    }
    json_decref(line);
}

/* ---- lines ---- */

static void set(json_t *j, const char *key, double x) {
    json_object_set_new(j, key, json_finite(x));
}

static void set_layers(json_t *j, const char *key, const double *x, int64_t layers) {
    json_t *a = json_array();
    for (int64_t l = 0; l < layers; l++) json_array_append_new(a, json_finite(x[l]));
    json_object_set_new(j, key, a);
}

static void set_digest(json_t *j, const char *key, uint64_t digest) {
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)digest);
    json_object_set_new(j, key, json_string(text));
}

/* The weights' also part by part: what differs in few of them points to the layer. */
static void set_digests(json_t *j, const state *s, const uint64_t *digests) {
    static const char *const name[] = {"weights", "adam_m", "adam_v"};
    const params *p = &s->model.p;
    json_t *d = json_object(), *parts = json_object();
    for (int i = 0; i < 3; i++) set_digest(d, name[i], digests[i]);
    for (int64_t b = 0; b < p->buckets; b++) {
        char part[32];
        snprintf(part, sizeof part, "layer %lld", (long long)(b - BUCKET_LAYER_0));
        set_digest(parts,
                   b == BUCKET_EMBEDDING ? "embedding"
                   : b < bucket_head(p)  ? part
                   : b == bucket_head(p) ? "head"
                                         : "mtp",
                   optimizer_bucket_digest(&s->optimizer, b));
    }
    json_object_set_new(d, "weights_of", parts);
    json_object_set_new(j, "digests", d);
}

static void set_limits(json_t *j, double loss, double grad) {
    set(j, "loss_limit", loss);
    set(j, "grad_limit", grad);
}

/* Whether this step is one, and how often it was undone before. */
static void set_spikes(json_t *j, const state *s, const step_result *r) {
    json_t *undone = json_array();
    for (int64_t i = 0; i < s->spikes.rollbacks; i++) {
        const rollback *b = &s->spikes.rollback[i];
        if (b->step != s->step) continue;
        json_t *one = json_object();
        set(one, "lm_loss", b->loss);
        set(one, "grad_norm", b->grad_norm);
        set_limits(one, b->loss_limit, b->grad_limit);
        json_object_set_new(one, "first_sample", json_integer(b->first));
        json_object_set_new(one, "samples", json_integer(b->end - b->first));
        json_array_append_new(undone, one);
    }
    if (s->spikes.spiking) {
        json_t *spike = json_object();
        set_limits(spike, r->spike.loss_limit, r->spike.grad_limit);
        json_object_set_new(j, "spike", spike);
    }
    if (json_array_size(undone)) json_object_set(j, "rollbacks", undone);
    json_decref(undone);
}

void metrics_step(metrics *m, const state *s, const step_result *r, const uint64_t *digests) {
    const config *c = &s->c;
    json_t *j = json_object();
    int64_t layers = c->model.num_layers;
    json_object_set_new(j, "step", json_integer(s->step));
    json_object_set_new(j, "tokens", json_integer((json_int_t)stages_tokens(s->run, s->step)));
    set(j, "loss", r->loss);
    set(j, "lm_loss", r->lm);
    set(j, "lb_loss", r->lb);
    set(j, "z_loss", r->z);
    if (s->model.mtp_on) set(j, "mtp_loss", r->mtp);
    set(j, "grad_norm", r->grad_norm);
    set(j, "lr", r->lr);
    json_object_set_new(j, "loss_hex", json_exact(r->loss));
    json_object_set_new(j, "grad_norm_hex", json_exact(r->grad_norm));
    set_layers(j, "ffn_experts_mean", r->ffn_mean, layers);
    set_layers(j, "ffn_experts_std", r->ffn_std, layers);
    set_layers(j, "expert_load_max_over_mean", r->load_max_over_mean, layers);
    set_layers(j, "router_similarity", r->router_similarity, layers);
    set_layers(j, "router_grad_ratio", r->router_grad_ratio, layers);
    set_layers(j, "layer_output_max", r->layer_output_max, layers);
    set(j, "hidden_l2", r->hidden_l2);
    set(j, "hidden_max", r->hidden_max);
    set(j, "grad_rms_min", r->grad_rms_min);
    set(j, "grad_rms_max", r->grad_rms_max);
    set(j, "bias_min", r->bias_min);
    set(j, "bias_max", r->bias_max);
    if (s->run->router.grad_ratio_target > 0) set(j, "lb_alpha", r->lb_alpha);
    set_spikes(j, s, r);
    if (digests) set_digests(j, s, digests);
    write_line(m, &m->metrics, "metrics", j);
}

void metrics_timing(metrics *m, int64_t step, const step_timing *t) {
    json_t *j = json_object();
    json_object_set_new(j, "step", json_integer(step));
    set(j, "tokens_per_second", t->tokens_per_second);
    set(j, "mfu", t->mfu);
    set(j, "step_seconds", t->step_seconds);
    set(j, "comm_exposed_seconds", t->comm_exposed_seconds);
    set(j, "checkpoint_stall_seconds", t->checkpoint_stall_seconds);
    json_object_set_new(j, "peak_memory", json_integer(t->peak_memory));
    write_line(m, &m->timing, "timing", j);
}

void metrics_eval(metrics *m, int64_t step, const data_config *d, const held_out *out) {
    json_t *j = json_object(), *loss = json_object(), *bits = json_object();
    for (int64_t i = 0; i <= d->sources; i++) {
        const char *name = i < d->sources ? d->source[i].name : "total";
        if (i < d->sources && out[i].loss != out[i].loss) continue;
        set(loss, name, out[i].loss);
        set(bits, name, out[i].bits_per_byte);
    }
    json_object_set_new(j, "step", json_integer(step));
    json_object_set_new(j, "loss", loss);
    json_object_set_new(j, "bits_per_byte", bits);
    double accepted = out[d->sources].mtp_acceptance;
    if (accepted == accepted) set(j, "mtp_acceptance", accepted);
    write_line(m, &m->eval, "eval", j);
}

static double flops_per_token(const config *c, int64_t seq_len) {
    const model_config *m = &c->model;
    double pairs = (double)seq_len / 2 * (double)m->num_attention_heads *
                   (double)(m->qk_nope_head_dim + m->qk_rope_head_dim + m->v_head_dim);
    double layers = 2 * (double)m->num_layers; /* attentions */
    return 6 * params_active(m, c->router.expected_ffn_experts) + 3 * 2 * layers * pairs;
}

double metrics_flops_per_token(const config *c) {
    return flops_per_token(c, c->train.seq_len);
}

double metrics_flops(const config *c, double tokens) {
    double flops = 0;
    for (int64_t stage = 0; stage <= c->data.stages && tokens > 0; stage++) {
        int64_t begin = stage ? c->data.stage[stage - 1].after : 0;
        double of_it = tokens;
        if (stage < c->data.stages) {
            double all = (double)(c->data.stage[stage].after - begin) * (double)stage_tokens(c, stage);
            if (all < of_it) of_it = all;
        }
        flops += of_it * flops_per_token(c, stage_batch(c, stage).seq_len);
        tokens -= of_it;
    }
    return flops;
}
