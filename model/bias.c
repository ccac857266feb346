#include "model/bias.h"

#include <math.h>

#include "kernels/math.h"

static double rate(const router_config *c, int64_t step) {
    if (!c->bias_decay_steps) return c->bias_rate;
    double done = (double)step / (double)c->bias_decay_steps;
    return c->bias_rate * 0.5 * (1 + fixed_cos(M_PI * (done < 1 ? done : 1)));
}

static double clamped(double b, double bound) {
    if (!bound) return b;
    return b > bound ? bound : b < -bound ? -bound : b;
}

/* K_e/(K N) - T_i/(K T_all), over the counts gathered since the last move. */
static double error_of(const model_config *m, const router_config *c, const bias_history *h, int64_t i) {
    double k = (double)m->moe_topk;
    return c->expected_ffn_experts / (k * (double)m->n_routed_experts) -
           (double)h->waiting_N[i] / (k * (double)h->waiting_tokens);
}

static double move_of(const router_config *c, double e, double e1, double e2) {
    if (c->controller == CONTROLLER_SIGN) return (e > 0) - (e < 0);
    return c->bias_kp * (e - e1) + c->bias_ki * e + c->bias_kd * (e - 2 * e1 + e2);
}

void bias_step(const model_config *m, const router_config *c, int64_t step, const int64_t *count,
               int64_t tokens, bias_history *h, real *bias) {
    int64_t n = m->n_routed_experts;
    double mu = rate(c, step), common = 0;
    for (int64_t i = 0; i < n; i++) h->waiting_N[i] += count[i];
    h->waiting_tokens += tokens;
    if ((step + 1) % c->bias_update_interval) return;
    for (int64_t i = 0; i < n; i++) common += move_of(c, error_of(m, c, h, i), h->e1_N[i], h->e2_N[i]);
    double budget = (c->bias_budget_gain - 1) * common / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double e = error_of(m, c, h, i), move = move_of(c, e, h->e1_N[i], h->e2_N[i]) + budget;
        bias[i] = (real)clamped((double)bias[i] + mu * move, c->bias_clamp);
        h->e2_N[i] = h->e1_N[i];
        h->e1_N[i] = e;
    }
    for (int64_t i = 0; i < n; i++) h->waiting_N[i] = 0;
    h->waiting_tokens = 0;
}
