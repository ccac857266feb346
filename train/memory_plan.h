/* What a rank's training takes of its backend's memory. */
#ifndef CARACAL_TRAIN_MEMORY_PLAN_H
#define CARACAL_TRAIN_MEMORY_PLAN_H

#include "model/model.h"
#include "optim/gradients.h"

/* Bytes.  Without training there are weights, activations and the backend's own alone. */
typedef struct memory_plan {
    double dense, experts;     /* weights */
    double moments, gradients; /* gradients: the sums */
    double moving;             /* buffers for gradients on their way between ranks */
    double activations;        /* at model_config_all's slack */
    double own;                /* what the backend takes for itself */
    double all;                /* the sum */
} memory_plan;

/* Before anything is allocated; of m->rank.  shares: ranks read one another's gradients where they are. */
memory_plan memory_planned(const model_config_all *c, const kernels *k, const mesh *m, int training,
                           int shares);
/* What is reserved: never more than was planned, and the same where `shares` said how it is. */
memory_plan memory_taken(const model *x, const gradients *g, double own);

#endif
