/* The figures of a step: every rank's micro-batch tells its numbers after each turn, and all ranks add them
 * in the order of the micro-batches. */
#ifndef CARACAL_TRAIN_FIGURES_H
#define CARACAL_TRAIN_FIGURES_H

#include "train/step.h"

void figures_begin(state *s);
/* After a turn: starts gathering what the model says of its micro-batch; it is added by the next call, so
 * that a rank that is early waits for nobody here. */
void figures_fold(state *s);
/* After the last turn: everything in *r but the gradient's and the biases' figures. */
void figures_read(state *s, step_result *r);
void figures_read_biases(const state *s, step_result *r);

#endif
