/* The choice of router_forward alone, from probabilities already made: the check backend repeats a backend's
 * choice from that backend's own probabilities, which may differ from ref's in the last bit. */
#ifndef CARACAL_KERNELS_REF_CHOOSE_H
#define CARACAL_KERNELS_REF_CHOOSE_H

#include "kernels/kernels.h"

void ref_router_choose(router_shape s, int32_t *index, real *weight, int64_t *count, const real *prob,
                       const real *bias);

#endif
