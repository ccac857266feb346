/* What the files behind train/trainer.h share. */
#ifndef CARACAL_TRAIN_TRAINER_PARTS_H
#define CARACAL_TRAIN_TRAINER_PARTS_H

#include "train/checkpoint.h"
#include "train/console.h"
#include "train/deadline.h"
#include "train/evaluate.h"
#include "train/live.h"
#include "train/metrics.h"
#include "train/session.h"
#include "train/start.h"
#include "train/timeline.h"

typedef struct trainer {
    session x;
    start_point from;
    step_result r;
    ckpt_saver *saver;
    metrics out; /* rank 0 */
    live *live;  /* rank 0 */
    console console;
    timeline timeline; /* that is asked for, or being taken */
    deadline deadline; /* of --exit-after: rank 0's clock decides for all */
    int signals;
    int held;                      /* rank 0: what keeps other runs out of run.dir, -1: nothing */
    int32_t *tokens, *eval_tokens; /* this rank's micro-batches of a step; one of a validation */
    held_out *held_out;            /* [sources + 1] */
    double peak_flops;             /* of all ranks */
    int timed_out;                 /* rank 0: --exit-after is why the run stops */
} trainer;

/* ---- trainer_saves.c: a checkpoint that fails is reported, and the run goes on ---- */

/* Is there to be a checkpoint at this step boundary, or at the end of the run? */
int saves_due(const trainer *t, int end);
/* What a step boundary does for checkpoints; at the end of the run it waits until the disk has the last one
 * and returns how that went. */
int saves_at_boundary(trainer *t, int end, step_timing *timing);
/* Lets a save that is under way come to its end; returns its code if it ended. */
int saves_finish(trainer *t);

/* ---- trainer_spikes.c ---- */

/* Judges the step just done.  1: it is undone, and the run goes on from before it.  An error ends the run. */
int spiked(trainer *t, error *e);

#endif
