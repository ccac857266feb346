/* The config of the model that a sweep's best values are for. */
#ifndef CARACAL_TRAIN_SWEEP_TARGET_H
#define CARACAL_TRAIN_SWEEP_TARGET_H

#include "train/sweep_results.h"

/* Whether the target's config loads once it has the proxy's values, and is one to which the proxy's values
 * can go: at least as wide, and without a width that is searched. */
int sweep_target_check(const char *target, const config *proxy, const sweep_space *s, error *e);

/* Writes `out`: the text of `target` with the values of the trial whose config is `best` (its learning rate
 * and initial deviations, and whatever else was searched) and transfer.proxy_width, which scales them to its
 * width.  `from` names the trial in a comment.  What is written loads. */
int sweep_target_write(const char *target, const char *out, const config *best, const sweep_space *s,
                       const char *from, error *e);

#endif
