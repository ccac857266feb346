/* The batch of a step whose loss leapt, written for a person to read: RUN_DIR/spikes/step-XXXXXXXX.txt. */
#ifndef CARACAL_TRAIN_SPIKE_BATCH_H
#define CARACAL_TRAIN_SPIKE_BATCH_H

#include "train/session.h"
#include "train/step.h"

/* Of the step just done: the figures, then every sample, that with the greatest loss first: its source and
 * place there, its own loss, its text, its ids.  attempt: how often the step was undone before, part of the
 * name from 1 on.  The same file whatever the number of ranks.  *path: of rank 0, NULL elsewhere (mem_free).
 * EXIT_IO: it could not be written.  Collective. */
int spike_batch_write(const session *x, const step_result *r, int64_t attempt, char **path, error *e);

#endif
