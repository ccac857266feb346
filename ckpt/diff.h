/* What `caracal diff` says of two checkpoints' tensors. */
#ifndef CARACAL_CKPT_DIFF_H
#define CARACAL_CKPT_DIFF_H

#include "ckpt/ckpt.h"

typedef struct ckpt_difference ckpt_difference;

/* Compares all tensors, by name; the layout in files does not matter.  *out = NULL: every tensor is there on
 * both sides with the same bits. */
int ckpt_diff(ckpt *a, ckpt *b, ckpt_difference **out, error *e);
/* Prints the tensors that one side lacks or has in another shape, the first tensor and element that differ,
 * and a line for each group of tensors (what stands before the first slash of a name).  Both checkpoints are
 * still open. */
void ckpt_diff_tell(const ckpt_difference *d);
void ckpt_diff_free(ckpt_difference *d); /* NULL is allowed */

#endif
