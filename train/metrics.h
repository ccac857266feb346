/* The run directory's records: metrics.jsonl holds what the promises of determinism cover (two equal runs
 * have equal files), timing.jsonl everything with a clock or a byte count in it, eval.jsonl the validations.
 */
#ifndef CARACAL_TRAIN_METRICS_H
#define CARACAL_TRAIN_METRICS_H

#include "train/evaluate.h"
#include "train/record.h"
#include "train/step.h"
#include "train/tensorboard.h"

typedef struct metrics {
    record metrics, timing, eval;
    tensorboard tensorboard; /* open when metrics.tensorboard asks for it */
} metrics;

typedef struct step_timing {
    double step_seconds, tokens_per_second, mfu, comm_exposed_seconds;
    double checkpoint_stall_seconds; /* that training stood still after the step for a checkpoint */
    int64_t peak_memory;             /* bytes, all ranks together */
} step_timing;

/* Opens the files for appending after cutting them back to lines of at most `step`: a resumed run has no
 * doubled and no missing step.  Rank 0 only. */
int metrics_open(metrics *m, const char *run_dir, int with_tensorboard, int64_t step, error *e);
void metrics_close(metrics *m);

/* One line each; a disk that does not take it does not stop the run (record.h).  digests: parameter digests
 * (weights, first and second moments), or NULL; the optimizer's last one was that of the weights. */
void metrics_step(metrics *m, const state *s, const step_result *r, const uint64_t *digests);
void metrics_timing(metrics *m, int64_t step, const step_timing *t);
/* Held-out loss of each source, and of all. */
void metrics_eval(metrics *m, int64_t step, const data_config *d, const held_out *out);
/* Before a checkpoint: a run resumed from it, even after a power loss, finds all lines up to its step. */
int metrics_sync(metrics *m, error *e);

/* Model FLOPs of one token: 6 (parameters active at K_e, without the input embedding) + the causal half of
 * attention, forward and backward. */
double metrics_flops_per_token(const config *c);
/* Of the first so many tokens of a run, through its stages. */
double metrics_flops(const config *c, double tokens);

#endif
