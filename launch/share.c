#include "launch/share.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "launch/comm_inside.h"
#include "launch/digest.h"
#include "launch/memory.h"

enum {
    REQUESTS = 4 * COMM_REQUESTS, /* exchanges whose memory is not free again yet */
    NOTES = 512,                  /* messages from one rank to another of which that holds */
    WINDOWS = 16,
    PAGE = 4096,
    ALIGNED = 64,
    READ_MOST = 1 << 30,
};

/* One message, as its sender notes it for one receiver.  Messages between two ranks are numbered from 1; the
 * place of number n is n % NOTES. */
typedef struct note {
    _Alignas(64) uint64_t posted; /* n when it lies there (written by the sender) */
    uint64_t taken;               /* n when it has been read (by the receiver) */
    uint64_t offset, bytes;       /* in the sender's part of the window */
    int window;
} note;

/* Memory of all ranks. */
typedef struct window {
    MPI_Win mpi;
    size_t bytes; /* of this rank's part */
    char **base;  /* [size] where this process sees each rank's part */
} window;

typedef struct expected {
    int peer;
    uint64_t number;
    size_t bytes;
    char *data;
} expected;

struct share_request {
    int in_use, arrived, taken, damaged;
    const char *operation;
    uint64_t sequence;
    int64_t layer;
    double began;   /* for the trace */
    int in, out;    /* messages this rank receives, and sends */
    int room;       /* of the lists */
    expected *part; /* [in] in the order of receive, then [out] */
    int checked;    /* digests travel beside it, by MPI */
    comm_request *digests;
    comm_part *digest_part; /* [in] and [out] */
    size_t digest_room;
    uint64_t *digest;
};

struct share {
    comm *group;
    uint64_t sequence;
    uint64_t *sent, *received; /* [size] number of the last message to and from each rank */
    int windows;               /* the first holds the notes */
    window window[WINDOWS];
    share_request request[REQUESTS];
};

/* ---- memory ---- */

static void window_free(window *w) {
    MPI_Win_unlock_all(w->mpi);
    MPI_Win_free(&w->mpi);
    mem_free(w->base);
    *w = (window){0};
}

/* Zeroes memory of the file system for shared memory.  Where that is full, writing would end the process by a
 * signal; a read into it just fails. */
static int touch(char *to, size_t bytes, error *e) {
    int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    ssize_t n = 1;
    for (size_t at = 0; n > 0 && at < bytes; at += (size_t)n) {
        n = read(zeros, to + at, bytes - at < READ_MOST ? bytes - at : READ_MOST);
        if (n <= 0) error_set(e, EXIT_NO_MEMORY, "this host's shared memory is full (df /dev/shm)");
    }
    if (zeros >= 0) close(zeros);
    return e->code;
}

/* Asked before MPI is, which may wait for ever where one rank of a host finds no room and the others do not
 * know. */
static int room_left(comm *group, size_t bytes, error *e) {
    struct statvfs fs;
    int64_t all = (int64_t)bytes;
    comm_sum_i64(group, "shared memory", &all, 1);
    if (!statvfs("/dev/shm", &fs)) {
        int64_t left = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize, needed = all + all / 8 + (1 << 20);
        if (left < needed)
            error_set(e, EXIT_NO_MEMORY, "/dev/shm has %lld MiB left, and %lld MiB are needed",
                      (long long)left >> 20, (long long)needed >> 20);
    }
    return comm_agree(group, e);
}

