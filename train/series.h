/* What a picture needs of a log: each value gathered into a few hundred bins of steps, so that a run of a
 * million steps costs no more memory than a short one. */
#ifndef CARACAL_TRAIN_SERIES_H
#define CARACAL_TRAIN_SERIES_H

#include <stdint.h>

#include "launch/error.h"

enum { SERIES_BINS = 400, SERIES_COLUMNS = 16 };

typedef struct column {
    const char *key;
    int64_t width;             /* 1, or the number of layers; 0: the log does not have it */
    double *mean, *low, *high; /* [bins][width]; NaN where a bin has no finite value */
    double last;               /* of a column of width 1: the latest finite value, NaN if there is none */
} column;

typedef struct series {
    int64_t rows, first, last; /* lines, and the steps of the first and the last */
    int64_t broken;            /* unreadable lines inside the log */
    int64_t bins;
    double *step; /* [bins], the middle of each */
    int columns;
    column column[SERIES_COLUMNS];
} series;

/* Reads the named values of a .jsonl file: numbers, or arrays with one number per layer. */
int series_read(series *s, const char *path, int keys, const char *const *key, error *e);
/* NULL when the log has no such value. */
const column *series_find(const series *s, const char *key);
void series_free(series *s);

/* out [n] = mean of the finite values among y[i - half .. i + half], fewer near the start, so that a steep
 * start keeps its place; NaN where y is not finite. */
void series_smooth(int64_t n, double *out, const double *y, int64_t half);

/* The latest finite value of y [n], NaN if there is none. */
double series_last(int64_t n, const double *y);

/* The value that a part `at` of the finite values (0.5: the median) do not exceed; NaN if there are none.
 * Reorders x. */
double series_quantile(int64_t n, double *x, double at);

#endif
