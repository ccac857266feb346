#include "train/sdc.h"

#include <stdio.h>
#include <string.h>

#include "ckpt/commit.h"
#include "launch/host.h"
#include "launch/memory.h"
#include "train/replicas.h"

/* ---- the tests' switch ---- */

/* The router's bias that is meant, in host memory; NULL if it is something else. */
static real *flipped_bias(const state *s) {
    for (int64_t l = 0; l < s->c.model.num_layers; l++) {
        char bias[256];
        snprintf(bias, sizeof bias, "model.layers.%lld.mlp.router.e_score_correction_bias", (long long)l);
        if (!strcmp(s->sdc.flip.name, bias)) return s->model.router_bias_LE + l * experts_total(&s->c.model);
    }
    return NULL;
}

/* This rank's copy of the tensor that is meant, whole or (moments) from element *first on; NULL if it has
 * none. Sets how many elements that are. */
static real *flipped_tensor(const state *s, int64_t *first, int64_t *count) {
    const params *p = &s->model.p;
    const char *name = s->sdc.flip.name;
    for (int64_t i = 0; i < s->optimizer.pieces; i++) {
        const piece *q = &s->optimizer.piece[i];
        *first = q->offset;
        *count = q->count;
        if (!strncmp(name, "adam_m/", 7) && !strcmp(name + 7, p->param[q->param].name)) return q->m;
        if (!strncmp(name, "adam_v/", 7) && !strcmp(name + 7, p->param[q->param].name)) return q->v;
    }
    int64_t i = params_find(p, name);
    *first = 0;
    *count = i < 0 ? 0 : p->param[i].count;
    return i < 0 || p->param[i].offset < 0 ? NULL : params_weight(p, s->model.weights, &p->param[i]);
}

static void flip_weight(const state *s) {
    bit_flip f = s->sdc.flip;
    int64_t first, count;
    if (f.kind != FLIP_WEIGHT || f.step != f.now) return;
    real *bias = flipped_bias(s);
    if (bias) {
        flip_strike_in(&f, f.name, bias, experts_total(&s->c.model), sizeof *bias);
        return;
    }
    real *w = flipped_tensor(s, &first, &count);
    if (!w || f.index < first || f.index >= first + count) {
        notice("rank %d: nothing flipped: it has no %s [%lld]", f.rank, f.name, (long long)f.index);
        return;
    }
    f.index -= first;
    context_flip(&s->model.x, &f, f.name, w, count);
}

/* ---- a step ---- */

/* Is step number `step` (from 1) one whose arithmetic and messages are checked? */
static int due(const state *s, int64_t step) {
    return s->c.sdc.interval && step % s->c.sdc.interval == 0;
}

int sdc_open(state *s, error *e) {
    sdc *x = &s->sdc;
    if (flip_read(&x->flip, s->mesh.rank, e)) return e->code;
    s->model.x.flip = &x->flip;
    comm_check_messages(s->mesh.world, 0, &x->flip);
    if (!s->c.sdc.interval) return 0;
    size_t control = (size_t)replicas_control_count(s) * sizeof *x->control;
    x->control = mem_alloc(control, "router biases twice");
    x->control_now = mem_alloc(control, "router biases twice");
    guard_create(&x->guard, &s->model.p, &s->k);
    s->optimizer.guard = &x->guard;
    recheck_create(&x->recheck, &s->model.x);
    s->model.x.recheck = &x->recheck;
    sdc_renew(s);
    return 0;
}

void sdc_renew(state *s) {
    sdc *x = &s->sdc;
    if (!s->c.sdc.interval) return;
    replicas_read_control(s, x->control);
    x->guard.note_moments = x->guard.moments_noted = due(s, s->step + 1);
    optimizer_guard_note(&s->optimizer);
}

void sdc_close(state *s) {
    sdc *x = &s->sdc;
    mem_free(x->control);
    mem_free(x->control_now);
    guard_destroy(&x->guard);
    recheck_destroy(&x->recheck);
}

