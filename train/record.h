/* A record of the run: lines of JSON, each with its step, appended to a file in order.  A disk that is full
 * or fails does not end the run: lines wait in memory and go with later ones, so that none is lost or
 * doubled. */
#ifndef CARACAL_TRAIN_RECORD_H
#define CARACAL_TRAIN_RECORD_H

#include <jansson.h>
#include <stdint.h>

#include "launch/error.h"

typedef struct record {
    char *path;
    int fd, failing;       /* failing: it was said that lines wait */
    int64_t durable;       /* bytes of the file that are safe */
    char *recent;          /* what follows them: all of it stays here until the disk has it, because a sync */
    size_t written, bytes; /* that failed may have lost any of it; so much went to the file, of so much */
    size_t room;
} record;

/* Opens RUN_DIR/NAME after cutting it back to lines of at most `step`, and what a crash left of one. */
int record_open(record *r, const char *run_dir, const char *name, int64_t step, error *e);
/* Appends a line; that it cannot be written, and that it can again, is told on stderr. */
void record_line(record *r, const json_t *line);
/* Makes all lines durable. */
int record_sync(record *r, error *e);
void record_close(record *r); /* zeroed or closed is allowed */

#endif
