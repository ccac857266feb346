/* `caracal compare RUN RUN ...`: loss curves of runs over steps, tokens, time and FLOPs, their difference to
 * the first run, speed, experts, and the config keys in which they differ; as one page, as a picture, and in
 * words. */
#ifndef CARACAL_TRAIN_COMPARE_H
#define CARACAL_TRAIN_COMPARE_H

#include "train/compare_stats.h"
#include "train/report_parts.h"

enum { COMPARE_RUNS = 6 };

typedef struct compared_run {
    run_data run;        /* its trace: lm_loss */
    const char *path;    /* borrowed */
    difference to_first; /* this run's loss minus the first's; empty for the first */
    int64_t half;        /* bins on either side that its curves are means over */
    /* [metrics.bins]; seconds and flops since the first step, NaN where they are not known */
    double smooth[SERIES_BINS], seconds[SERIES_BINS], flops[SERIES_BINS]; /* smooth: lm_loss */
} compared_run;

typedef struct comparison {
    int runs;
    compared_run run[COMPARE_RUNS];
    int notes;
    const char *note[4]; /* why losses cannot be compared as they are, in sentences */
} comparison;

/* ---- reading (compare_read.c) ---- */
/* Into a zeroed *c; borrows the paths.  comparison_free also after an error. */
int comparison_read(comparison *c, int runs, char *const *path, error *e);
void comparison_free(comparison *c);

/* One line for each key in which configs differ: name and the values [c->runs]. */
typedef void compare_key(void *to, const char *key, char *const *value);
/* Calls line for each key that differs; returns how many do, -1 when a run has no readable
 * config.yaml.  COMPARE_HELD_OUT: the key of where held-out text lies. */
#define COMPARE_HELD_OUT "data.sources: valid"
int compare_configs(const comparison *c, compare_key *line, void *to);

/* ---- the page and the picture (compare_page.c); const comparison * ---- */
void compare_page(FILE *out, const void *comparison);
void compare_picture(FILE *out, const void *comparison);

/* argv[0] is the command's name.  Returns an exit code. */
int compare_command(int argc, char **argv);

#endif
