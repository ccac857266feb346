/* The mixture of experts of one layer: router, dispatch, expert FFNs, combine, and the way back.
 *
 * The steps are separate functions, so that the layer (model/scmoe.c) can put dense work between them: that
 * is what the shortcut is for.  Forward: route, dispatch, experts, combine.  Backward: the same names.
 */
#ifndef CARACAL_MODEL_MOE_H
#define CARACAL_MODEL_MOE_H

#include "model/context.h"
#include "model/params.h"

/* What is watched, and what the load-balance loss and the bias controller need, of one layer and micro-batch.
 */
typedef struct moe_stats {
    double lb;                   /* load-balance loss (Eq. 3-5), without alpha */
    int64_t ffn_sum, ffn_sum_sq; /* over tokens: FFN experts chosen, and its square */
    int64_t *count_E;            /* selections; host memory */
    real *dprob_sum_E;           /* dLM/dP without the layer's own LB term, summed over tokens; likewise */
} moe_stats;

/* How far the mixture is in the pass at hand. */
typedef enum { MOE_ROUTED, MOE_SENT, MOE_ANSWERED } moe_stage;

typedef struct moe_saved {
    moe_stage stage; /* the layer's to keep */
    real *prob_TE, *weight_TK;
    int32_t *index_TK, *index_host;
    int64_t *count_E; /* what `stats` has, for kernels */
    real *sum_E;
    exchange_plan plan;
    real *x_QH, *weight_Q, *gate_up_Q2F; /* received rows, their router weights, gate and up of round 0 */
    moe_stats stats;
    double loss_scale; /* of this micro-batch in the step's loss */
} moe_saved;

/* Routing and received rows survive recomputation. */
void moe_saved_create(moe_saved *s, const places *a, const context *x);
/* Scratch of the context. */
void moe_scratch_create(context *x, const places *a);

/* Chooses experts for y_TH (Eq. 1).  loss_scale: the factor of this micro-batch's losses in the step's
 * (1 / micro_batches). */
void moe_route(context *x, moe_saved *s, const real *router, const real *bias_E, const real *y_TH,
               double loss_scale);
/* Waits for the choices and starts telling the group how many rows go where. */
void moe_announce(context *x, moe_saved *s);
/* Starts sending the tokens. */
void moe_dispatch(context *x, moe_saved *s, const real *y_TH);
/* Expert FFNs on what arrives, chunk by chunk; starts sending the answers. */
void moe_experts(context *x, moe_saved *s, const layer_tensors *w);
/* out_TH += the experts' answers and the identity part (Eq. 8). */
void moe_combine(context *x, moe_saved *s, real *out_TH, const layer_tensors *w, const real *y_TH);

/* Group j of the load-balance loss: D groups of FFN experts (j < D), then the identity experts (j = D).
 * Returns f_j (Eq. 5) for these counts over `tokens` tokens, which is 1 everywhere when the budget of K_e FFN
 * experts per token is met evenly; sets the group's experts [first, end). */
double moe_lb_group(const model_config *c, const router_config *r, const int64_t *count_E, double tokens,
                    int64_t j, int64_t *first, int64_t *end);

/* Recomputes gate and up of the rows that are kept. */
void moe_recompute(context *x, moe_saved *s, const layer_tensors *w);

/* Starts sending the gradient of the layer's output to the experts. */
void moe_backward_dispatch(context *x, moe_saved *s, const real *dout_TH);
/* Gradients of the experts: the rows' go home, the weights' are added to class_grad[class], an array of this
 * rank's experts for every class of the turn (+=). */
void moe_backward_experts(context *x, moe_saved *s, const layer_tensors *w, real *const *class_grad,
                          const int *class_of);
/* Right after moe_backward_experts: the kept gate and up, and the rows' gradients, computed once more
 * (model/recheck.h). */
void moe_recheck(context *x, const moe_saved *s, const layer_tensors *w);
/* dy_TH += the experts' part, the identity part and the router's; router_grad = or +=, as x->accumulate says.
 */
void moe_backward_combine(context *x, moe_saved *s, real *dy_TH, real *router_grad, const layer_tensors *w,
                          real *const *class_grad, const int *class_of, const real *y_TH,
                          const real *dout_TH);
/* After a micro-batch's backward: s->stats.dprob_sum_E is the host's after the caller's twin_fetched. */
void moe_read_stats(const context *x, moe_saved *s);

#endif
