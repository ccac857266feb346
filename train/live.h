/* The report of a run while it goes on: rank 0 writes RUN_DIR/report.html and status.json again every few
 * seconds, at a step boundary, from what its logs gained meanwhile. */
#ifndef CARACAL_TRAIN_LIVE_H
#define CARACAL_TRAIN_LIVE_H

#include "train/status.h"

typedef struct live live;

/* Of a run that stands at `step` of `steps`, its logs being open.  What cannot be written is said once on
 * stderr and stops nothing. */
live *live_open(const char *run_dir, int64_t step, int64_t steps);
/* After a step, `left` seconds before the end. */
void live_step(live *l, int64_t step, double left); /* NULL is allowed */
/* The last word, with one of enum run_state; why may be NULL.  Frees.  Returns 0 if the report could be
 * written; NULL is allowed, and could not. */
int live_close(live *l, int64_t step, int state, const char *why);

#endif
