/* Rows that lie in the backend's memory travel between the ranks of a group.
 *
 * Where that memory is the host's, MPI sends and receives in place.  A backend with wires (kernels/wire.h:
 * NCCL) sends from device to device.  Otherwise messages are staged: copied to the host, sent by MPI, and
 * copied to the device where they are waited for.  All three bring the same bits.
 */
#ifndef CARACAL_MODEL_TRANSPORT_H
#define CARACAL_MODEL_TRANSPORT_H

#include "kernels/kernels.h"
#include "launch/comm.h"

typedef struct transport transport;
typedef struct transport_request transport_request; /* one exchange under way; belongs to the transport */

typedef enum { TRANSPORT_AUTO, TRANSPORT_NCCL, TRANSPORT_HOST } transport_kind;
enum { TRANSPORT_TEXT = 256 };

/* Settles how this world's device memory travels, before any transport is opened: k->wires stays or becomes
 * NULL.  TRANSPORT_AUTO takes the wires where their library is found and each rank has a device of its own;
 * TRANSPORT_NCCL is an error where that is not so.  text says what was chosen, and why not the other (empty
 * where nothing is to be chosen). Collective. */
int transport_choose(kernels *k, comm *world, transport_kind kind, char text[TRANSPORT_TEXT], error *e);

/* group and k are borrowed.  Collective. */
transport *transport_open(comm *group, const kernels *k);
/* NULL is allowed. */
void transport_close(transport *t);

/* As comm_exchange and comm_wait, for parts in the backend's memory: what was asked of the backend before is
 * in what is sent, and what is asked of it after transport_wait sees what came.  By wires, digests do not
 * travel with the messages (comm_check_messages). */
transport_request *transport_exchange(transport *t, const char *operation, int sends, const comm_part *send,
                                      int receives, const comm_part *receive);
int transport_wait(transport *t, transport_request *r);

/* As comm_all_gather_ranges. */
void transport_all_gather_ranges(transport *t, const char *operation, void *data, const size_t *offset);

#endif
