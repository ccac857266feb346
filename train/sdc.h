/* Silent data corruption: a processor, memory or wire that gives a wrong number and says nothing.
 *
 * Every step: weights are what the last update left (optim/guard.h), router biases and controllers too, and
 * replicas agree (train/replicas.h).  In every sdc.interval-th step also: one layer's attention backwards and
 * expert products are computed twice (model/recheck.h), a digest travels with every message (launch/comm.h),
 * and moments are what the last update left.  Before a checkpoint: memory and replicas once more.
 *
 * No check changes a bit of the run.  docs/determinism.md says which faults these find, and which they do
 * not.
 */
#ifndef CARACAL_TRAIN_SDC_H
#define CARACAL_TRAIN_SDC_H

#include "launch/flip.h"
#include "model/recheck.h"
#include "optim/guard.h"

struct state;

typedef struct sdc {
    bit_flip flip; /* tests only */
    recheck recheck;
    guard guard;
    double *control, *control_now; /* biases and controllers as the last step left them, and as they are */
    error found;                   /* in them, or between replicas */
} sdc;

/* When the weights are there, before the first step.  An error: the tests' switch says no sense. */
int sdc_open(struct state *s, error *e);
/* After sdc_open, when the state was replaced. */
void sdc_renew(struct state *s);
void sdc_close(struct state *s);

/* Before a step: is the state what the last step left, and the same on all ranks?  Collective. */
void sdc_begin(struct state *s);
/* The layer that is computed twice in this turn of the step, -1: none.  A pure function of step and turn. */
int64_t sdc_layer(const struct state *s, int64_t turn);
/* After the step's update, if there was one. */
void sdc_end(struct state *s, int updated);

/* If a rank found anything in the step just done, all ranks get EXIT_SDC and the lowest such rank's message:
 * step, rank, place and values; *passed = the last step in which the same check found all in order.  What was
 * found is forgotten.  Collective. */
int sdc_verdict(struct state *s, int64_t *passed, error *e);
/* Verifies the whole state, as sdc_begin and the update do.  Returns sdc_verdict's code.  Collective. */
int sdc_before_save(struct state *s, int64_t *passed, error *e);
/* Adds to the message from which checkpoint it is safe to go on: the newest of steps up to `passed`. */
void sdc_advise(const struct state *s, int64_t passed, error *e);

#endif
