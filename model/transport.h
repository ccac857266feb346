/* Rows that lie in the backend's memory travel between the ranks of a group.
 *
 * Where that memory is the host's, ranks of one host read what others send where it lies (launch/share.h),
 * and otherwise MPI sends and receives in place.  A backend with wires (kernels/wire.h: NCCL) sends from
 * device to device.  Otherwise messages are staged: copied to the host, sent by MPI, and copied to the device
 * where they are waited for.  All of them bring the same bits.
 */
#ifndef CARACAL_MODEL_TRANSPORT_H
#define CARACAL_MODEL_TRANSPORT_H

#include "kernels/kernels.h"
#include "launch/comm.h"

typedef struct transport transport;
typedef struct transport_request transport_request; /* one exchange under way; belongs to the transport */

typedef enum { TRANSPORT_AUTO, TRANSPORT_NCCL, TRANSPORT_HOST } transport_kind;
enum { TRANSPORT_TEXT = 256 };

/* Settles how this world's memory travels, before any transport is opened: k->wires and k->shares stay or
 * become NULL and 0.  TRANSPORT_AUTO takes the wires where their library is found and each rank has a device
 * of its own, and shared memory where the backend's is the host's; TRANSPORT_HOST neither; TRANSPORT_NCCL is
 * an error where a device cannot use its wires.  text says what was chosen, and why not the other (empty
 * where nothing is to be chosen). Collective. */
int transport_choose(kernels *k, comm *world, transport_kind kind, char text[TRANSPORT_TEXT], error *e);

/* group and k are borrowed.  Collective. */
transport *transport_open(comm *group, const kernels *k);
/* NULL is allowed.  Collective. */
void transport_close(transport *t);

/* Zeroed memory of the backend from which this transport sends (transport_exchange); it belongs to t.  what:
 * as of kernels.alloc.  Collective. */
void *transport_alloc(transport *t, size_t bytes, const char *what);
/* Are messages read where their senders have them?  Then what is to be received needs no room.  Settled when
 * the last transport_alloc is over. */
int transport_shares(const transport *t);

/* An exchange as by comm_exchange, of parts in the backend's memory, those that are sent in memory of
 * transport_alloc: what was asked of the backend before is in what is sent.  By wires, digests do not travel
 * with the messages (comm_check_messages). */
transport_request *transport_exchange(transport *t, const char *operation, int sends, const comm_part *send,
                                      int receives, const comm_part *receive);
/* Has everything come, so that transport_arrive would not wait?  NULL is allowed: yes.  Only where messages
 * are the host's is that known at once; elsewhere: no. */
int transport_has_come(const transport *t, const transport_request *r);
/* Its end, in three calls of which none is left out and the first comes once; NULL is allowed in all.
 * arrive: waits until everything has come; returns as comm_wait.  Part i of receive can then be read at
 *         transport_came(t, r, i, data), data being where it was to be received.
 * taken:  none of it is read any more.
 * wait:   waits until what this rank sent may be overwritten, and releases r. */
int transport_arrive(transport *t, transport_request *r);
const void *transport_came(const transport *t, const transport_request *r, int i, const void *data);
void transport_taken(transport *t, transport_request *r);
void transport_wait(transport *t, transport_request *r);

/* As comm_all_gather_ranges, of any memory of the backend. */
void transport_all_gather_ranges(transport *t, const char *operation, void *data, const size_t *offset);

#endif
