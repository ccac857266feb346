/* What is known of a run from its directory: metrics.jsonl, timing.jsonl, eval.jsonl, config.yaml and
 * status.json, as far as they are there.  Read once, or again and again while the run writes them. */
#ifndef CARACAL_TRAIN_RUN_DATA_H
#define CARACAL_TRAIN_RUN_DATA_H

#include "train/config.h"
#include "train/jsonl.h"
#include "train/report.h"
#include "train/series.h"
#include "train/status.h"

enum { EVAL_SOURCES = DATA_MAX_SOURCES + 1 /* and the total */, EVAL_ROWS = 512, RUN_MARKERS = 96 };

/* The validations of a run, NaN where one does not have the value.  Of very many, the older ones are thinned
 * out. */
typedef struct evaluations {
    int64_t rows;
    int sources, total; /* index of "total", or -1 */
    char *source[EVAL_SOURCES];
    double *loss[EVAL_SOURCES]; /* [rows] each */
    double step[EVAL_ROWS];     /* [rows] */
    double bits[EVAL_ROWS];     /* bits per byte of all text */
    double accepted[EVAL_ROWS]; /* how often the MTP head's choice was the model's own */
} evaluations;

/* Something that happened at a step: a line across the loss curve. */
typedef struct run_marker {
    double step;
    const char *class; /* of its line and text, in report_style.c: "rule" for what was planned */
    char label[32];
} run_marker;

typedef struct run_data {
    char *directory, *name; /* name: the last part of the directory's path */
    int has_config;         /* config.yaml is there and readable */
    char *unreadable;       /* why not, NULL where it is not there */
    config c;
    jsonl metrics_log, timing_log, eval_log;
    series metrics, timing;
    evaluations eval;
    run_status status;
    report_marks marks;
    int markers;
    run_marker marker[RUN_MARKERS];
    int planned; /* of the markers: what the config says; then come those of the logs */
    char
        *spikes; /* what is said of steps whose loss leapt, as HTML (report_spikes.c); NULL: there are none */
    int spiking; /* the last row was one */
    double smooth[SERIES_BINS]; /* the training loss, smoothed [metrics.bins] */
    int64_t half;               /* over so many bins on either side */
} run_data;

/* EXIT_USAGE unless a run has begun there. */
int run_expected(const char *run_dir, error *e);
/* Reads what is there of a run directory; whole: a value of metrics.jsonl of which every step is kept, or
 * NULL.  run_free also after an error. */
int run_read(run_data *r, const char *run_dir, const char *whole, error *e);
/* Reads what was added to the logs meanwhile. */
void run_update(run_data *r);
void run_free(run_data *r);

/* Calls line with a sentence for each thing that is not there or cannot be read, and what is left out for it;
 * returns how many there are (run_gaps.c). */
typedef void run_gap(void *to, const char *text);
int run_gaps(const run_data *r, run_gap *line, void *to);
/* To stderr, and as paragraphs of a page, which begin with a name unless that is NULL. */
void run_tell_gaps(const run_data *r);
void run_gaps_html(FILE *out, const run_data *r, const char *name);

/* Notes what a row of metrics.jsonl says of spikes (report_spikes.c). */
void run_note_spikes(run_data *r, const json_t *row);
/* One more marker, unless there are RUN_MARKERS.  class: not copied. */
void run_mark(run_data *r, int64_t step, const char *class, const char *label);

/* The column's latest value, or NaN. */
double run_last(const series *s, const char *key);
/* The middle of the finite bins of a column of width 1, or NaN. */
double run_median(const series *s, const char *key);
/* The latest held-out loss of all text, NaN if there is none. */
double run_held_out(const run_data *r);

#endif
