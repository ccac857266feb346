/* Hyperparameter transfer by width (report Table 1): what was tuned on a narrow proxy model, for a wider
 * target. */
#ifndef CARACAL_OPTIM_TRANSFER_H
#define CARACAL_OPTIM_TRANSFER_H

#include "model/params.h"

typedef struct transfer_config {
    int64_t proxy_width; /* hidden size of the model that the settings were found with; 0: this one */
} transfer_config;

/* Factors on a group's initial variance and on its learning rate. */
typedef struct transfer_factors {
    double variance, lr;
} transfer_factors;

/* With s = hidden / proxy: embedding and norms keep both; hidden and unembedding matrices have both over s.
 */
transfer_factors transfer_of(const transfer_config *c, int64_t hidden, enum param_group group);
/* The initial deviations of the target. */
init_config transfer_init(const transfer_config *c, int64_t hidden, const init_config *proxy);

#endif
