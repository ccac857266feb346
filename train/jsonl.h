/* Reads the .jsonl files of a run, one JSON object a line that begins with its "step": also while the run is
 * writing, after a crash that cut the last line, and where a resumed run repeats steps (the later line
 * counts).  Each line is parsed once. */
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
    long at;        /* where the file stands, -1: elsewhere */
    long known;     /* bytes of the file whose lines are known: those that have an end */
    int64_t rows;   /* lines that count, in order of step */
    int64_t room;   /* for so many rows */
    int64_t *step;  /* [rows] */
    long *offset;   /* [rows], in the file */
    int64_t next;   /* the row that jsonl_next gives */
    int64_t broken; /* lines that are no row, as far as they were read */
    int cut;        /* the last line has no end, yet */
} jsonl;

/* A file that does not exist has no rows. */
int jsonl_open(jsonl *j, const char *path, error *e);
/* Looks for lines that were added meanwhile.  1: what was known is no longer there, because a run that went
 * back to a checkpoint cut its records: they are to be opened again. */
int jsonl_more(jsonl *j);
/* The next row, owned by the caller (json_decref); NULL at the end. */
json_t *jsonl_next(jsonl *j);
void jsonl_close(jsonl *j); /* zeroed or closed is allowed */

#endif