static int window_open(window *w, comm *group, size_t bytes, error *why) {
    MPI_Info info;
    error e = {0};
    void *mine = NULL;
    bytes = (bytes + PAGE - 1) / PAGE * PAGE + ALIGNED; /* nobody's lines are another's */
    if (room_left(group, bytes, &e)) {
        *why = e;
        return why->code;
    }
    MPI_Info_create(&info);
    MPI_Info_set(info, "alloc_shared_noncontig", "true"); /* each part in its rank's own memory */
    int made = MPI_Win_allocate_shared((MPI_Aint)bytes, 1, info, group->mpi, &mine, &w->mpi) == MPI_SUCCESS;
    MPI_Info_free(&info);
    if (!made) error_set(&e, EXIT_NO_MEMORY, "MPI gives no %zu MiB of shared memory", bytes >> 20);
    if (comm_agree(group, &e)) { /* it says no to all ranks or to none: nothing is to be freed */
        *why = e;
        return why->code;
    }
    size_t *skipped = mem_alloc((size_t)group->size * sizeof *skipped, "shared memory");
    size_t skip = -(uintptr_t)mine % ALIGNED; /* MPI aligns to its own taste */
    comm_all_gather(group, "shared memory", skipped, &skip, sizeof skip);
    w->bytes = bytes - ALIGNED;
    w->base = mem_alloc((size_t)group->size * sizeof *w->base, "shared memory");
    MPI_Win_lock_all(MPI_MODE_NOCHECK, w->mpi);
    for (int i = 0; i < group->size; i++) {
        MPI_Aint size;
        int unit;
        MPI_Win_shared_query(w->mpi, i, &size, &unit, &w->base[i]);
        w->base[i] += skipped[i];
    }
    mem_free(skipped);
    touch(w->base[group->rank], w->bytes, &e);
    if (!comm_agree(group, &e)) return 0;
    window_free(w);
    *why = e;
    return why->code;
}

static int one_host(comm *group) {
    comm *host = comm_host(group);
    int size = comm_size(host);
    comm_free(host);
    return size == group->size;
}

share *share_open(comm *group, error *why) {
    error e = {0};
    if (group->size == 1) error_set(&e, EXIT_USAGE, "a rank alone has nobody to share with");
    else if (!one_host(group)) error_set(&e, EXIT_USAGE, "ranks are on several hosts");
    if (comm_agree(group, &e)) {
        *why = e;
        return NULL;
    }
    size_t size = (size_t)group->size;
    share *s = mem_alloc(sizeof *s, "shared memory");
    s->group = group;
    if (window_open(&s->window[0], group, size * NOTES * sizeof(note), why)) {
        mem_free(s);
        return NULL;
    }
    s->windows = 1;
    s->sent = mem_alloc(size * sizeof *s->sent, "shared memory");
    s->received = mem_alloc(size * sizeof *s->received, "shared memory");
    return s;
}

void share_close(share *s) {
    if (!s) return;
    for (int i = 0; i < s->windows; i++) window_free(&s->window[i]);
    for (int i = 0; i < REQUESTS; i++) {
        mem_free(s->request[i].part);
        mem_free(s->request[i].digest_part);
        mem_free(s->request[i].digest);
    }
    mem_free(s->sent);
    mem_free(s->received);
    mem_free(s);
}

void *share_alloc(share *s, size_t bytes, error *why) {
    REQUIRE(s->windows < WINDOWS);
    window *w = &s->window[s->windows];
    if (window_open(w, s->group, bytes, why)) return NULL;
    s->windows++;
    return w->base[s->group->rank];
}

/* ---- notes ---- */

static note *note_of(const share *s, int from, int to, uint64_t number) {
    return (note *)(void *)s->window[0].base[from] + (size_t)to * NOTES + number % NOTES;
}

static void place_of(const share *s, const comm_part *p, note *n) {
    const char *data = p->data;
    for (int i = 1; i < s->windows; i++) {
        const char *base = s->window[i].base[s->group->rank];
        if (data < base || data >= base + s->window[i].bytes) continue;
        n->window = i;
        n->offset = (uint64_t)(data - base);
        n->bytes = p->bytes;
        return;
    }
    FAULT(EXIT_BUG, "a message lies outside of shared memory");
}

/* ---- waiting ---- */

typedef struct patience {
    int spins;
    double start;
} patience;

