/* The stages of a run: what the config says outside data.stages, then each entry of it.  What a step is made
 * of is a function of the config and the step's number. */
#ifndef CARACAL_TRAIN_STAGES_H
#define CARACAL_TRAIN_STAGES_H

#include "train/config.h"

/* The shape of a step. */
typedef struct batch_shape {
    int64_t seq_len, micro_batches, micro_batch_size;
    double rope_theta;
} batch_shape;

/* The stage of step `step` (from 0). */
int64_t stage_of(const config *c, int64_t step);
batch_shape stage_batch(const config *c, int64_t stage);
/* In one step of a stage. */
int64_t stage_tokens(const config *c, int64_t stage);
/* In the first so many steps of a run: exact up to 2^53, for a train.steps without end beyond. */
double stages_tokens(const config *c, int64_t steps);

/* What has room for the micro-batches of every stage: the longest sequence, and how many of those have the
 * tokens of the largest micro-batch; and the most micro-batches. */
batch_shape stages_largest(const config *c);
/* The most samples of a step. */
int64_t stages_most_samples(const config *c);
/* The numbers of the largest micro-batch as the loader gives it: [micro_batch_size][seq_len + 2]. */
int64_t stages_row(const config *c);

/* The ranks must divide the micro-batches of every stage. */
int stages_check(const config *c, int64_t ranks, error *e);

#endif
