/* The router-bias controller (report Eq. 2 in PID velocity form): a pure function of the counts.
 *
 * In velocity form the bias itself is the integral, so the clamp is the anti-windup as well: nothing is
 * summed up behind a bias that stands at its bound, and it leaves as soon as the error turns. */
#ifndef CARACAL_MODEL_BIAS_H
#define CARACAL_MODEL_BIAS_H

#include "kernels/kernels.h"
#include "model/config.h"

/* What the controller remembers of one layer; part of every checkpoint. */
typedef struct bias_history {
    double *e1_N, *e2_N; /* the errors of the last two moves */
    int64_t *waiting_N;  /* counts gathered since the last move (bias_update_interval) */
    int64_t waiting_tokens;
} bias_history;

/* One step (counted from 0) of one layer.  count_E: selections over the global batch of `tokens` tokens.
 *   e_i = K_e/(K N) - T_i/(K T_all);  b_i += mu(step) (kp (e - e') + ki e + kd (e - 2e' + e''))
 * or, with the sign rule that others use, b_i += mu(step) sign(e_i); then |b_i| is held to bias_clamp.
 * bias_budget_gain multiplies the mean of the experts' moves, which is all that changes how many FFN experts
 * a token gets, and leaves what sets them apart.  That mean is free of most of an expert's count noise, so it
 * can be pursued much faster than balance can.
 * bias_E: the FFN experts' entries move, the identity experts' stay zero. */
void bias_step(const model_config *m, const router_config *c, int64_t step, const int64_t *count_E,
               int64_t tokens, bias_history *h, real *bias_E);

#endif
