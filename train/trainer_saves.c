#include <stdio.h>

#include "train/trainer_parts.h"

static void not_written(const trainer *t, int64_t step, const error *why) {
    if (t->x.s.mesh.rank == 0) notice("checkpoint of step %lld not written: %s", (long long)step, why->text);
}

/* Tells how a save ended; returns its code. */
static int told(trainer *t, const ckpt_outcome *o) {
    char stored[32], bytes[32], waited[64] = "";
    if (o->failure.code) {
        not_written(t, o->step, &o->failure);
        return o->failure.code;
    }
    double now = comm_clock();
    trace_span(comm_trace(t->x.world), TRACE_SAVE, "save", o->step, now - o->seconds, now);
    t->from.saved = o->step;
    t->deadline.save = o->seconds;
    t->deadline.saved = 0;
    if (t->x.s.mesh.rank) return 0;
    if (o->waited > 0) snprintf(waited, sizeof waited, " and waited %.2f s for it", o->waited);
    console_line(&t->console, "checkpoint of step %lld: stalled %.2f s%s, written in %.1f s, %s (of %s)",
                 (long long)o->step, o->stalled, waited, o->seconds, console_bytes(stored, (double)o->stored),
                 console_bytes(bytes, (double)o->bytes));
    if (o->retention.code) notice("an older checkpoint stays: %s", o->retention.text);
    return 0;
}

/* Lets a save that is under way go on; returns its code if it ended. */
static int poll_save(trainer *t) {
    ckpt_outcome o;
    return ckpt_poll(t->saver, &o) ? told(t, &o) : 0;
}

int saves_finish(trainer *t) {
    ckpt_outcome o;
    return ckpt_finish(t->saver, &o) ? told(t, &o) : 0;
}

static int start_save(trainer *t) {
    error why = {0};
    saves_finish(t); /* the one before, if it is not done yet */
    if (t->x.s.mesh.rank == 0) metrics_sync(&t->out, &why);
    if (comm_agree(t->x.world, &why) || checkpoint_start(t->saver, &t->x.s, t->x.inputs, &why))
        not_written(t, t->x.s.step, &why);
    t->deadline.saved = comm_clock() + t->deadline.save;
    return why.code;
}

int saves_due(const trainer *t, int end) {
    int64_t every = t->x.s.c.checkpoint.every;
    return end || (every && t->x.s.step % every == 0);
}

int saves_at_boundary(trainer *t, int end, step_timing *timing) {
    double began = comm_clock();
    int code = 0;
    if (saves_due(t, end)) code = start_save(t);
    else poll_save(t);
    if (end && !code) code = saves_finish(t);
    timing->checkpoint_stall_seconds = comm_clock() - began;
    return code;
}
