/* What a group of ranks is made of: for the files that implement launch/comm.h and launch/share.h, and no
 * other. */
#ifndef CARACAL_LAUNCH_COMM_INSIDE_H
#define CARACAL_LAUNCH_COMM_INSIDE_H

#include <mpi.h>

#include "launch/comm.h"
#include "launch/message.h"

enum {
    COMM_PIECE = 1 << 30, /* MPI counts in int: longer parts travel in pieces of this size */
    COMM_SPINS = 200,     /* polls before a waiting rank offers its core to another */
};

/* What a world and all groups split from it have in common. */
typedef struct comm_shared {
    double timeout, exposed;
    int references, owns_mpi, world_rank, overlap;
    int64_t layer;        /* that is at work: requests remember it */
    int checked;          /* digests travel with messages */
    error corruption;     /* the first message that was not what its sender sent */
    const bit_flip *flip; /* tests only */
    trace *trace;         /* NULL: none is taken */
} comm_shared;

struct comm_request {
    comm *owner;
    const char *operation;
    uint64_t sequence;
    int64_t layer;
    double began; /* for the trace */
    int in_use, checked, damaged, n, capacity;
    size_t digests, digest_capacity; /* of all its messages */
    uint64_t *digest;
    MPI_Request *mpi;
    MPI_Status *status;
    message *what;
};

struct comm {
    MPI_Comm mpi; /* MPI_COMM_NULL in a group of one */
    int rank, size;
    int number;      /* among the world's groups */
    int *world_rank; /* [size] */
    uint64_t sequence;
    comm_shared *shared;
    comm_request request[COMM_REQUESTS];
};

/* Ends the program if an MPI call failed. */
void comm_check(const comm *c, int code, const char *operation);
/* A request of the group for an operation that begins now, with room for so many messages and digests. */
comm_request *comm_take(comm *c, const char *operation, int messages, size_t digests);
/* Waits for its messages, and releases it. */
void comm_finish(comm_request *r);
/* Ends the program: of n messages of an operation some never came; late names them, or is empty. */
_Noreturn void comm_late(const comm *c, const char *operation, uint64_t sequence, int missing, int n,
                         const char *late);
/* Compares what came with the sender's digests, if it has any (first damages it, in tests that want so); 1:
 * it differs, and is noted unless something was before. */
int comm_verify(comm *c, const char *operation, uint64_t sequence, int64_t layer, const message *m);

#endif
