/* Initialisation: every number of a weight depends on (seed, tensor name, element index) alone. */
#ifndef CARACAL_MODEL_INIT_H
#define CARACAL_MODEL_INIT_H

#include "model/params.h"

/* weights: this rank's arrays (host memory).  Matrices are normal with their group's deviation, norms are 1.
 */
void init_weights(const params *p, const init_config *c, uint64_t seed, const kernels *k, real *weights,
                  int threads);

#endif
