/* AdamW over the parameter table, its state sharded over the ranks that replicate a parameter. */
#ifndef CARACAL_OPTIM_OPTIMIZER_H
#define CARACAL_OPTIM_OPTIMIZER_H

#include "optim/config.h"
#include "optim/gradients.h"
#include "optim/guard.h"
#include "optim/transfer.h"

typedef struct optimizer {
    optim_config c;
    const params *p;
    const kernels *k;
    const mesh *mesh;
    gradients *g;
    real *weights; /* this rank's, as params lays them out */
    double lr_factor[PARAM_GROUPS];
    int64_t pieces, copies;
    piece *piece;             /* what this rank owns; */
    piece *copy;              /* and its copies of what others own, bucket by bucket in the table's order */
    guard *guard;             /* verifies both before an update and notes them after it; NULL: nobody does */
    real *m, *v;              /* [owned] moments, zero at the start */
    int64_t steps, mtp_steps; /* updates done; the MTP head counts its own */
    int mtp_waits;            /* the MTP head is left as it is: no norm, no update, no decay */
    size_t *byte_cut;         /* [P + 1] */
    double *sums_table, *block_sums;         /* [blocks of the table], and its twin on the host */
    uint64_t *digests_table, *block_digests; /* likewise */
} optimizer;

typedef struct gradient_figures {
    double norm;             /* of the whole gradient, before clipping */
    double rms_min, rms_max; /* over the groups of parameters: each bucket's dense ones and its experts */
    char rms_min_group[64];  /* whose rms_min is, in words */
    int finite;              /* the norm is, and what clipping leaves has squares that a float holds */
} gradient_figures;

void optimizer_create(optimizer *o, const optim_config *c, const params *p, real *weights, gradients *g,
                      const kernels *k, const mesh *mesh);
/* Nothing happens to one that was never created and is all zero. */
void optimizer_destroy(optimizer *o);
/* Learning rates of each group as found with another width; 1 times the schedule's until then. */
void optimizer_transfer(optimizer *o, const transfer_config *c, int64_t hidden);

/* Norm over fixed blocks in the table's order: the same on any number of ranks. */
gradient_figures optimizer_gradient(optimizer *o);
/* Learning rate of step `step` (from 0). */
double optimizer_learning_rate(const optim_config *c, int64_t step);
/* Clips by the norm and updates every owned piece, then gathers the new weights on all ranks. */
void optimizer_update(optimizer *o, double lr, double norm);
/* Notes everything, or verifies it all, outside an update: when weights were loaded, before a save. */
void optimizer_guard_note(optimizer *o);
void optimizer_guard_verify(optimizer *o);
/* Digest of all weights (which = 0), first (1) or second (2) moments: XXH3-64 over the block digests. */
uint64_t optimizer_digest(optimizer *o, int which);
/* The same of one bucket, out of what the last optimizer_digest gathered. */
uint64_t optimizer_bucket_digest(const optimizer *o, int64_t bucket);

#endif
