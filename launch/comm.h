/* A group of ranks and what they say to one another.  One implementation speaks MPI (host memory); a group of
 * one rank needs no MPI at all.  Every wait has a deadline: when it passes, the program ends with a message
 * that names the rank, the operation and its sequence number, what was expected and what came.
 *
 * All ranks of a group issue the same operations in the same order.  MPI is called from one thread.
 */
#ifndef CARACAL_LAUNCH_COMM_H
#define CARACAL_LAUNCH_COMM_H

#include <stddef.h>
#include <stdint.h>

#include "launch/error.h"
#include "launch/flip.h"
#include "launch/trace.h"

enum { COMM_REQUESTS = 32 }; /* exchanges under way at one time in one group; the most parallel.chunks */

typedef struct comm comm;

typedef struct comm_part {
    int peer; /* rank in the group; never the caller's own */
    void *data;
    size_t bytes; /* parts of 0 bytes are skipped on both sides */
} comm_part;

typedef struct comm_request comm_request; /* one exchange under way; belongs to the group */

/* The world: the ranks that mpirun or srun started, or just this process.  wait_timeout in seconds. */
int comm_open(comm **world, double wait_timeout, error *e);
void comm_close(comm *world);
void comm_set_timeout(comm *c, double seconds);
/* on = 0: comm_exchange returns when the exchange is over, in all groups of the world. Nothing but time
 * changes; comm_exposed_seconds is then all that communication costs. */
void comm_set_overlap(comm *c, int on);

/* The ranks with the same colour, ordered by key; shares the parent's clock and deadline. */
comm *comm_split(comm *c, int color, int key);
/* The ranks that share this host's memory, in the order that they have in c. */
comm *comm_host(comm *c);
void comm_free(comm *c);

int comm_rank(const comm *c);
int comm_size(const comm *c);
/* Seconds spent inside waits and blocking calls of this group and all groups split from the same world. */
double comm_exposed_seconds(const comm *c);
/* For messages that travel by other means than this group's: how long to wait, whether exchanges may last
 * beyond the call that starts them (comm_set_overlap), and seconds that were waited. */
double comm_timeout(const comm *c);
int comm_overlaps(const comm *c);
void comm_add_exposed(comm *c, double seconds);
double comm_clock(void); /* a monotonic clock, in seconds */

/* Exchanges and waits of all groups of this world show in t from now on; NULL: in none. */
void comm_set_trace(comm *c, trace *t);
trace *comm_trace(const comm *c);
/* An exchange that travelled by other means than this group's, began then and ends now; number: its place
 * among those under way.  The group's rows of the timeline are filled from the last on by these, and from the
 * first on by its own. */
void comm_trace_exchange(comm *c, int number, const char *operation, int64_t layer, double began);

/* Which layer is at work (-1: none), for messages about messages; of all groups of this world, as are: */
void comm_at_layer(comm *c, int64_t layer);
/* on: from now on a digest travels with every message of comm_exchange, and the receiver compares; all ranks
 * switch between the same two exchanges.  f: tests only, NULL otherwise. */
void comm_check_messages(comm *c, int on, const bit_flip *f);
/* The first message that came otherwise than it was sent (EXIT_SDC, naming layer, operation, word and both
 * values), code 0 while there is none; the caller may clear it. */
error *comm_corruption(comm *c);

/* Starts sends and receives at once and returns; buffers stay untouched by the caller until comm_wait.  Parts
 * between the same two ranks are matched in order; both sides know every size. */
comm_request *comm_exchange(comm *c, const char *operation, int sends, const comm_part *send, int receives,
                            const comm_part *receive);
/* Lets messages move while the caller computes. */
void comm_progress(comm *c);
/* Has all of the exchange come, so that comm_wait would not wait?  NULL is allowed: yes. */
int comm_has_come(const comm *c, const comm_request *r);
/* Waits for the exchange and releases the request.  NULL is allowed.  Returns how many of the messages were
 * found damaged (comm_check_messages), 0 normally. */
int comm_wait(comm *c, comm_request *r);

void comm_barrier(comm *c, const char *operation);
/* A barrier to which ranks may come hours apart: it has no deadline, and who waits leaves its core to others.
 */
void comm_meet(comm *c, const char *operation);
void comm_broadcast(comm *c, const char *operation, void *data, size_t bytes, int root);
/* receive [size][bytes] = every rank's send, when comm_wait is over; send may change at once.  NULL: it is
 * over. */
comm_request *comm_all_gather_start(comm *c, const char *operation, void *receive, const void *send,
                                    size_t bytes);
/* The same with the wait. */
void comm_all_gather(comm *c, const char *operation, void *receive, const void *send, size_t bytes);
/* In place: rank r's bytes lie at offset[r] .. offset[r + 1] of data. */
void comm_all_gather_ranges(comm *c, const char *operation, void *data, const size_t *offset);
/* The messages of that: send and receive have room for [size] each; returns how many there are of each. */
int comm_ranges(const comm *c, void *data, const size_t *offset, comm_part *send, comm_part *receive);
/* Sums where for every element at most one rank holds a non-zero: exact, whatever order MPI adds in. */
void comm_sum_disjoint_f64(comm *c, const char *operation, double *data, size_t n);
void comm_sum_disjoint_u64(comm *c, const char *operation, uint64_t *data, size_t n);
/* Integer sums and the largest value: exact in any order. */
void comm_sum_i64(comm *c, const char *operation, int64_t *data, size_t n);
int64_t comm_max_i64(comm *c, const char *operation, int64_t value);

/* Agreement on an error: if any rank has one (e->code != 0), all ranks get the lowest such rank's *e, so that
 * every rank takes the same way out.  Returns the code. */
int comm_agree(comm *c, error *e);

#endif
