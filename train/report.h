/* The report of a run: one self-contained HTML page, and the loss curve as a picture of its own.
 * Made from metrics.jsonl, timing.jsonl, eval.jsonl and config.yaml of a run directory, as far as they are
 * there: a run that has not begun, is under way or has crashed gives a page too. */
#ifndef CARACAL_TRAIN_REPORT_H
#define CARACAL_TRAIN_REPORT_H

#include "launch/error.h"

enum { REPORT_MARKS = 8 };

/* Horizontal lines in the loss curve: what a simple model of the same text reaches. */
typedef struct report_marks {
    int n;
    struct {
        char label[48]; /* "unigram entropy" */
        double loss;    /* nats per token */
    } mark[REPORT_MARKS];
} report_marks;

/* Writes RUN_DIR/report.html and RUN_DIR/loss.svg, each under a temporary name first, and says on stderr, as
 * the page does, what it has to leave out.  marks may be NULL. */
int report_write(const char *run_dir, const report_marks *marks, error *e);

/* `caracal report RUN_DIR [--mark=LABEL:LOSS ...]`; argv[0] is the command's name.  Returns an exit code. */
int report_command(int argc, char **argv);

#endif
