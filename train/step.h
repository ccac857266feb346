/* One training step, in the order in which things happen. */
#ifndef CARACAL_TRAIN_STEP_H
#define CARACAL_TRAIN_STEP_H

#include "train/state.h"

/* What a step says of itself.  Arrays have one entry per layer and belong to the caller (step_result_create).
 */
typedef struct step_result {
    double loss, lm, lb, z, mtp; /* averaged over the global batch; lb, z, mtp without coefficients */
    double lb_alpha;             /* the coefficient of lb */
    double lr, grad_norm, grad_rms_min, grad_rms_max;
    char grad_rms_min_group[64]; /* the group of parameters whose gradient is smallest */
    double hidden_l2, hidden_max, bias_min, bias_max;
    spike_verdict spike;              /* what the trainer makes of loss and norm */
    int finite;                       /* 0: loss or norm is not; nothing was updated */
    double ffn_mean_all, ffn_std_all; /* FFN experts per token over all layers */
    double *ffn_mean, *ffn_std, *load_max_over_mean, *router_similarity, *router_grad_ratio;
    double *layer_output_max; /* largest |element| of what a layer hands on */
    int64_t *count;           /* [layers][N+Z] */
} step_result;

void step_result_create(step_result *r, const model_config *c);
void step_result_destroy(step_result *r);

/* Numbers that every rank tells the others of each micro-batch. */
int64_t step_figures(const model_config *c);

/* Runs one step on this rank's micro-batches: tokens [turns][micro_batch_size][seq_len + 2] (host), turn by
 * turn. Collective.  When the loss or the gradient norm is not finite nothing is updated (r->finite = 0) and
 * the step still counts. */
void step_run(state *s, const int32_t *tokens, step_result *r);

#endif
