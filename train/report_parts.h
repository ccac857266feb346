/* What the files behind train/report.h share: the pieces of a run's page. */
#ifndef CARACAL_TRAIN_REPORT_PARTS_H
#define CARACAL_TRAIN_REPORT_PARTS_H

#include <stdio.h>

#include "train/run_data.h"
#include "train/svg.h"

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
/* A figure with its headline and what to look for in it; the same size of chart in each. */
void figure_begin(FILE *out, const char *title, const char *now, const char *caption);
void figure_end(FILE *out);
chart small_chart(FILE *out, const series *s, double right);

/* ---- layers against steps (report_experts.c) ---- */
void charts_experts(FILE *out, const run_data *r);
void charts_router(FILE *out, const run_data *r);

/* ---- their looks (report_style.c) ---- */
extern const char report_page_style[];  /* of the page */
extern const char report_chart_style[]; /* of any drawing, in the page or alone */
/* The light one without CSS variables, which drawing programs do not read. */
void report_paper_style(FILE *out);

#endif
