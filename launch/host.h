/* The host that a rank is on, and what it shares with the other ranks there. */
#ifndef CARACAL_LAUNCH_HOST_H
#define CARACAL_LAUNCH_HOST_H

#include <sched.h>

#include "launch/comm.h"

enum { HOST_TEXT = 320 };

/* This rank's share of the processors that it may run on: all of them where it was bound to processors of its
 * own, a part where other ranks of the host may run there too.  At least 1.  host: comm_host's; collective.
 */
int host_processors(comm *host);
/* The same of rank `rank`, from what each rank may run on [ranks]. */
int host_processors_of(const cpu_set_t *allowed, int ranks, int rank);

/* "rank 3", or "rank 3 on nodeb" where the world is more than one host; host: comm_host(world). */
void host_name_rank(const comm *world, const comm *host, char text[HOST_TEXT]);

#endif
