/* Is there as much memory as a run is going to take? */
#ifndef CARACAL_TRAIN_MEMORY_CHECK_H
#define CARACAL_TRAIN_MEMORY_CHECK_H

#include "train/state.h"

/* Before model and gradients are allocated; s has backend, mesh and host.  EXIT_NO_MEMORY, with how much is
 * missing, where a device has less than is needed, or a host (or the control group that a run is in) less
 * than its ranks need together.  What is more than the host can give just now is a warning on stderr: others
 * may leave.  Collective; ranks may differ about devices. */
int memory_check(state *s, const model_config_all *c, int training, error *e);

#endif
