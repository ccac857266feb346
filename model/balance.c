#include "model/balance.h"

#include <math.h>

#include "kernels/math.h"

double balance_step(const router_config *c, double ratio) {
    if (!(c->grad_ratio_target > 0) || !(ratio > 0) || !isfinite(ratio)) return c->lb_alpha;
    double factor = fixed_pow(c->grad_ratio_target / ratio, 0.1);
    double alpha = c->lb_alpha * (factor > 2 ? 2 : factor < 0.5 ? 0.5 : factor);
    return alpha > 1 ? 1 : alpha;
}
