/* What a rank's training takes of its backend's memory, before anything is allocated. */
#ifndef CARACAL_TRAIN_MEMORY_PLAN_H
#define CARACAL_TRAIN_MEMORY_PLAN_H

#include "model/model.h"

/* Bytes.  Without training there are weights, activations and the backend's own alone. */
typedef struct memory_plan {
    double dense, experts; /* weights */
    double moments, gradients;
    double moving;      /* buffers for gradients on their way between ranks */
    double activations; /* at model_config_all's slack */
    double own;         /* what the backend takes for itself */
    double all;         /* the sum */
} memory_plan;

memory_plan memory_planned(const model_config_all *c, const kernels *k, const mesh *m, int training);

#endif
