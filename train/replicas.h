/* What several ranks hold alike: dense weights (all ranks), experts (the groups), router biases and the
 * controllers' memory (all ranks). */
#ifndef CARACAL_TRAIN_REPLICAS_H
#define CARACAL_TRAIN_REPLICAS_H

#include "train/state.h"

/* Router biases and controllers' memory of all layers as numbers in a row. */
int64_t replicas_control_count(const state *s);
void replicas_read_control(const state *s, double *control);
/* Compares this rank's row with another; *e names the first difference.  `how` stands before the other's
 * value: "is 1, and was 2". */
int replicas_compare_control(const state *s, const double *other, const double *mine, const char *how,
                             error *e);

/* Compares this rank's digests of weights (s->sdc.guard) and its s->sdc.control with those of the others that
 * hold the same; *e (on ranks that differ from the first of their group) names tensor, element and both
 * values.  Collective; costs one small message while all agree. */
void replicas_compare(const state *s, error *e);

#endif
