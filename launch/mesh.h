/* Which rank does what: the mesh of ranks, data x expert parallel, and the map from micro-batches to ranks.
 *
 * A step has V micro-batches.  P ranks (P divides V) share them in V / P turns; in a turn each rank has one.
 * `expert_parallel` ranks hold every expert once; there are G = P / expert_parallel such groups.  Expert
 * gradients are summed per class (v mod R, R = expert_replicas) and classes are folded in order, which is
 * what makes the result the same for every P (docs/determinism.md).
 */
#ifndef CARACAL_LAUNCH_MESH_H
#define CARACAL_LAUNCH_MESH_H

#include "launch/comm.h"

typedef struct parallel_config {
    int64_t expert_parallel; /* 0: auto, P / R where R divides P, else P */
    int64_t expert_replicas; /* R */
    int rank_invariant;      /* 1: the same bits whatever the number of ranks (docs/determinism.md) */
    int64_t chunks;          /* token chunks of an exchange */
    int transport;           /* how device memory travels (model/transport.h) */
    int overlap;             /* 0: exchanges are waited for where they start */
    int64_t threads;         /* per rank; 0: the cores divided by the ranks of this host */
    double expert_capacity;  /* room for received rows, in multiples of the expected load */
} parallel_config;

typedef struct mesh {
    comm *world;     /* all P ranks */
    comm *experts;   /* the ranks of my expert-parallel group; rank there = expert_rank */
    comm *replicas;  /* the ranks that hold the same experts; rank there = group */
    int ranks, rank; /* P and mine */
    int expert_parallel, expert_rank, groups, group;
    int replica_classes; /* R */
    int rank_invariant;
    int64_t micro_batches, turns;
} mesh;

/* The numbers of a mesh of so many ranks, without communicators and without a place in it, after checking
 * that they fit (naming keys and what is allowed). */
int mesh_plan(mesh *m, int64_t ranks, const parallel_config *c, int64_t micro_batches, int64_t experts,
              error *e);
/* The same for this world, with its groups. */
int mesh_open(mesh *m, comm *world, const parallel_config *c, int64_t micro_batches, int64_t experts,
              error *e);
void mesh_close(mesh *m);
/* From now on a step has so many micro-batches; mesh_plan has agreed to them. */
void mesh_batch(mesh *m, int64_t micro_batches);

/* The micro-batch of `rank` in a turn, and its expert class. */
int64_t mesh_micro_batch(const mesh *m, int64_t turn, int rank);
int mesh_class(const mesh *m, int64_t micro_batch);
/* How many sums of its experts' gradients a rank keeps for classes, beside the folded one: R / groups, and
 * none where R is 1. */
int mesh_accumulators(const mesh *m);
/* The world rank of the k-th micro-batch of a turn (v = turn * P + k). */
int mesh_rank_of(const mesh *m, int64_t k);

#endif
