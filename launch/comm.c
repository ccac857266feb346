#include "launch/comm.h"

#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "launch/digest.h"
#include "launch/memory.h"
#include "launch/message.h"

enum {
    PIECE = 1 << 30, /* MPI counts in int: longer parts travel in pieces of this size */
    TAGS = 30000,    /* below the least MPI_TAG_UB that the standard allows */
    SPINS = 200,     /* polls before a waiting rank offers its core to another */
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

static void check(const comm *c, int code, const char *operation) {
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
        free(c->request[i].mpi);
        free(c->request[i].status);
        free(c->request[i].what);
        free(c->request[i].digest);
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

comm *comm_split(comm *c, int color, int key) {
    if (c->mpi == MPI_COMM_NULL) return comm_new(MPI_COMM_NULL, 0, 1, c->shared);
    MPI_Comm part;
    int rank, size;
    check(c, MPI_Comm_split(c->mpi, color, key, &part), "split");
    MPI_Comm_rank(part, &rank);
    MPI_Comm_size(part, &size);
    if (size == 1) MPI_Comm_free(&part), part = MPI_COMM_NULL;
    comm *group = comm_new(part, rank, size, c->shared);
    int mine = c->shared->world_rank;
    comm_all_gather(group, "ranks", group->world_rank, &mine, sizeof mine);
    return group;
}

/* ---- waiting ---- */

static comm_request *take(comm *c, const char *operation, int messages, size_t digests) {
    comm_request *r = NULL;
    for (int i = 0; i < COMM_REQUESTS && !r; i++)
        if (!c->request[i].in_use) r = &c->request[i];
    if (!r) FAULT(70, "%s: %d exchanges are under way already", operation, COMM_REQUESTS);
    if (r->capacity < messages) {
        r->capacity = messages;
        r->mpi = mem_grow(r->mpi, (size_t)messages * sizeof *r->mpi, "message requests");
        r->status = mem_grow(r->status, (size_t)messages * sizeof *r->status, "message requests");
        r->what = mem_grow(r->what, (size_t)messages * sizeof *r->what, "message requests");
    }
    if (r->digest_capacity < digests) {
        r->digest_capacity = digests;
        r->digest = mem_grow(r->digest, digests * sizeof *r->digest, "message digests");
    }
    r->operation = operation;
    r->sequence = ++c->sequence;
    r->layer = c->shared->layer;
    r->began = trace_begin(c->shared->trace);
    r->checked = digests > 0;
    r->in_use = 1;
    r->n = 0;
    r->digests = 0;
    r->damaged = 0;
    return r;
}

_Noreturn static void too_late(comm_request *r) {
    comm *c = r->owner;
    char late[512] = "";
    size_t used = 0;
    int missing = 0;
    for (int i = 0; i < r->n; i++) {
        int done = 0;
        if (r->mpi[i] != MPI_REQUEST_NULL) MPI_Test(&r->mpi[i], &done, MPI_STATUS_IGNORE);
        else done = 1;
        if (done) continue;
        missing++;
        if (r->what && r->what[i].bytes >= 0 && used < sizeof late - 80)
            used +=
                (size_t)snprintf(late + used, sizeof late - used, "%s%d bytes %s rank %d", used ? ", " : "",
                                 r->what[i].bytes, r->what[i].is_receive ? "from" : "to", r->what[i].peer);
    }
    FAULT(EXIT_TIMED_OUT,
          "rank %d of %d waited %.0f s in %s #%llu: %d of %d messages never came%s%s; a rank is stuck, "
          "stopped or "
          "gone (wait_timeout sets how long to wait)",
          c->rank, c->size, c->shared->timeout, r->operation, (unsigned long long)r->sequence, missing, r->n,
          used ? ": " : "", late);
}

static void finish(comm_request *r) {
    comm *c = r->owner;
    double start = comm_clock();
    int done = 0;
    for (int spin = 0;; spin++) {
        int code = MPI_Testall(r->n, r->mpi, &done, r->status);
        if (code == MPI_ERR_IN_STATUS)
            for (int i = 0; i < r->n; i++)
                if (r->status[i].MPI_ERROR != MPI_SUCCESS && r->status[i].MPI_ERROR != MPI_ERR_PENDING)
                    code = r->status[i].MPI_ERROR;
        check(c, code, r->operation);
        if (done) break;
        if (spin >= SPINS) {
            sched_yield();
            if (comm_clock() - start > c->shared->timeout) too_late(r);
        }
    }
    for (int i = 0; i < r->n; i++) {
        int came = 0;
        if (!r->what[i].is_receive) continue;
        MPI_Get_count(&r->status[i], MPI_BYTE, &came);
        if (came != r->what[i].bytes)
            FAULT(70, "%s #%llu: rank %d expected %d bytes from rank %d and got %d", r->operation,
                  (unsigned long long)r->sequence, c->rank, r->what[i].bytes, r->what[i].peer, came);
    }
    c->shared->exposed += comm_clock() - start;
    trace_wait(c->shared->trace, r->operation, r->layer, start);
    if (r->began > 0)
        trace_span(c->shared->trace, TRACE_EXCHANGES + COMM_REQUESTS * c->number + (int)(r - c->request),
                   r->operation, r->layer, r->began, comm_clock());
    r->in_use = 0;
}

/* ---- messages that are not what was sent ---- */

/* Compares what came with the senders' digests; returns how many messages are damaged. */
static int verify(comm_request *r) {
    comm_shared *s = r->owner->shared;
    int damaged = 0;
    for (int i = 0; i < r->n; i++) {
        const message *m = &r->what[i];
        if (!m->is_receive || (r->checked && !m->digest)) continue; /* digests come unchecked */
        if (flip_due(s->flip, FLIP_MESSAGE, r->layer) && !strcmp(r->operation, s->flip->name))
            flip_strike_in(s->flip, r->operation, m->data, m->bytes / 4, 4);
        if (!r->checked) continue;
        error e;
        if (!message_damaged(m, r->owner->world_rank[m->peer], &e) || damaged++) continue;
        error_within(&e, "%s #%llu", r->operation, (unsigned long long)r->sequence);
        if (r->layer >= 0) error_within(&e, "layer %lld", (long long)r->layer);
        if (!s->corruption.code) s->corruption = e;
    }
    return damaged;
}

/* ---- point to point ---- */

static int pieces(const comm_part *p) {
    return (int)((p->bytes + PIECE - 1) / PIECE);
}

static void post(comm_request *r, message m) {
    comm *c = r->owner;
    int tag = (int)(r->sequence % TAGS), k = r->n++;
    r->what[k] = m;
    check(c,
          m.is_receive ? MPI_Irecv(m.data, m.bytes, MPI_BYTE, m.peer, tag, c->mpi, &r->mpi[k])
                       : MPI_Isend(m.data, m.bytes, MPI_BYTE, m.peer, tag, c->mpi, &r->mpi[k]),
          r->operation);
}

/* One message, and its digests behind it. */
static void post_checked(comm_request *r, message m) {
    size_t blocks = digest_blocks((size_t)m.bytes);
    if (!r->checked) {
        post(r, m);
        return;
    }
    m.digest = r->digest + r->digests;
    r->digests += blocks;
    post(r, m);
    if (!m.is_receive) digest_of(m.digest, m.data, (size_t)m.bytes); /* the message is on its way already */
    post(r, (message){m.peer, (int)(blocks * sizeof *m.digest), m.is_receive, m.digest, NULL});
}

comm_request *comm_exchange(comm *c, const char *operation, int sends, const comm_part *send, int receives,
                            const comm_part *receive) {
    int messages = 0;
    size_t blocks = 0;
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < (side ? sends : receives); i++) {
            const comm_part *part = side ? &send[i] : &receive[i];
            messages += pieces(part) * (c->shared->checked ? 2 : 1);
            blocks += c->shared->checked ? digest_blocks(part->bytes) : 0; /* a piece is whole blocks */
        }
    comm_request *r = take(c, operation, messages, blocks);
    for (int side = 0; side < 2; side++) { /* receives first: what comes then finds its place */
        const comm_part *part = side ? send : receive;
        for (int i = 0; i < (side ? sends : receives); i++) {
            char *data = part[i].data;
            for (size_t at = 0; at < part[i].bytes; at += PIECE) {
                int bytes = (int)(part[i].bytes - at < PIECE ? part[i].bytes - at : PIECE);
                post_checked(r, (message){part[i].peer, bytes, !side, data + at, NULL});
            }
        }
    }
    if (!c->shared->overlap && r->n) {
        finish(r);
        r->damaged = verify(r);
        r->n = 0; /* nothing is left for comm_wait, which releases it */
        r->in_use = 1;
    }
    return r;
}

void comm_progress(comm *c) {
    if (c->mpi == MPI_COMM_NULL) return;
    int flag;
    MPI_Iprobe(MPI_ANY_SOURCE, TAGS, c->mpi, &flag, MPI_STATUS_IGNORE); /* a tag nobody sends */
}

int comm_wait(comm *c, comm_request *r) {
    if (!r) return 0;
    REQUIRE(r->owner == c && r->in_use);
    if (r->n) finish(r), r->damaged = verify(r);
    r->in_use = 0;
    return r->damaged;
}

/* ---- collectives: each is a non-blocking call and a wait with a deadline ---- */

static comm_request *collective(comm *c, const char *operation) {
    comm_request *r = take(c, operation, 1, 0);
    r->n = 1;
    r->what[0] = (message){.peer = -1, .bytes = -1};
    return r;
}

static void run(comm *c, comm_request *r, int code) {
    check(c, code, r->operation);
    finish(r);
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
    check(c, MPI_Ibarrier(c->mpi, r->mpi), operation);
    while (!done) {
        nanosleep(&pause, NULL);
        check(c, MPI_Test(r->mpi, &done, MPI_STATUS_IGNORE), operation);
    }
    r->in_use = 0;
}

void comm_broadcast(comm *c, const char *operation, void *data, size_t bytes, int root) {
    for (size_t at = 0; c->size > 1 && at < bytes; at += PIECE) {
        comm_request *r = collective(c, operation);
        int n = (int)(bytes - at < PIECE ? bytes - at : PIECE);
        run(c, r, MPI_Ibcast((char *)data + at, n, MPI_BYTE, root, c->mpi, r->mpi));
    }
}

void comm_all_gather(comm *c, const char *operation, void *receive, const void *send, size_t bytes) {
    memmove((char *)receive + (size_t)c->rank * bytes, send, bytes);
    if (c->size == 1) return;
    REQUIRE(bytes <= INT32_MAX);
    comm_request *r = collective(c, operation);
    run(c, r, MPI_Iallgather(MPI_IN_PLACE, 0, MPI_BYTE, receive, (int)bytes, MPI_BYTE, c->mpi, r->mpi));
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
