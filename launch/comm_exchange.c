/* Messages from rank to rank, and waiting. */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "launch/comm_inside.h"
#include "launch/digest.h"
#include "launch/memory.h"

enum { TAGS = 30000 }; /* below the least MPI_TAG_UB that the standard allows */

/* ---- waiting ---- */

comm_request *comm_take(comm *c, const char *operation, int messages, size_t digests) {
    comm_request *r = NULL;
    for (int i = 0; i < COMM_REQUESTS && !r; i++)
        if (!c->request[i].in_use) r = &c->request[i];
    if (!r) FAULT(EXIT_BUG, "%s: %d exchanges are under way already", operation, COMM_REQUESTS);
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

_Noreturn void comm_late(const comm *c, const char *operation, uint64_t sequence, int missing, int n,
                         const char *late) {
    FAULT(EXIT_TIMED_OUT,
          "rank %d of %d waited %.0f s in %s #%llu: %d of %d messages never came%s%s; a rank is stuck, "
          "stopped or gone (wait_timeout sets how long to wait)",
          c->rank, c->size, c->shared->timeout, operation, (unsigned long long)sequence, missing, n,
          *late ? ": " : "", late);
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
    comm_late(c, r->operation, r->sequence, missing, r->n, late);
}

void comm_finish(comm_request *r) {
    comm *c = r->owner;
    double start = comm_clock();
    int done = 0, spins = 0;
    for (;;) {
        int code = MPI_Testall(r->n, r->mpi, &done, r->status);
        if (code == MPI_ERR_IN_STATUS)
            for (int i = 0; i < r->n; i++)
                if (r->status[i].MPI_ERROR != MPI_SUCCESS && r->status[i].MPI_ERROR != MPI_ERR_PENDING)
                    code = r->status[i].MPI_ERROR;
        comm_check(c, code, r->operation);
        if (done) break;
        if (spins < COMM_SPINS) {
            spins++;
            continue;
        }
        sched_yield();
        if (comm_clock() - start > c->shared->timeout) too_late(r);
    }
    for (int i = 0; i < r->n; i++) {
        int came = 0;
        if (!r->what[i].is_receive) continue;
        MPI_Get_count(&r->status[i], MPI_BYTE, &came);
        if (came != r->what[i].bytes)
            FAULT(EXIT_BUG, "%s #%llu: rank %d expected %d bytes from rank %d and got %d", r->operation,
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

int comm_verify(comm *c, const char *operation, uint64_t sequence, int64_t layer, const message *m) {
    comm_shared *s = c->shared;
    if (flip_due(s->flip, FLIP_MESSAGE, layer) && !strcmp(operation, s->flip->name))
        flip_strike_in(s->flip, operation, m->data, m->bytes / 4, 4);
    error e;
    if (!m->digest || !message_damaged(m, c->world_rank[m->peer], &e)) return 0;
    error_within(&e, "%s #%llu", operation, (unsigned long long)sequence);
    if (layer >= 0) error_within(&e, "layer %lld", (long long)layer);
    if (!s->corruption.code) s->corruption = e;
    return 1;
}

/* How many of the messages that came are damaged. */
static int verify(comm_request *r) {
    int damaged = 0;
    for (int i = 0; i < r->n; i++) {
        const message *m = &r->what[i];
        if (!m->is_receive || (r->checked && !m->digest)) continue; /* digests come unchecked */
        damaged += comm_verify(r->owner, r->operation, r->sequence, r->layer, m);
    }
    return damaged;
}

/* ---- point to point ---- */

static int pieces(const comm_part *p) {
    return (int)((p->bytes + COMM_PIECE - 1) / COMM_PIECE);
}

static void post(comm_request *r, message m) {
    comm *c = r->owner;
    int tag = (int)(r->sequence % TAGS), k = r->n++;
    r->what[k] = m;
    comm_check(c,
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
    comm_request *r = comm_take(c, operation, messages, blocks);
    for (int side = 0; side < 2; side++) { /* receives first: what comes then finds its place */
        const comm_part *part = side ? send : receive;
        for (int i = 0; i < (side ? sends : receives); i++) {
            char *data = part[i].data;
            for (size_t at = 0; at < part[i].bytes; at += COMM_PIECE) {
                int bytes = (int)(part[i].bytes - at < COMM_PIECE ? part[i].bytes - at : COMM_PIECE);
                post_checked(r, (message){part[i].peer, bytes, !side, data + at, NULL});
            }
        }
    }
    if (!c->shared->overlap && r->n) {
        comm_finish(r);
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

int comm_has_come(const comm *c, const comm_request *r) {
    int done = 1;
    for (int i = 0; r && done && i < r->n; i++) /* and nothing is released: comm_wait looks again */
        comm_check(c, MPI_Request_get_status(r->mpi[i], &done, MPI_STATUS_IGNORE), r->operation);
    return done;
}

int comm_wait(comm *c, comm_request *r) {
    if (!r) return 0;
    REQUIRE(r->owner == c && r->in_use);
    if (r->n) comm_finish(r), r->damaged = verify(r);
    r->in_use = 0;
    return r->damaged;
}
