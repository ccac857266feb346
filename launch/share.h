/* Messages between ranks of one host that nobody copies.  What is to be sent lies in memory which all ranks
 * of the group read (MPI-3 shared-memory windows); a message is a note that it is there, and another that it
 * has been read.  What came is read where its sender has it, by the code that needs it: a sum of gradients,
 * or rows on their way to their places.
 *
 * Deadlines, digests, the timeline and the seconds spent waiting are those of launch/comm.h.
 */
#ifndef CARACAL_LAUNCH_SHARE_H
#define CARACAL_LAUNCH_SHARE_H

#include "launch/comm.h"

typedef struct share share;
typedef struct share_request share_request; /* one exchange under way; belongs to the share */

/* Collective, and so is its answer: NULL, and *why on all ranks, when the group spans several hosts or shared
 * memory is not to be had. */
share *share_open(comm *group, error *why);
/* NULL is allowed.  Collective, because its memory goes with it. */
void share_close(share *s);

/* Zeroed memory for what this rank sends, aligned to 64 bytes; it belongs to s.  Collective; sizes may
 * differ.  NULL on all ranks, with *why, when the host's room for shared memory does not do. */
void *share_alloc(share *s, size_t bytes, error *why);

/* Starts an exchange like comm_exchange.  What is sent lies in memory of share_alloc and stays as it is until
 * share_wait; receive has the sizes, its data is not looked at. */
share_request *share_exchange(share *s, const char *operation, int sends, const comm_part *send, int receives,
                              const comm_part *receive);
/* Has everything come, so that share_arrive would not wait? */
int share_has_come(const share *s, const share_request *r);
/* Waits until everything has come, then part i of receive can be read at share_came(r, i).  Returns how many
 * messages are damaged, as comm_wait. */
int share_arrive(share *s, share_request *r);
const void *share_came(const share_request *r, int i);
/* The caller will read no more of it. */
void share_taken(share *s, share_request *r);
/* Waits until all have read what this rank sent, which may then change; releases r.  After share_taken. */
void share_wait(share *s, share_request *r);

#endif
