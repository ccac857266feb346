/* A table of operations that keeps the time of another one's, for the step of `make bench`. */
#ifndef CARACAL_TESTS_TIMED_H
#define CARACAL_TESTS_TIMED_H

#include "kernels/kernels.h"

enum { TIMED_OPERATIONS = 40 };

/* What the calls of one operation cost together.  Bytes: every operand and result once, as if nothing lay in
 * a cache; FLOPs: of matrix products and attention (the lower triangle), 0 for what only streams memory. */
typedef struct timed_figure {
    const char *operation;
    int64_t calls;
    double seconds, flops, bytes;
} timed_figure;

/* k's operations are timed from now on; every user of k notices nothing.  Not for backends that answer before
 * they are done. */
void timed_open(kernels *k);
/* The figures so far, ended by one without a name; they live until timed_close. */
timed_figure *timed_figures(kernels *k);
/* Forgets what was counted. */
void timed_reset(kernels *k);
/* k is what it was. */
void timed_close(kernels *k);

#endif
