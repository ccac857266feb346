/* The coefficient of the load-balance loss, where it is to keep R_g (report: below 0.1) at a target. */
#ifndef CARACAL_MODEL_BALANCE_H
#define CARACAL_MODEL_BALANCE_H

#include "model/config.h"

/* The coefficient after a step that had c->lb_alpha and in whose worst layer R_g was `ratio`:
 *   alpha (target / ratio)^(1/10), a factor of at most 2 either way and never above 1.
 * R_g is proportional to alpha, so that ln R_g goes a tenth of its way a step, and a batch's noise hardly
 * shows.  One coefficient for all layers, as the loss has it: what holds for the worst layer holds for all.
 * Without a target, or where R_g was 0 or not finite, alpha stays. */
double balance_step(const router_config *c, double ratio);

#endif
