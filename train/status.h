/* RUN_DIR/status.json: what a run says of itself while it goes on and when it ends.  A run that was killed
 * says nothing, so each word holds until the next one was to come. */
#ifndef CARACAL_TRAIN_STATUS_H
#define CARACAL_TRAIN_STATUS_H

#include <stdint.h>
#include <stdio.h>

#include "launch/error.h"

enum run_state {
    RUN_UNKNOWN, /* status.json is not there: an older run, or not begun */
    RUN_RUNNING,
    RUN_FINISHED,
    RUN_STOPPED, /* asked to: a checkpoint is there, and the same command goes on */
    RUN_FAILED,  /* ended with an error */
};

typedef struct run_status {
    int state;
    int64_t step, steps; /* done, of so many */
    double at;           /* when this was written, in seconds since 1970 */
    double every;        /* RUN_RUNNING: seconds to the next one, if all goes well, */
    double patience;     /* and after so many without one something is wrong */
    double left;         /* RUN_RUNNING: seconds to the end; NaN: not known yet */
    char why[512];       /* RUN_STOPPED, RUN_FAILED */
} run_status;

/* What is there is RUN_UNKNOWN if it cannot be read. */
void status_read(run_status *s, const char *run_dir);
int status_write(const run_status *s, const char *run_dir, error *e);

/* The clock of `at`. */
double status_clock(void);
/* At `now`, is it too long since a run said that it was running? */
int status_lost(const run_status *s, double now);
/* As a line of HTML, which says by itself when a page about a run that goes on has become old (with the
 * script, which also loads the page again); nothing if RUN_UNKNOWN. */
void status_html(FILE *out, const run_status *s, double now);

#endif
