/* What the files behind train/diff.h share. */
#ifndef CARACAL_TRAIN_DIFF_PARTS_H
#define CARACAL_TRAIN_DIFF_PARTS_H

#include "ckpt/ckpt.h"

enum side_kind { SIDE_RUN, SIDE_CHECKPOINT, SIDE_CHECKPOINTS };

/* A or B. */
typedef struct side {
    const char *path;
    enum side_kind kind;
    char directory[4096]; /* of checkpoints, unless it is one itself */
    int64_t *step, steps; /* of its checkpoints, ascending */
} side;

typedef struct comparison {
    comm *world;
    side side[2];
    int different;
    int config_told;     /* the configs have been compared */
    int64_t parted;      /* the first step whose metrics differ, -1: none */
    int64_t ckpt_equal;  /* the last step whose checkpoints are equal, and before `parted`; -1: none */
    int64_t ckpt_parted; /* the first step whose checkpoints differ, -1: none */
    int64_t compared;    /* pairs of checkpoints */
    int64_t ckpt_last;   /* the step of the last of them */
} comparison;

/* Prints the entries in which two JSON objects differ; returns how many. */
int diff_tell_entries(const json_t *a, const json_t *b);
/* The same for those config keys that decide numbers, under a heading. */
void diff_tell_config(comparison *c, const json_t *a, const json_t *b);

/* Compares the checkpoints of every step that both sides have, up to the first that differ, and prints it. */
int diff_checkpoints(comparison *c, error *e);

/* Path of a side's checkpoint (mem_free). */
char *diff_checkpoint_path(const side *s, int64_t step);

#endif
