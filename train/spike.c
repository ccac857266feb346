#include "train/spike.h"

#include <math.h>
#include <string.h>

#include "launch/memory.h"
#include "train/json_number.h"
#include "train/stages.h"

void spikes_free(spikes *s) {
    mem_free(s->rollback);
    *s = (spikes){0};
}

/* ---- statistics ---- */

void spikes_enter(spikes *s, const config *c, int64_t step) {
    int joins = c->loss.mtp_coef > 0 && step == c->loss.mtp_start;
    if (step > 0 && stage_of(c, step) == stage_of(c, step - 1) && !joins) return;
    s->seen = s->spiking = 0;
}

void recent_mean(const recent *r, int64_t n, double *mean, double *deviation) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += r->value[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) squares += (r->value[i] - *mean) * (r->value[i] - *mean);
    *deviation = sqrt(squares / (double)n);
}

static double limit(const recent *r, int64_t n, double factor) {
    double mean, deviation;
    if (!(factor > 0)) return INFINITY;
    recent_mean(r, n, &mean, &deviation);
    return mean + factor * deviation;
}

spike_verdict spikes_judge(const spikes *s, const spike_config *c, double loss, double grad_norm) {
    spike_verdict v = {0, INFINITY, INFINITY};
    if (c->on_spike == SPIKE_OFF) return v;
    if (s->seen >= c->window) {
        v.loss_limit = limit(&s->loss, s->seen, c->loss_factor);
        v.grad_limit = limit(&s->grad, s->seen, c->grad_factor);
    }
    if (isfinite(loss) && isfinite(grad_norm)) v.spike = loss > v.loss_limit || grad_norm > v.grad_limit;
    else v.spike = c->on_spike == SPIKE_ROLLBACK;
    return v;
}

/* The window forgets its oldest steps until there is room for one more. */
static void forget(spikes *s, int64_t window) {
    int64_t over = s->seen - (window - 1);
    if (over <= 0) return;
    s->seen -= over;
    memmove(s->loss.value, s->loss.value + over, (size_t)s->seen * sizeof *s->loss.value);
    memmove(s->grad.value, s->grad.value + over, (size_t)s->seen * sizeof *s->grad.value);
}

void spikes_learn(spikes *s, const spike_config *c, const spike_verdict *v, double loss, double grad_norm) {
    s->spiking = 0;
    if (c->on_spike == SPIKE_OFF || !isfinite(loss) || !isfinite(grad_norm)) return;
    forget(s, c->window);
    s->loss.value[s->seen] = fmin(loss, v->loss_limit);
    s->grad.value[s->seen++] = fmin(grad_norm, v->grad_limit);
    s->told += v->spike;
    s->spiking = v->spike;
}

/* ---- samples that are left out ---- */

int64_t spikes_position(const spikes *s, int64_t position) {
    /* a later range may begin where an earlier one ends, never before it */
    for (int64_t i = 0; i < s->rollbacks; i++)
        if (s->rollback[i].first == position) position = s->rollback[i].end;
    return position;
}

int64_t spikes_rollbacks_of(const spikes *s, int64_t step) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->rollbacks; i++) n += s->rollback[i].step == step;
    return n;
}

void spikes_add(spikes *s, rollback r) {
    if (s->rollbacks == s->room) {
        s->room = 2 * s->room + 8;
        s->rollback = mem_grow(s->rollback, (size_t)s->room * sizeof *s->rollback, "samples left out");
    }
    s->rollback[s->rollbacks++] = r;
}

/* ---- in a checkpoint: numbers as C writes them in hexadecimal, which is exact and knows infinity ---- */

static json_t *exact_list(const recent *r, int64_t n) {
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) json_array_append_new(list, json_exact(r->value[i]));
    return list;
}

static double exact_of(const json_t *j, const char *key) {
    return json_exact_value(json_object_get(j, key));
}

static int64_t integer(const json_t *j, const char *key) {
    return json_integer_value(json_object_get(j, key));
}

json_t *spikes_to_json(const spikes *s) {
    json_t *list = json_array();
    for (int64_t i = 0; i < s->rollbacks; i++) {
        const rollback *r = &s->rollback[i];
        json_array_append_new(
            list, json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "step", (json_int_t)r->step, "first",
                            (json_int_t)r->first, "end", (json_int_t)r->end, "loss", json_exact(r->loss),
                            "grad_norm", json_exact(r->grad_norm), "loss_limit", json_exact(r->loss_limit),
                            "grad_limit", json_exact(r->grad_limit)));
    }
    return json_pack("{s:o, s:o, s:b, s:I, s:o}", "loss", exact_list(&s->loss, s->seen), "grad_norm",
                     exact_list(&s->grad, s->seen), "spiking", s->spiking, "told", (json_int_t)s->told,
                     "left_out", list);
}

void spikes_from_json(spikes *s, const json_t *j) {
    const json_t *list = json_object_get(j, "left_out");
    spikes_free(s);
    const json_t *loss = json_object_get(j, "loss"), *grad = json_object_get(j, "grad_norm");
    for (size_t i = 0; i < json_array_size(loss) && s->seen < SPIKE_MAX_WINDOW; i++) {
        s->loss.value[s->seen] = json_exact_value(json_array_get(loss, i));
        s->grad.value[s->seen++] = json_exact_value(json_array_get(grad, i));
    }
    s->spiking = json_is_true(json_object_get(j, "spiking"));
    s->told = integer(j, "told");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *r = json_array_get(list, i);
        spikes_add(s, (rollback){integer(r, "step"), integer(r, "first"), integer(r, "end"),
                                 exact_of(r, "loss"), exact_of(r, "grad_norm"), exact_of(r, "loss_limit"),
                                 exact_of(r, "grad_limit")});
    }
}
