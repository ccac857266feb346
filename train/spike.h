/* Loss spikes: steps whose loss or gradient norm stands far above what the steps before them had, and what
 * going back to before one leaves out.
 *
 * Everything here is a function of what all ranks know of each step, and part of every checkpoint, so that a
 * resumed run judges as the run that never stopped, and trains on the same samples. */
#ifndef CARACAL_TRAIN_SPIKE_H
#define CARACAL_TRAIN_SPIKE_H

#include <jansson.h>

#include "train/config.h"

/* A figure that is watched. */
typedef struct recent {
    double value[SPIKE_MAX_WINDOW]; /* [spikes.seen], the oldest first; a spike's is held to its limit */
} recent;

/* A step that was undone, and the samples [first, end) of the run that nothing is trained on because of it.
 */
typedef struct rollback {
    int64_t step; /* from 1, as people see it */
    int64_t first, end;
    double loss, grad_norm, loss_limit, grad_limit;
} rollback;

typedef struct spikes {
    int64_t seen; /* steps in the window: spike.window of them at most */
    recent loss, grad;
    int spiking;  /* the last step was one */
    int64_t told; /* spikes of the run that were warned of and left as they are */
    int64_t rollbacks, room;
    rollback *rollback; /* in the order in which they came */
} spikes;

typedef struct spike_verdict {
    int spike;
    double loss_limit, grad_limit; /* infinite: not watched, or not yet */
} spike_verdict;

void spikes_free(spikes *s);
void recent_mean(const recent *r, int64_t n, double *mean, double *deviation);
/* Before step `step` (from 0): where a stage begins, or the MTP head joins, a leap is no spike, and the
 * statistics start anew. */
void spikes_enter(spikes *s, const config *c, int64_t step);
/* Judges a step by those before it.  A figure that is not finite is a spike where spikes are rolled back;
 * where they are only warned of, train.on_nonfinite is what counts. */
spike_verdict spikes_judge(const spikes *s, const spike_config *c, double loss, double grad_norm);
/* Takes a step that stays into the statistics, a spike as if it stood at its limit: one leap does not hide
 * the next, and a level that stays high becomes the mean. */
void spikes_learn(spikes *s, const spike_config *c, const spike_verdict *v, double loss, double grad_norm);

/* The sample that comes at this place of the run, or the next one that is not left out. */
int64_t spikes_position(const spikes *s, int64_t position);
/* How often a step was undone. */
int64_t spikes_rollbacks_of(const spikes *s, int64_t step);
void spikes_add(spikes *s, rollback r);

/* For a checkpoint, every bit of it; a new reference.  Reading: NULL, as of a checkpoint from before there
 * was any of this, is a fresh start.  What was there is replaced. */
json_t *spikes_to_json(const spikes *s);
void spikes_from_json(spikes *s, const json_t *j);

#endif
