#include "launch/comm.h"

#include <stdlib.h>
#include <time.h>

#include "launch/comm_inside.h"
#include "launch/memory.h"

double comm_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Was this process started by an MPI launcher? */
static int launched(void) {
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (getenv(marks[i])) return 1;
    return 0;
}

void comm_check(const comm *c, int code, const char *operation) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    MPI_Error_string(code, text, &n);
    FAULT(EXIT_RANK_DIED, "%s #%llu failed on rank %d of %d: %s", operation, (unsigned long long)c->sequence,
          c->rank, c->size, text);
}

static comm *comm_new(MPI_Comm mpi, int rank, int size, comm_shared *shared) {
    comm *c = mem_alloc(sizeof *c, "a communicator");
    c->mpi = mpi;
    c->rank = rank;
    c->size = size;
    c->shared = shared;
    c->number = shared->references++;
    for (int i = 0; i < COMM_REQUESTS; i++) c->request[i].owner = c;
    c->world_rank = mem_alloc((size_t)size * sizeof *c->world_rank, "a communicator");
    c->world_rank[rank] = shared->world_rank;
    if (mpi != MPI_COMM_NULL) MPI_Comm_set_errhandler(mpi, MPI_ERRORS_RETURN);
    return c;
}

int comm_open(comm **world, double wait_timeout, error *e) {
    comm_shared *shared = mem_alloc(sizeof *shared, "a communicator");
    shared->timeout = wait_timeout;
    shared->overlap = 1;
    shared->layer = -1;
    if (!launched()) {
        *world = comm_new(MPI_COMM_NULL, 0, 1, shared);
        return 0;
    }
    int provided = 0, rank, size;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS ||
        provided < MPI_THREAD_FUNNELED) {
        mem_free(shared);
        return error_set(e, EXIT_RANK_DIED, "MPI did not start (MPI_Init_thread gave thread level %d)",
                         provided);
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    shared->owns_mpi = 1;
    shared->world_rank = rank;
    *world = comm_new(MPI_COMM_WORLD, rank, size, shared);
    comm_all_gather(*world, "ranks", (*world)->world_rank, &rank, sizeof rank);
    return 0;
}

void comm_free(comm *c) {
    if (!c) return;
    for (int i = 0; i < COMM_REQUESTS; i++) {
        mem_free(c->request[i].mpi);
        mem_free(c->request[i].status);
        mem_free(c->request[i].what);
        mem_free(c->request[i].digest);
    }
    if (c->mpi != MPI_COMM_NULL && c->mpi != MPI_COMM_WORLD) MPI_Comm_free(&c->mpi);
    mem_free(c->world_rank);
    if (--c->shared->references == 0) {
        if (c->shared->owns_mpi) MPI_Finalize();
        mem_free(c->shared);
    }
    mem_free(c);
}

void comm_close(comm *world) {
    comm_free(world);
}
void comm_set_timeout(comm *c, double seconds) {
    c->shared->timeout = seconds;
}
void comm_set_overlap(comm *c, int on) {
    c->shared->overlap = on;
}
int comm_rank(const comm *c) {
    return c->rank;
}
int comm_size(const comm *c) {
    return c->size;
}
double comm_exposed_seconds(const comm *c) {
    return c->shared->exposed;
}
double comm_timeout(const comm *c) {
    return c->shared->timeout;
}
int comm_overlaps(const comm *c) {
    return c->shared->overlap;
}
void comm_add_exposed(comm *c, double seconds) {
    c->shared->exposed += seconds;
}
void comm_set_trace(comm *c, trace *t) {
    c->shared->trace = t;
}
trace *comm_trace(const comm *c) {
    return c->shared->trace;
}
void comm_trace_exchange(comm *c, int number, const char *operation, int64_t layer, double began) {
    int row = TRACE_EXCHANGES + COMM_REQUESTS * (c->number + 1) - 1 - number % COMM_REQUESTS;
    if (began > 0) trace_span(c->shared->trace, row, operation, layer, began, comm_clock());
}
void comm_at_layer(comm *c, int64_t layer) {
    c->shared->layer = layer;
}
void comm_check_messages(comm *c, int on, const bit_flip *f) {
    c->shared->checked = on;
    c->shared->flip = f;
}
error *comm_corruption(comm *c) {
    return &c->shared->corruption;
}

/* The group of a part of c, which it takes. */
static comm *group_of(comm *c, MPI_Comm part) {
    int rank, size;
    MPI_Comm_rank(part, &rank);
    MPI_Comm_size(part, &size);
    if (size == 1) MPI_Comm_free(&part), part = MPI_COMM_NULL;
    comm *group = comm_new(part, rank, size, c->shared);
    int mine = c->shared->world_rank;
    comm_all_gather(group, "ranks", group->world_rank, &mine, sizeof mine);
    return group;
}

comm *comm_split(comm *c, int color, int key) {
    MPI_Comm part;
    if (c->mpi == MPI_COMM_NULL) return comm_new(MPI_COMM_NULL, 0, 1, c->shared);
    comm_check(c, MPI_Comm_split(c->mpi, color, key, &part), "split");
    return group_of(c, part);
}

comm *comm_host(comm *c) {
    MPI_Comm part;
    if (c->mpi == MPI_COMM_NULL) return comm_new(MPI_COMM_NULL, 0, 1, c->shared);
    comm_check(c, MPI_Comm_split_type(c->mpi, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &part), "split");
    return group_of(c, part);
}