/* Between two looks at a note; returns when the deadline has passed. */
static int rest(const share *s, patience *p) {
    if (p->spins < COMM_SPINS) {
        p->spins++;
        return 0;
    }
    comm_progress(s->group); /* the one waited for may wait for MPI itself */
    sched_yield();
    return comm_clock() - p->start > s->group->shared->timeout;
}

static int has_come(const share *s, const expected *m) {
    const note *n = note_of(s, m->peer, s->group->rank, m->number);
    return !m->bytes || __atomic_load_n(&n->posted, __ATOMIC_ACQUIRE) == m->number;
}
static int has_been_read(const share *s, const expected *m) {
    const note *n = note_of(s, s->group->rank, m->peer, m->number);
    return __atomic_load_n(&n->taken, __ATOMIC_ACQUIRE) >= m->number;
}

_Noreturn static void too_late(const share *s, const share_request *r, int incoming) {
    char late[512] = "";
    size_t used = 0;
    const expected *part = incoming ? r->part : r->part + r->in;
    int missing = 0, n = incoming ? r->in : r->out;
    for (int i = 0; i < n; i++) {
        const expected *m = &part[i];
        if (incoming ? has_come(s, m) : has_been_read(s, m)) continue;
        missing++;
        if (used < sizeof late - 80)
            used += (size_t)snprintf(late + used, sizeof late - used, "%s%zu bytes %s rank %d",
                                     used ? ", " : "", m->bytes, incoming ? "from" : "to", m->peer);
    }
    comm_late(s->group, r->operation, r->sequence, missing, n, late);
}

/* Of all messages in, or of all messages out. */
static void wait_for(share *s, share_request *r, int incoming) {
    const expected *part = incoming ? r->part : r->part + r->in;
    patience p = {0, comm_clock()};
    for (int i = 0; i < (incoming ? r->in : r->out); i++)
        while (!(incoming ? has_come(s, &part[i]) : has_been_read(s, &part[i])))
            if (rest(s, &p)) too_late(s, r, incoming);
    if (!incoming && !p.spins) return; /* nothing that anybody would see */
    s->group->shared->exposed += comm_clock() - p.start;
    trace_wait(s->group->shared->trace, r->operation, r->layer, p.start);
}

/* ---- exchanges ---- */

static share_request *take(share *s, const char *operation, int messages) {
    share_request *r = NULL;
    for (int i = 0; i < REQUESTS && !r; i++)
        if (!s->request[i].in_use) r = &s->request[i];
    if (!r) FAULT(EXIT_BUG, "%s: %d exchanges are under way already", operation, REQUESTS);
    if (r->room < messages) {
        r->room = messages;
        r->part = mem_grow(r->part, (size_t)messages * sizeof *r->part, "message requests");
        r->digest_part =
            mem_grow(r->digest_part, (size_t)messages * sizeof *r->digest_part, "message requests");
    }
    r->in_use = 1;
    r->arrived = r->taken = r->damaged = 0;
    r->operation = operation;
    r->sequence = ++s->sequence;
    r->layer = s->group->shared->layer;
    r->began = trace_begin(s->group->shared->trace);
    r->in = r->out = 0;
    r->digests = NULL;
    return r;
}

static void post(share *s, share_request *r, const comm_part *p) {
    uint64_t number = ++s->sent[p->peer];
    note *n = note_of(s, s->group->rank, p->peer, number);
    expected before = {p->peer, number - NOTES, 0, NULL};
    patience wait = {0, comm_clock()};
    while (number > NOTES && !has_been_read(s, &before))
        if (rest(s, &wait)) FAULT(EXIT_TIMED_OUT, "%s: rank %d takes no messages", r->operation, p->peer);
    place_of(s, p, n);
    r->part[r->in + r->out++] = (expected){p->peer, number, p->bytes, p->data};
    __atomic_store_n(&n->posted, number, __ATOMIC_RELEASE);
}

