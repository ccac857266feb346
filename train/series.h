/* What a picture needs of a log: each value gathered into a few hundred bins of steps, so that a run of a
 * million steps costs no more memory and no larger a picture than a short one.  Rows may come one by one,
 * while the run goes on. */
#ifndef CARACAL_TRAIN_SERIES_H
#define CARACAL_TRAIN_SERIES_H

#include <jansson.h>
#include <stdint.h>

#include "launch/error.h"

enum { SERIES_BINS = 400, SERIES_COLUMNS = 24 };

typedef struct column {
    const char *key;
    int64_t width; /* 1, or the number of layers; 0: the log does not have it */
    double *sum;   /* [bins][width] */
    int64_t *count;
    double *mean, *low, *high; /* [bins][width]; not finite where a bin has no finite value */
    double last;               /* of a column of width 1: the latest finite value, NaN if there is none */
} column;

/* One value step by step, where it is finite. */
typedef struct trace {
    int64_t n, room;
    int64_t *step;
    double *value;
} trace;

typedef struct series {
    int64_t rows, first, last; /* rows, and the steps of the first and the last */
    int64_t bins, per;         /* bins, of so many steps each; the last may have fewer */
    double step[SERIES_BINS];  /* [bins], the middle of each */
    int columns;
    column column[SERIES_COLUMNS];
    const char *whole; /* the key of `trace`; NULL: none */
    trace trace;
} series;

/* Gathers the named values of rows: numbers, or arrays with one number per layer.  whole: the name of one of
 * which every value is kept, or NULL.  Borrows the names. */
void series_open(series *s, int keys, const char *const *key, const char *whole);
/* A row of the log, with the step it has; steps rise. */
void series_row(series *s, const json_t *row);
/* Makes step and mean those of the rows so far; more may follow. */
void series_settle(series *s);
/* The same of a whole .jsonl file, which may be absent. */
int series_read(series *s, const char *path, int keys, const char *const *key, error *e);
void series_free(series *s);

/* NULL when the log has no such value. */
const column *series_find(const series *s, const char *key);

/* out [n] = mean of the finite values among y[i - half .. i + half], fewer near the start, so that a steep
 * start keeps its place; NaN where y is not finite. */
void series_smooth(int64_t n, double *out, const double *y, int64_t half);
/* Steps that such a mean is over, of the bins of s. */
int64_t series_window(const series *s, int64_t half);

/* The latest finite value of y [n], NaN if there is none. */
double series_last(int64_t n, const double *y);

/* The value that a part `at` of the finite values (0.5: the median) do not exceed; NaN if there are none.
 * Reorders x. */
double series_quantile(int64_t n, double *x, double at);

#endif
