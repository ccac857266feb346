/* `--trace=STEPS`: a timeline (launch/trace.h) of some steps, in run.dir/trace-FIRST-LAST.json. */
#ifndef CARACAL_TRAIN_TIMELINE_H
#define CARACAL_TRAIN_TIMELINE_H

#include "launch/comm.h"

typedef struct timeline {
    int64_t first, last; /* steps, from 1; 0: none */
    trace *taken;
} timeline;

/* Reads "7" or "7-9".  EXIT_USAGE says what is allowed. */
int timeline_read(timeline *t, const char *steps, error *e);

/* Before and after step `step` (from 1) and all that follows it; the second writes the file under `dir` when
 * it was the last to be traced, or the run ends with it, and says where it is.  A file that cannot be written
 * is reported, and the run goes on. Collective. */
void timeline_before(timeline *t, comm *world, int64_t step);
void timeline_after(timeline *t, comm *world, int64_t step, int ends, const char *dir);

#endif
