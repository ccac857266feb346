/* `caracal train CONFIG`, with --resume, --init-from, --exit-after and keys of the config. */
#ifndef CARACAL_TRAIN_TRAINER_H
#define CARACAL_TRAIN_TRAINER_H

#include "train/timeline.h"

/* A run of training as its command line says it; what it points to stays the caller's. */
typedef struct train_job {
    const char *config_path;
    int overrides;
    char **override;
    const char *resume, *init_from; /* "auto", "none" or a path; init_from may be NULL */
    timeline timeline;              /* --trace, of no step if all zero */
    double until;                   /* --exit-after on comm_clock, or INFINITY */
    int signals;                    /* of signals_open */
} train_job;

/* Trains on the ranks of `world`.  0: the run is done; EXIT_REQUEUE: it was asked to stop, and
 * has a checkpoint; otherwise the code of *e, which nobody has printed yet.  Collective. */
int train_run(comm *world, const train_job *job, error *e);

int train_command(int argc, char **argv);

#endif
