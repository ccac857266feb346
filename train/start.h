/* Where a run starts: fresh, from another model, or where a checkpoint stands; and where it goes back to. */
#ifndef CARACAL_TRAIN_START_H
#define CARACAL_TRAIN_START_H

#include "train/session.h"

typedef struct start_point {
    const char *resume, *init_from; /* as asked for on the command line; init_from: of a fresh run */
    int64_t saved;                  /* step of the newest checkpoint that the run wrote since, -1: none */
} start_point;

/* Brings the state there, whatever it was.  Collective. */
int start_state(session *x, const start_point *p, error *e);

#endif
