/* Everything that a training run is: what a step changes and what a checkpoint holds. */
#ifndef CARACAL_TRAIN_STATE_H
#define CARACAL_TRAIN_STATE_H

#include "model/bias.h"
#include "model/model.h"
#include "optim/optimizer.h"
#include "train/config.h"
#include "train/sdc.h"
#include "train/spike.h"

typedef struct state {
    const config *run; /* of the whole run; the caller's */
    config c;          /* the same with the batch of the stage at hand (borrowed strings) */
    int64_t stage;
    mesh mesh;
    comm *host; /* the ranks of this host */
    int cores;  /* of them this rank's, as threads: auto takes them */
    kernels k;
    char transport[TRANSPORT_TEXT]; /* how device memory travels between ranks, in words */
    model model;
    gradients gradients;
    optimizer optimizer;
    bias_history *history; /* [layers] */
    sdc sdc;
    spikes spikes;
    int64_t step;        /* steps done */
    int64_t position;    /* samples used or left out: the loader's counter */
    double *sample_loss; /* [samples of a step] of this rank's micro-batches, 0 for the others */
    /* figures of a step, folded in the order of the micro-batches */
    int64_t figures;
    double *figure, *figure_all, *figure_sum; /* [n], [P][n], [n] */
    comm_request *figures_told;               /* those of the last turn, while figures_wait to be added */
    int figures_wait;
    double *row_sum; /* scratch [H] */
    /* where the backend's memory is not the host's: a layer's router, and what a checkpoint takes from the
     * device, [3][owned] weights and moments of the optimizer's pieces; NULL elsewhere */
    real *router, *pieces;
} state;

/* Opens backend, mesh and model for `c`; weights are zero, biases and history too.  eos: from the tokenizer.
 * training = 0: the model alone, for forward passes; gradients, optimizer, history and figures stay empty. */
int state_create(state *s, const config *c, comm *world, int64_t eos, int training, error *e);
void state_destroy(state *s);
/* Before step `step` (from 0): takes the shape of its stage, and lets the MTP head in when its time has come.
 */
void state_enter(state *s, int64_t step);
/* Fresh weights from train.seed. */
void state_initialise(state *s);
/* Everything that training changed, but the weights, as state_create left it: moments, router biases and
 * their controllers, statistics, counters. */
void state_reset(state *s);
/* The load-balance loss counts so much from now on. */
void state_set_lb_alpha(state *s, double alpha);

/* What model_create is given for this config. */
model_config_all state_model_config(const config *c, int64_t eos);

#endif
