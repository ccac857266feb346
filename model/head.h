/* The head: logits of the backend's head_rows at a time, their cross-entropy, and the gradients at once, so
 * that the logits of a micro-batch are never stored and never computed twice. */
#ifndef CARACAL_MODEL_HEAD_H
#define CARACAL_MODEL_HEAD_H

#include "model/context.h"

/* loss_T [T] = cross-entropy of each row (0 where targets is -1); best_T (may be NULL) = the most likely
 * token. With dfinal_TH not NULL: dfinal_TH = gradient of scale * sum(loss) and dlm_head = (+= when
 * accumulate). logits: scratch for min(T, head_rows) rows of V. */
void head_loss(const context *x, real *loss_T, int32_t *best_T, real *dfinal_TH, real *dlm_head,
               int accumulate, const real *final_TH, const real *lm_head_VH, const int32_t *targets_T,
               double scale, real *logits);

#endif
