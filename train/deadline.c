#include "train/deadline.h"

void deadline_step(deadline *d, double seconds) {
    d->step[d->steps++ % DEADLINE_STEPS] = seconds;
}

int deadline_reached(const deadline *d, double now, int validates) {
    double longest = 0;
    for (int64_t i = 0; i < d->steps && i < DEADLINE_STEPS; i++)
        if (d->step[i] > longest) longest = d->step[i];
    double next = now + longest + (validates ? d->validation : 0);
    if (next < d->saved) next = d->saved;
    return d->steps > 0 && next + d->save > d->at;
}
