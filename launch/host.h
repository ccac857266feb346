/* The host that a rank is on, and what it shares with the other ranks there. */
#ifndef CARACAL_LAUNCH_HOST_H
#define CARACAL_LAUNCH_HOST_H

#include <sched.h>

#include "launch/comm.h"

enum { HOST_TEXT = 320 };

/* This rank's share of the cores that it may run on: all of them where it was bound to cores of its own, a
 * part where other ranks of the host may run there too, and no more than a control group gives it time for.
 * At least 1.  host: comm_host's; collective. */
int host_cores(comm *host);
/* The same of rank `rank`, from what each rank may run on [ranks]. */
int host_cores_of(const cpu_set_t *allowed, int ranks, int rank);

/* The first processor of each core that has some of these: threads of one core share what products are bound
 * by, and a second one would only be in the way.  root: "" (tests: where else sys/ lies). */
cpu_set_t host_one_of_each_core(const char *root, const cpu_set_t *processors);
/* Those of the processors that this process may run on; none where it may run on more than a set has room
 * for. */
cpu_set_t host_own_cores(void);
/* As many processors as this process's control groups give time for, rounded down; INT_MAX: no limit. */
int host_quota(const char *root);

/* "rank 3", or "rank 3 on nodeb" where the world is more than one host; host: comm_host(world). */
void host_name_rank(const comm *world, const comm *host, char text[HOST_TEXT]);

#endif
