/* What a sweep searches: axes, each a numeric key of the config with its values, and the point of every
 * trial.  A point depends on the axes, the seed and the trial's number, and on nothing else. */
#ifndef CARACAL_TRAIN_SWEEP_SPACE_H
#define CARACAL_TRAIN_SWEEP_SPACE_H

#include "train/config_table.h"

enum { SWEEP_AXES = 4, SWEEP_POINTS = 200, SWEEP_TRIALS = 9999, SWEEP_TEXT = 32 };

typedef struct sweep_axis {
    const config_key *key;
    int points;                           /* 0: any value from low to high, in a random search */
    char point[SWEEP_POINTS][SWEEP_TEXT]; /* as they are written in a config */
    double low, high;
    int log; /* evenly spread in the logarithm */
} sweep_axis;

typedef struct sweep_space {
    int axes;
    sweep_axis axis[SWEEP_AXES];
    int64_t trials;
    int random; /* 0: a grid, the first axis running fastest */
    uint64_t seed;
} sweep_space;

/* Fills *s from texts KEY=VALUE,VALUE,... or KEY=LOW:HIGH[:log][:POINTS] (5 points in a grid unless said).
 * trials = 0: all points of the grid; otherwise so many random points, of which the first n are those of a
 * search with n trials. */
int sweep_space_read(sweep_space *s, int axes, const char *const *text, int64_t trials, uint64_t seed,
                     error *e);
/* The value of one axis in a trial (from 0), as written in a config. */
void sweep_value(const sweep_space *s, int64_t trial, int axis, char text[SWEEP_TEXT]);
/* An axis in words: "0.01, 0.02, 0.05" or "from 0.0001 to 0.01, log".  Owned by the caller. */
char *sweep_axis_text(const sweep_axis *a);

#endif
