/* What the files behind train/report.h share: the pieces of a run's page. */
#ifndef CARACAL_TRAIN_REPORT_PARTS_H
#define CARACAL_TRAIN_REPORT_PARTS_H

#include <stdio.h>

#include "train/run_data.h"
#include "train/svg.h"

#define LOSS_UNIT "loss (nats per token)"

/* ---- the files: RUN_DIR/report.html and RUN_DIR/loss.svg (none without a step) ---- */
int report_page(const run_data *r, error *e);
int report_picture(const run_data *r, error *e);

/* ---- the page (report_page.c) ---- */
void page_write(FILE *out, const void *run); /* const run_data * */
/* <html> to the headline, and what closes it. */
void page_begin(FILE *out, const char *title, const char *what);
void page_end(FILE *out);

/* ---- its charts (report_charts.c); each writes nothing when its data is missing ---- */
void charts_loss(FILE *out, const run_data *r, double width, double height, const char *class,
                 const char *head);
void charts_learning(FILE *out, const run_data *r);
void charts_speed(FILE *out, const run_data *r);
/* What its lines are, in a sentence. */
void charts_loss_caption(const run_data *r, char text[256]);
/* A figure with its headline and what to look for in it; the same size of chart in each. */
void figure_begin(FILE *out, const char *title, const char *now, const char *caption);
void figure_end(FILE *out);
chart small_chart(FILE *out, const series *s, double right);

/* One value a step: its bins' range as a band, their mean as a line. */
typedef struct value_chart {
    const char *key, *title, *unit, *caption;
    int from_zero; /* the axis begins at 0 */
    int typical;   /* the headline is the median, not the latest value */
    double rule;   /* a reference line where positive */
    const char *rule_label;
} value_chart;
void chart_value(FILE *out, const series *s, value_chart v);

/* ---- layers against steps (report_experts.c) ---- */
void charts_experts(FILE *out, const run_data *r);
void charts_stability(FILE *out, const run_data *r);

/* ---- their looks (report_style.c) ---- */
extern const char report_page_style[];  /* of the page */
extern const char report_chart_style[]; /* of any drawing, in the page or alone */
/* The light one without CSS variables, which drawing programs do not read. */
void report_paper_style(FILE *out);

#endif
