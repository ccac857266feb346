#include <math.h>
#include <stdio.h>

#include "launch/memory.h"
#include "train/spike_batch.h"
#include "train/trainer_parts.h"

static void tell_spike(trainer *t, int64_t attempt) {
    const state *s = &t->x.s;
    const spike_verdict *v = &t->r.spike;
    char *path = NULL, loss[64] = "", grad[64] = "";
    error why = {0};
    spike_batch_write(&t->x, &t->r, attempt, &path, &why);
    if (s->mesh.rank) return;
    if (isfinite(v->loss_limit)) snprintf(loss, sizeof loss, " (limit %.4f)", v->loss_limit);
    if (isfinite(v->grad_limit)) snprintf(grad, sizeof grad, " (limit %.4g)", v->grad_limit);
    console_line(&t->console, "spike     step %lld: LM loss %.4f%s, gradient norm %.4g%s", (long long)s->step,
                 t->r.lm, loss, t->r.grad_norm, grad);
    if (why.code) notice("the batch of the spike was not written: %s", why.text);
    else console_line(&t->console, "          its batch: %s", path);
    mem_free(path);
}

/* Back to the newest checkpoint of this run, or to where it began, and on from there without the samples of
 * the step just done.  What is trained up to that step comes out as it did, whichever checkpoint it was. */
static int roll_back(trainer *t, error *e) {
    state *s = &t->x.s;
    const spike_config *c = &s->c.spike;
    int64_t step = s->step, samples = s->c.train.micro_batches * s->c.train.micro_batch_size;
    int64_t attempt = spikes_rollbacks_of(&s->spikes, step);
    const spike_verdict *v = &t->r.spike;
    rollback r = {step,           s->position - samples, s->position,  t->r.lm,
                  t->r.grad_norm, v->loss_limit,         v->grad_limit};
    tell_spike(t, attempt);
    if (attempt == c->max_rollbacks)
        return error_set(
            e, EXIT_NONFINITE,
            "step %lld: LM loss %g, gradient norm %g: a spike, and as many rollbacks from this step "
            "as spike.max_rollbacks = %lld allows did not get past it; the newest checkpoint is "
            "intact: look at spikes/, then lower optim.lr, resume from an older checkpoint, or "
            "go on with spike.on_spike = warn",
            (long long)step, r.loss, r.grad_norm, (long long)c->max_rollbacks);
    saves_finish(t);
    spikes_add(&s->spikes, r);
    spikes known = s->spikes; /* the checkpoint's list may be shorter */
    s->spikes = (spikes){0};
    int code = start_state(&t->x, &t->from, e);
    mem_free(s->spikes.rollback);
    s->spikes.rollback = known.rollback;
    s->spikes.rollbacks = known.rollbacks;
    s->spikes.room = known.room;
    if (code) return error_within(e, "step %lld: a spike cannot be rolled back", (long long)step);
    sdc_renew(s);
    metrics_close(&t->out);
    if (s->mesh.rank == 0) metrics_open(&t->out, s->c.run_dir, s->c.metrics.tensorboard, s->step, e);
    if (comm_agree(t->x.world, e)) return e->code;
    console_restart(&t->console, s->step);
    if (s->mesh.rank == 0)
        console_line(&t->console, "rollback  from step %lld to %lld, without samples %lld to %lld",
                     (long long)step, (long long)s->step, (long long)r.first, (long long)r.end - 1);
    return 0;
}

int spiked(trainer *t, error *e) {
    state *s = &t->x.s;
    const spike_config *c = &s->c.spike;
    spike_verdict *v = &t->r.spike;
    *v = spikes_judge(&s->spikes, c, t->r.lm, t->r.grad_norm);
    if (v->spike && c->on_spike == SPIKE_ROLLBACK) return roll_back(t, e) == 0;
    if (v->spike && !s->spikes.spiking) tell_spike(t, 0); /* the first of several in a row */
    spikes_learn(&s->spikes, c, v, t->r.lm, t->r.grad_norm);
    return 0;
}
