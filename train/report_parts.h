/* What the files behind train/report.h share: the data of a run, and the pieces of its page. */
#ifndef CARACAL_TRAIN_REPORT_PARTS_H
#define CARACAL_TRAIN_REPORT_PARTS_H

#include <stdio.h>

#include "train/config.h"
#include "train/report.h"
#include "train/series.h"

enum { EVAL_SOURCES = DATA_MAX_SOURCES + 1 }; /* and the total */

/* The validations of a run: loss [rows][EVAL_SOURCES], NaN where a source was not evaluated. */
typedef struct evaluations {
    int64_t rows;
    int sources, total; /* index of "total", or -1 */
    char *source[EVAL_SOURCES];
    double *step; /* [rows] */
    double *loss; /* [EVAL_SOURCES][rows] */
} evaluations;

typedef struct run_data {
    char *name;     /* the last part of the run directory's path */
    int has_config; /* config.yaml is there and readable */
    config c;
    series metrics, timing;
    evaluations eval;
    report_marks marks;
    double *smooth; /* the training loss, smoothed [metrics.bins]; NULL without metrics */
} run_data;

/* The column's latest value, or NaN. */
double run_last(const series *s, const char *key);
/* The middle of the finite bins of a column of width 1, or NaN. */
double run_median(const series *s, const char *key);
/* The latest loss of one source. */
double eval_last(const evaluations *v, int source);

/* Reads what is there of a run directory; run_free also after an error. */
int run_read(run_data *r, const char *run_dir, error *e);
void run_free(run_data *r);
/* Writes a file under a temporary name first, so that a page that is being looked at is never half a page. */
int whole_file(const char *path, void (*content)(FILE *, const void *), const void *data, error *e);

/* ---- the page (report_page.c) ---- */
void page_write(FILE *out, const void *run); /* const run_data * */
/* <html> to the headline, and what closes it. */
void page_begin(FILE *out, const char *title, const char *what);
void page_end(FILE *out);

/* ---- its charts (report_charts.c); each writes nothing when its data is missing ---- */
void charts_loss(FILE *out, const run_data *r, double width, double height, const char *class,
                 const char *head);
void charts_learning(FILE *out, const run_data *r);
void charts_experts(FILE *out, const run_data *r);
void charts_router(FILE *out, const run_data *r);
void charts_speed(FILE *out, const run_data *r);

/* ---- their looks (report_style.c) ---- */
extern const char report_page_style[];  /* of the page */
extern const char report_chart_style[]; /* of any drawing, in the page or alone */
/* The light one without CSS variables, which drawing programs do not read. */
void report_paper_style(FILE *out);

#endif
