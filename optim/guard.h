/* Digests of what a rank keeps from one update to the next: its weights and, when asked for, the moments of
 * what it owns.  They are noted when the update has written a block, and verified when the next update (or a
 * checkpoint) reads it: a bit that turned in memory meanwhile is found by this rank alone, before the update
 * hides it. */
#ifndef CARACAL_OPTIM_GUARD_H
#define CARACAL_OPTIM_GUARD_H

#include "launch/error.h"
#include "model/params.h"

/* A run of elements of one parameter on this rank; begins at a SUM_BLOCK of it.  What the rank owns has a
 * gradient and moments; a copy of what another rank owns has none. */
typedef struct piece {
    int64_t param, offset, count;
    real *weight, *gradient, *m, *v;
} piece;

/* The number of its first block, counted over the whole table. */
int64_t piece_block(const params *p, const piece *q);
/* How many of n pieces, one at least, are whole blocks of one bucket and group that lie behind one another,
 * in memory as in the table: one call of an operation is enough for all their `count` elements.  Such are a
 * layer's experts, of which there may be thousands. */
int64_t pieces_in_a_row(const params *p, const piece *q, int64_t n, int64_t *count);

enum { GUARD_WEIGHT, GUARD_MOMENT_1, GUARD_MOMENT_2, GUARDED };

typedef struct guard {
    const params *p;
    const kernels *k;
    uint64_t *digest[GUARDED]; /* [blocks of the table]; of blocks that this rank holds */
    int note_moments;          /* of the coming update: note moments too, which costs as much again */
    int moments_noted;         /* by the last update */
    uint64_t *table, *now;     /* [blocks of the table]: scratch, and its twin on the host */
    real *block;               /* scratch in host memory */
    error found;               /* the first change: EXIT_SDC, naming tensor, element and values */
} guard;

void guard_create(guard *g, const params *p, const kernels *k);
/* Nothing happens to one that was never created and is all zero. */
void guard_destroy(guard *g);

/* Notes what n pieces, all of them owned or all of them copies, hold now. */
void guard_note(guard *g, const piece *q, int64_t n);
/* Compares with what was noted last. */
void guard_verify(guard *g, const piece *q, int64_t n);

#endif
