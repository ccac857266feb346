/* The statistics of a comparison: two runs' losses step by step, and their difference with what is known of
 * it. */
#ifndef CARACAL_TRAIN_COMPARE_STATS_H
#define CARACAL_TRAIN_COMPARE_STATS_H

#include <stdint.h>

#include "train/series.h"

/* A mean of paired differences and where it lies with 95% confidence. */
typedef struct estimate {
    double mean, low, high; /* low = high = NaN for fewer than three pairs */
    int64_t pairs;
} estimate;

/* Over d [n].  Neighbouring steps' differences resemble one another, so n counts as n (1 - r) / (1 + r)
 * independent ones, r being their correlation at one step's distance. */
estimate estimate_of(int64_t n, const double *d);

/* b - a over the steps that both have, as means over windows that slide. */
typedef struct difference {
    int64_t pairs;             /* steps in common */
    int equal;                 /* in all of them nothing differs */
    int64_t points;            /* at most 200 */
    double *step;              /* [points], the middle of each window */
    double *mean, *low, *high; /* [points] */
    int64_t window;            /* steps of a window */
    estimate last;             /* over the last window; NaN where there are no pairs */
} difference;

void difference_of(difference *d, const trace *a, const trace *b);
void difference_free(difference *d);

#endif
