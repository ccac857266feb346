/* Rows that lie in the backend's memory travel between the ranks of a group.
 *
 * Where that memory is the host's, MPI sends and receives in place.  Otherwise they are staged: copied to the
 * host, sent by MPI, and copied to the device where they are waited for.
 */
#ifndef CARACAL_MODEL_TRANSPORT_H
#define CARACAL_MODEL_TRANSPORT_H

#include "kernels/kernels.h"
#include "launch/comm.h"

typedef struct transport transport;
typedef struct transport_request transport_request; /* one exchange under way; belongs to the transport */

/* group and k are borrowed. */
transport *transport_open(comm *group, const kernels *k);
/* NULL is allowed. */
void transport_close(transport *t);

/* As comm_exchange and comm_wait, for parts in the backend's memory: what was asked of the backend before is
 * in what is sent, and what is asked of it after transport_wait sees what came. */
transport_request *transport_exchange(transport *t, const char *operation, int sends, const comm_part *send,
                                      int receives, const comm_part *receive);
int transport_wait(transport *t, transport_request *r);

/* As comm_all_gather_ranges. */
void transport_all_gather_ranges(transport *t, const char *operation, void *data, const size_t *offset);

#endif
