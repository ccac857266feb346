#ifndef CARACAL_OPTIM_CONFIG_H
#define CARACAL_OPTIM_CONFIG_H

#include <stdint.h>

enum lr_schedule { LR_CONSTANT, LR_COSINE, LR_WSD };

typedef struct optim_config {
    double lr, beta1, beta2, eps, weight_decay;
    double clip;            /* global-norm clip; 0: none */
    int schedule;           /* enum lr_schedule */
    int64_t schedule_steps; /* the horizon of the schedule; train.steps only stops */
    int64_t warmup_steps;   /* linear, from lr / warmup_steps */
    int64_t decay_steps;    /* wsd: the last so many steps fall linearly */
    double min_lr_ratio;    /* where cosine and wsd end */
} optim_config;

#endif
