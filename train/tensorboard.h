/* TensorBoard's event files, beside metrics.jsonl and with the same numbers: one scalar for each number of a
 * row, one for each layer where a row holds a list ("router_similarity/07").
 *
 * RUN_DIR/tensorboard/events.out.tfevents.*: a file for every start of the run.  A resumed run's file tells
 * TensorBoard to forget the steps that an earlier one wrote beyond its checkpoint. */
#ifndef CARACAL_TRAIN_TENSORBOARD_H
#define CARACAL_TRAIN_TENSORBOARD_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "launch/error.h"

typedef struct tensorboard {
    FILE *file;
    char *path;
} tensorboard;

/* Creates the file of a run that starts after `step`. */
int tensorboard_open(tensorboard *t, const char *run_dir, int64_t step, error *e);
/* Writes the numbers of a row of the run's records, named GROUP/key.  Borrows row. */
int tensorboard_row(tensorboard *t, const char *group, const json_t *row, error *e);
void tensorboard_close(tensorboard *t);

#endif
