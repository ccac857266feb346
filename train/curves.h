/* `caracal curves`: what an experiment says.  Its arms, each a run or the same run with several seeds, as
 * curves in one picture, and a table in Markdown of where they end. */
#ifndef CARACAL_TRAIN_CURVES_H
#define CARACAL_TRAIN_CURVES_H

#include "train/report_parts.h"

enum curve_axis { OVER_STEPS, OVER_TOKENS, OVER_FLOPS, CURVE_AXES };
enum { ARMS = 12, ARM_RUNS = 8, ARM_PARTS = 4, CURVE_KEYS = 3, CURVE_LINES = 4 };

/* One curve: a run, or a run and what was grown from it. */
typedef struct arm_run {
    int parts;
    run_data part[ARM_PARTS];
    series log[ARM_PARTS];     /* the keys of the picture, then "tokens" */
    int64_t points;            /* of all parts: their steps, or bins of them (series.h) */
    double *axis[CURVE_AXES];  /* [points]; NaN where it is not known */
    double *value[CURVE_KEYS]; /* [width + 1][points]: each layer, and last the mean of them */
    int64_t width[CURVE_KEYS]; /* layers of a key, those that every part has; or 1 */
} arm_run;
static inline long long arm_run_last(const arm_run *r) { /* step */
    return r->log[r->parts - 1].last;
}

typedef struct arm {
    char panel[48], name[48]; /* panel: which of the pictures beside one another it is in */
    int runs;
    arm_run run[ARM_RUNS];
} arm;

/* A line at a value (of the first key) or at a step. */
typedef struct curve_line {
    char label[48];
    double at;
} curve_line;

typedef struct curves {
    int arms, keys, rules, marks;
    arm *arm;
    const char *key[CURVE_KEYS], *label[CURVE_KEYS];
    curve_line rule[CURVE_LINES], mark[CURVE_LINES];
    const char *title;
    enum curve_axis axis;
    int by_layer;         /* every layer's own line, and each arm its own panel */
    int64_t smooth, from; /* steps that a curve and an end are means over; the first step shown */
} curves;

/* Mean and sample deviation over the seeds of an arm; with one seed the deviation is NaN. */
void curves_spread(int n, const double *x, double *mean, double *deviation);

/* Reads one more arm, as the command line says it: [PANEL:]NAME=RUN_DIR[+RUN_DIR][,RUN_DIR...].  keys, key,
 * label and by_layer are set before. */
int curves_arm(curves *c, const char *word, error *e);
void curves_free(curves *c); /* also after an error */

/* ---- curves_picture.c; const curves * ---- */
void curves_picture(FILE *out, const void *curves);
/* ---- curves_table.c: on stdout ---- */
/* Where an arm's runs end: the means of their last `smooth` steps, over all layers, as curves_spread has
 * them. */
void curves_end(const curves *c, const arm *a, int k, double *mean, double *deviation);
void curves_ends(const curves *c);
void curves_phases(const curves *c);

/* argv[0] is the command's name.  Returns an exit code. */
int curves_command(int argc, char **argv);

#endif
