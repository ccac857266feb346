/* --exit-after: at which step boundary to stop, so that the checkpoint is written before the time is over.  A
 * pure function of the seconds that it is told. */
#ifndef CARACAL_TRAIN_DEADLINE_H
#define CARACAL_TRAIN_DEADLINE_H

#include <stdint.h>

enum { DEADLINE_STEPS = 16 };

typedef struct deadline {
    double at;                   /* the end, on the caller's clock */
    double step[DEADLINE_STEPS]; /* seconds of the latest steps */
    int64_t steps;               /* told so far */
    double validation, save;     /* seconds of the latest one; save: a guess until one was measured */
    double saved;                /* when the save under way will probably end; 0: none is */
} deadline;

void deadline_step(deadline *d, double seconds);
/* Could the next step, with a validation where it has one, and a save after it (which waits for the one under
 * way) last past the end?  No before the first step: a run that is started again and again must come forward.
 */
int deadline_reached(const deadline *d, double now, int validates);

#endif
