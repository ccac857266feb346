/* Reads the .jsonl files of a run, one JSON object a line, each with a "step": also while the run is writing,
 * after a crash that cut the last line, and where a resumed run repeats steps (the later line counts). */
#ifndef CARACAL_TRAIN_JSONL_H
#define CARACAL_TRAIN_JSONL_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "launch/error.h"

typedef struct jsonl {
    FILE *file;
    char *line; /* the buffer of getline */
    size_t line_size;
    int64_t rows;   /* lines that count, in order of step */
    int64_t *step;  /* [rows] */
    long *offset;   /* [rows], in the file */
    int64_t next;   /* the row that jsonl_next gives */
    int64_t broken; /* lines before the last that are no JSON object with a step */
} jsonl;

/* A file that does not exist has no rows. */
int jsonl_open(jsonl *j, const char *path, error *e);
/* The next row, owned by the caller (json_decref); NULL at the end. */
json_t *jsonl_next(jsonl *j);
void jsonl_close(jsonl *j);

#endif
