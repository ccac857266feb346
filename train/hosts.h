/* Hosts that have no file system in common: what is to be the same on all of them is looked at before the
 * first step.  All functions are collective, and so are their answers. */
#ifndef CARACAL_TRAIN_HOSTS_H
#define CARACAL_TRAIN_HOSTS_H

#include <jansson.h>

#include "launch/comm.h"
#include "train/config.h"

/* Have all ranks read the same config, and the same tokenizer and token files (inputs_record)?  EXIT_USAGE
 * names a rank that read others than rank 0, and what. */
int hosts_read_alike(comm *world, const config *c, const json_t *inputs, error *e);

/* Does every rank see what rank 0 writes in an existing directory?  EXIT_USAGE names one that does not.
 * host: comm_host(world). */
int hosts_share(comm *world, const comm *host, const char *directory, error *e);

#endif
