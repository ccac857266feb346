/* What all ranks of a group do together: each is a non-blocking call of MPI and a wait with a deadline. */
#include <string.h>
#include <time.h>

#include "launch/comm_inside.h"

static comm_request *collective(comm *c, const char *operation) {
    comm_request *r = comm_take(c, operation, 1, 0);
    r->n = 1;
    r->what[0] = (message){.peer = -1, .bytes = -1};
    return r;
}

static void run(comm *c, comm_request *r, int code) {
    comm_check(c, code, r->operation);
    comm_finish(r);
}

void comm_barrier(comm *c, const char *operation) {
    if (c->size == 1) return;
    comm_request *r = collective(c, operation);
    run(c, r, MPI_Ibarrier(c->mpi, r->mpi));
}

void comm_meet(comm *c, const char *operation) {
    const struct timespec pause = {.tv_nsec = 5000000};
    if (c->size == 1) return;
    comm_request *r = collective(c, operation);
    int done = 0;
    comm_check(c, MPI_Ibarrier(c->mpi, r->mpi), operation);
    while (!done) {
        nanosleep(&pause, NULL);
        comm_check(c, MPI_Test(r->mpi, &done, MPI_STATUS_IGNORE), operation);
    }
    r->in_use = 0;
}

void comm_broadcast(comm *c, const char *operation, void *data, size_t bytes, int root) {
    for (size_t at = 0; c->size > 1 && at < bytes; at += COMM_PIECE) {
        comm_request *r = collective(c, operation);
        int n = (int)(bytes - at < COMM_PIECE ? bytes - at : COMM_PIECE);
        run(c, r, MPI_Ibcast((char *)data + at, n, MPI_BYTE, root, c->mpi, r->mpi));
    }
}

comm_request *comm_all_gather_start(comm *c, const char *operation, void *receive, const void *send,
                                    size_t bytes) {
    memmove((char *)receive + (size_t)c->rank * bytes, send, bytes);
    if (c->size == 1) return NULL;
    REQUIRE(bytes <= INT32_MAX);
    comm_request *r = collective(c, operation);
    comm_check(c, MPI_Iallgather(MPI_IN_PLACE, 0, MPI_BYTE, receive, (int)bytes, MPI_BYTE, c->mpi, r->mpi),
               operation);
    if (c->shared->overlap) return r;
    comm_wait(c, r);
    return NULL;
}

void comm_all_gather(comm *c, const char *operation, void *receive, const void *send, size_t bytes) {
    comm_wait(c, comm_all_gather_start(c, operation, receive, send, bytes));
}

static void sum(comm *c, const char *operation, void *data, size_t n, MPI_Datatype type) {
    const size_t limit = 1 << 24;
    for (size_t at = 0; c->size > 1 && at < n; at += limit) {
        comm_request *r = collective(c, operation);
        run(c, r,
            MPI_Iallreduce(MPI_IN_PLACE, (char *)data + at * 8, (int)(n - at < limit ? n - at : limit), type,
                           MPI_SUM, c->mpi, r->mpi));
    }
}

void comm_sum_disjoint_f64(comm *c, const char *operation, double *data, size_t n) {
    sum(c, operation, data, n, MPI_DOUBLE);
}
void comm_sum_disjoint_u64(comm *c, const char *operation, uint64_t *data, size_t n) {
    sum(c, operation, data, n, MPI_UINT64_T);
}
void comm_sum_i64(comm *c, const char *operation, int64_t *data, size_t n) {
    sum(c, operation, data, n, MPI_INT64_T);
}

int64_t comm_max_i64(comm *c, const char *operation, int64_t value) {
    if (c->size == 1) return value;
    comm_request *r = collective(c, operation);
    run(c, r, MPI_Iallreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MAX, c->mpi, r->mpi));
    return value;
}
