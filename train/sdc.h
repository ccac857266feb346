/* Silent data corruption: a processor or memory that computes or keeps a wrong number and says nothing. */
#ifndef CARACAL_TRAIN_SDC_H
#define CARACAL_TRAIN_SDC_H

#include "launch/flip.h"

struct state;

typedef struct sdc {
    flip flip; /* tests only */
} sdc;

/* After the weights are there, before the first step.  An error: the tests' switch says no sense. */
int sdc_open(struct state *s, error *e);
/* Before a step. */
void sdc_begin(struct state *s);

#endif
