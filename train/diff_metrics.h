/* Two runs' metrics.jsonl side by side, for `caracal diff`. */
#ifndef CARACAL_TRAIN_DIFF_METRICS_H
#define CARACAL_TRAIN_DIFF_METRICS_H

#include <jansson.h>
#include <stdint.h>

#include "launch/error.h"

typedef struct metrics_difference {
    int64_t rows[2], first[2], last[2]; /* lines of each run and the steps that they span */
    int64_t broken[2];                  /* unreadable lines inside */
    int64_t common;                     /* steps that both have */
    int64_t only[2], first_only[2];     /* steps that one alone has, and the first of them */
    int64_t parted;                     /* the first step whose quantities differ, -1: none */
    int64_t same;                       /* the last common step before it (of all, without one), -1: none */
    json_t *line[2];                    /* both lines of `parted` */
    /* digests of all parameters, where both runs have them */
    int64_t digest_same, digest_parted; /* the last step of equal ones, the first of different ones; -1 */
    json_t *digest[2];                  /* of digest_parted */
} metrics_difference;

/* Compares run directories `a` and `b`, step by step.  A run without metrics.jsonl has no lines. */
int metrics_compare(metrics_difference *m, const char *a, const char *b, error *e);
/* Prints it. */
void metrics_tell(const metrics_difference *m);
void metrics_difference_free(metrics_difference *m);

#endif