/* Starts the digests of what is sent, and makes room for those of what comes. */
static void start_digests(share *s, share_request *r) {
    size_t blocks = 0;
    for (int i = 0; i < r->in + r->out; i++) blocks += digest_blocks(r->part[i].bytes);
    if (r->digest_room < blocks) {
        r->digest_room = blocks;
        r->digest = mem_grow(r->digest, blocks * sizeof *r->digest, "message digests");
    }
    uint64_t *at = r->digest;
    for (int i = 0; i < r->in + r->out; i++) {
        const expected *m = &r->part[i];
        r->digest_part[i] = (comm_part){m->peer, at, digest_blocks(m->bytes) * sizeof *at};
        if (i >= r->in) digest_of(at, m->data, m->bytes);
        at += digest_blocks(m->bytes);
    }
    r->digests = comm_exchange(s->group, "digests", r->out, r->digest_part + r->in, r->in, r->digest_part);
}

share_request *share_exchange(share *s, const char *operation, int sends, const comm_part *send, int receives,
                              const comm_part *receive) {
    share_request *r = take(s, operation, sends + receives);
    for (int i = 0; i < receives; i++) /* parts without bytes keep their places, but nobody waits for them */
        r->part[r->in++] = (expected){receive[i].peer, receive[i].bytes ? ++s->received[receive[i].peer] : 0,
                                      receive[i].bytes, NULL};
    for (int i = 0; i < sends; i++)
        if (send[i].bytes) post(s, r, &send[i]);
    r->checked = s->group->shared->checked;
    if (r->checked) start_digests(s, r);
    if (!s->group->shared->overlap) share_arrive(s, r);
    return r;
}

/* Whether a message is what its sender sent, in pieces as large as MPI's. */
static int verify(share *s, const share_request *r, int i) {
    const expected *m = &r->part[i];
    int damaged = 0;
    for (size_t at = 0; at < m->bytes; at += COMM_PIECE) {
        size_t bytes = m->bytes - at < COMM_PIECE ? m->bytes - at : COMM_PIECE;
        uint64_t *digest = r->checked ? (uint64_t *)r->digest_part[i].data + at / DIGEST_BLOCK : NULL;
        damaged |= comm_verify(s->group, r->operation, r->sequence, r->layer,
                               &(message){m->peer, (int)bytes, 1, m->data + at, digest});
    }
    return damaged;
}

int share_has_come(const share *s, const share_request *r) {
    for (int i = 0; i < r->in && !r->arrived; i++)
        if (!has_come(s, &r->part[i])) return 0;
    return 1;
}

int share_arrive(share *s, share_request *r) {
    comm *c = s->group;
    if (r->arrived) return r->damaged;
    wait_for(s, r, 1);
    r->arrived = 1;
    comm_wait(c, r->digests);
    for (int i = 0; i < r->in; i++) {
        expected *m = &r->part[i];
        if (!m->bytes) continue;
        const note *n = note_of(s, m->peer, c->rank, m->number);
        if (n->bytes != m->bytes)
            FAULT(EXIT_BUG, "%s #%llu: rank %d expected %zu bytes from rank %d and got %llu", r->operation,
                  (unsigned long long)r->sequence, c->rank, m->bytes, m->peer, (unsigned long long)n->bytes);
        m->data = s->window[n->window].base[m->peer] + n->offset;
        r->damaged += verify(s, r, i);
    }
    comm_trace_exchange(c, (int)(r - s->request), r->operation, r->layer, r->began);
    return r->damaged;
}

const void *share_came(const share_request *r, int i) {
    REQUIRE(r->arrived && !r->taken && i < r->in);
    return r->part[i].data;
}

void share_taken(share *s, share_request *r) {
    REQUIRE(r->arrived);
    for (int i = 0; i < r->in && !r->taken; i++) {
        const expected *m = &r->part[i];
        if (!m->bytes) continue;
        __atomic_store_n(&note_of(s, m->peer, s->group->rank, m->number)->taken, m->number, __ATOMIC_RELEASE);
    }
    r->taken = 1;
}

void share_wait(share *s, share_request *r) {
    REQUIRE(r->taken);
    wait_for(s, r, 0);
    r->in_use = 0;
}