static void verify_control(state *s) {
    sdc *x = &s->sdc;
    replicas_read_control(s, x->control_now);
    if (!x->found.code)
        replicas_compare_control(s, x->control, x->control_now, "and after the last step was", &x->found);
}

void sdc_begin(state *s) {
    sdc *x = &s->sdc;
    x->flip.now = s->step + 1;
    flip_weight(s);
    if (!s->c.sdc.interval) return;
    verify_control(s);
    replicas_compare(s, &x->found);
    comm_check_messages(s->mesh.world, due(s, s->step + 1), &x->flip);
    x->guard.note_moments = due(s, s->step + 2);
}

int64_t sdc_layer(const state *s, int64_t turn) {
    if (!due(s, s->step + 1)) return -1;
    int64_t check = (s->step + 1) / s->c.sdc.interval - 1, layers = s->c.model.num_layers;
    return check / layers % s->mesh.turns == turn ? check % layers : -1;
}

void sdc_end(state *s, int updated) {
    if (!s->c.sdc.interval) return;
    comm_check_messages(s->mesh.world, 0, &s->sdc.flip);
    if (!updated) { /* perhaps because of what is wrong in memory */
        optimizer_guard_verify(&s->optimizer);
        return;
    }
    s->sdc.guard.moments_noted = s->sdc.guard.note_moments;
    replicas_read_control(s, s->sdc.control);
}

/* ---- what was found ---- */

/* Of this rank, NULL if nothing: what turned in memory comes first, as it makes everything else wrong. */
static error *finding(state *s) {
    error *all[] = {&s->sdc.guard.found, &s->sdc.found, comm_corruption(s->mesh.world),
                    &s->sdc.recheck.found};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->code) return all[i];
    return NULL;
}

int sdc_verdict(state *s, int64_t *passed, error *e) {
    sdc *x = &s->sdc;
    error *corruption = comm_corruption(s->mesh.world), *found = finding(s);
    int64_t before = s->step - 1, interval = s->c.sdc.interval;
    if (!interval) return 0;
    *e = (error){0};
    if (found) {
        char rank[HOST_TEXT];
        host_name_rank(s->mesh.world, s->host, rank);
        *e = *found;
        error_within(e, "silent data corruption found in step %lld: %s", (long long)s->step, rank);
        /* memory is looked at in every step, arithmetic and messages in some */
        if (found == corruption || found == &x->recheck.found) before = before / interval * interval;
    }
    x->guard.found.code = x->found.code = x->recheck.found.code = corruption->code = 0;
    if (comm_agree(s->mesh.world, e)) *passed = -comm_max_i64(s->mesh.world, "last check passed", -before);
    return e->code;
}

int sdc_before_save(state *s, int64_t *passed, error *e) {
    if (!s->c.sdc.interval) return 0;
    optimizer_guard_verify(&s->optimizer);
    verify_control(s);
    replicas_compare(s, &s->sdc.found);
    return sdc_verdict(s, passed, e);
}

void sdc_advise(const state *s, int64_t passed, error *e) {
    char directory[4096], what[700] = "there is no checkpoint from before: --resume=none begins anew";
    error ignored = {0};
    int64_t at = passed + 1;
    int complete = 0;
    snprintf(directory, sizeof directory, "%s/checkpoints", s->c.run_dir);
    while (!complete && !step_below(directory, "", at, &at, &ignored) && at >= 0) {
        char *path = step_path(directory, at, "");
        complete = ckpt_is_one(path);
        if (complete)
            snprintf(what, sizeof what, "the newest checkpoint from before is safe: --resume=%s", path);
        mem_free(path);
    }
    size_t used = strlen(e->text);
    snprintf(e->text + used, sizeof e->text - used,
             "; the same check last passed in step %lld, and nothing was saved since it failed; %s",
             (long long)passed, what);
}
