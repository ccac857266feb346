/* Gradients of a step, folded in the order of the micro-batches whatever the number of ranks.
 *
 * Dense parameters: every micro-batch's gradient is computed from zero into a buffer of its bucket, and
 * ((g0 + g1) + g2) + ... is summed by the parameter's owner: each rank owns one part of each bucket
 * (params_cut), gets that part from all ranks of the turn, and adds them in the order of v.
 * A rank alone needs no buffer for the first of them, g0, which is the sum so far.
 * Experts: weight gradients are summed on the holder, one accumulator per class (micro-batch mod R); at the
 * step's end each owner among the replicas folds the classes in order.  A class alone has its sum with the
 * owner.
 *
 * Where the number of ranks may decide bits (parallel.rank_invariant = false) and a step has several turns,
 * each rank keeps a dense gradient of its own, the model adds each micro-batch to it, and it is folded over
 * the ranks once, in the last turn.
 */
#ifndef CARACAL_OPTIM_GRADIENTS_H
#define CARACAL_OPTIM_GRADIENTS_H

#include "launch/mesh.h"
#include "model/params.h"
#include "model/transport.h"

/* Buffers of dense gradients: one for each kind of bucket, two for layers, so that one travels while the next
 * fills.  Where others read them in place there are three: one fills, others read the second, and have read
 * the third by then, so that filling it next waits for nobody. */
enum { SLOT_EMBEDDING, SLOT_HEAD, SLOT_MTP, SLOT_LAYER_0, SLOT_LAYER_1, SLOT_LAYER_2, GRADIENT_SLOTS };

typedef struct gradient_slot {
    real *buffer;   /* this rank's micro-batch; NULL when `local` holds it */
    real *sent;     /* what travels: the buffer, or the bucket's part of `local` */
    real *received; /* [P][largest part] of the others'; NULL: it is read where they have it */
    int64_t part;   /* elements of the largest part; 0: the model has no such bucket */
    int64_t bucket; /* which bucket travels and is not added yet, -1: none */
    int first;      /* of the step: the sum starts here */
    transport_request *request;
} gradient_slot;

typedef struct gradients {
    const params *p;
    const kernels *k;
    const mesh *mesh;
    transport *world, *replicas; /* among the mesh's groups of these names */
    gradient_slot slot[GRADIENT_SLOTS];
    real *local;                   /* this rank's sums of dense gradients, NULL: every turn is folded */
    int64_t *local_at;             /* [buckets] */
    int layer_slots;               /* that take turns: gradients_layer_slots */
    comm_part *parts;              /* message lists, as long as the longest */
    const real **part;             /* [P or R] what is added */
    int64_t *dense_cut;            /* [buckets][P + 1] */
    int64_t *expert_cut;           /* [buckets][G + 1] */
    int64_t *dense_at, *expert_at; /* [buckets] where my part lies in `owned` */
    int64_t owned_count;
    /* the folded gradient of what this rank owns: of each bucket its dense part, then its experts' */
    real *owned;
    int64_t classes;   /* class accumulators of this rank (mesh_accumulators) */
    real *class_grad;  /* [classes][expert elements of all buckets] */
    int64_t *class_at; /* [buckets] */
    int64_t class_count;
    real *class_received;  /* [R][largest expert part] */
    real **class_of_layer; /* [R] the list given to model_layer_backward */
    size_t bytes;          /* of the backend's memory, for all of these */
} gradients;

/* How many buffers the layers' dense gradients take turns in; shares: others read them in place. */
int gradients_layer_slots(const mesh *m, int shares);
void gradients_create(gradients *g, const params *p, const kernels *k, const mesh *mesh);
/* Nothing happens to one that was never created and is all zero. */
void gradients_destroy(gradients *g);

/* Before a step: the experts' accumulators are zeroed. */
void gradients_begin(gradients *g);
/* Whether the model adds a turn's dense gradients to what the buffers hold, or overwrites it. */
int gradients_accumulate(const gradients *g, int64_t turn);
/* The buffer to put a bucket's dense gradient of this turn into; waits until an earlier use has been folded.
 */
real *gradients_buffer(gradients *g, int64_t bucket, int64_t turn);
/* The embedding's, to add a micro-batch's gradient to, once for each row: zeros, or on a rank alone the sum
 * itself, of whose rows few are touched. */
real *gradients_embedding(gradients *g, int64_t turn);
/* A bucket's buffer is complete for this turn (from 0) of the step: starts its fold, which may last into the
 * next turn. */
void gradients_fold(gradients *g, int64_t bucket, int64_t turn);
/* Adds what has come and is not added yet, and waits for nothing: its owners may fill that memory again. */
void gradients_progress(gradients *g);
/* Experts' accumulators of a layer by class, NULL for classes of other groups. */
real *const *gradients_classes(gradients *g, int64_t layer);
/* After the last turn: waits for all folds, and folds the experts' classes. */
void gradients_end_step(gradients *g);

#endif
