#include "model/transport.h"

#include <stdio.h>
#include <string.h>

#include "kernels/wire.h"
#include "launch/memory.h"
#include "launch/share.h"

enum { REQUESTS = 4 * COMM_REQUESTS, OWNED = 16 };

struct transport_request {
    int in_use;
    share_request *shared;
    const char *operation;
    uint64_t sequence;
    double began; /* for the trace */
    comm_request *messages;
    /* staged: what came, and where it belongs */
    int receives, parts;       /* parts: how many there is room for */
    comm_part *part, *staging; /* [parts]: on the device, on the host */
    size_t bytes;              /* of `host` */
    char *host;
};

struct transport {
    comm *group;
    const kernels *k;
    wire *wire;   /* NULL: messages travel by MPI */
    share *share; /* NULL: they do not travel through shared memory */
    int shares;   /* all that is sent lies there */
    int owned;
    void *memory[OWNED]; /* what the backend gave to send from */
    uint64_t sequence;
    transport_request request[REQUESTS];
};

/* ---- which way ---- */

/* Do two ranks have the same device?  *a and *b: the first such pair. */
static int shared_device(kernels *k, comm *world, int *a, int *b) {
    int n = comm_size(world), found = 0;
    char mine[WIRE_NAME], *all = mem_alloc((size_t)n * WIRE_NAME, "names of devices");
    k->wires->device(k->ctx, mine);
    comm_all_gather(world, "devices", all, mine, WIRE_NAME);
    for (int i = 0; i < n && !found; i++)
        for (int j = i + 1; j < n && !found; j++)
            if (!memcmp(all + i * WIRE_NAME, all + j * WIRE_NAME, WIRE_NAME)) found = 1, *a = i, *b = j;
    mem_free(all);
    return found;
}

/* Host memory: is there room for shared memory, and are the ranks on one host?  A group of them may be, where
 * the world is not. */
static void choose_share(kernels *k, comm *world, transport_kind kind, char text[TRANSPORT_TEXT]) {
    error why = {0};
    if (kind == TRANSPORT_HOST) error_set(&why, EXIT_NO_MEMORY, "parallel.transport: host");
    else share_close(share_open(world, &why));
    k->shares = why.code != EXIT_NO_MEMORY;
    if (!why.code) snprintf(text, TRANSPORT_TEXT, "through shared memory");
    else if (k->shares) snprintf(text, TRANSPORT_TEXT, "through shared memory inside a host, by MPI between");
    else snprintf(text, TRANSPORT_TEXT, "by MPI (%.200s)", why.text);
}

int transport_choose(kernels *k, comm *world, transport_kind kind, char text[TRANSPORT_TEXT], error *e) {
    char name[WIRE_NAME] = "";
    error why = {0};
    int a, b;
    text[0] = 0;
    if (comm_size(world) == 1) return 0;
    if (k->host_memory) {
        choose_share(k, world, kind, text);
        return 0;
    }
    if (!k->wires) error_set(&why, EXIT_USAGE, "%s has no other way", k->name);
    else if (kind == TRANSPORT_HOST) error_set(&why, EXIT_USAGE, "parallel.transport: host");
    else k->wires->load(k->ctx, name, &why);
    if (!comm_agree(world, &why) && shared_device(k, world, &a, &b))
        error_set(
            &why, EXIT_USAGE,
            "ranks %d and %d share a GPU, and NCCL wants one for each rank: start as many ranks as there are "
            "GPUs, or use parallel.transport: host",
            a, b);
    if (why.code && kind == TRANSPORT_NCCL)
        return error_set(e, why.code, "parallel.transport: nccl: %s", why.text);
    if (why.code) k->wires = NULL;
    if (why.code) snprintf(text, TRANSPORT_TEXT, "staged through the host (%.200s)", why.text);
    else snprintf(text, TRANSPORT_TEXT, "%s", name);
    return 0;
}

static wire *open_wire(comm *group, const kernels *k) {
    char id[WIRE_ID] = {0};
    error e = {0};
    wire *w = NULL;
    if (comm_rank(group) == 0) k->wires->identify(k->ctx, id, &e);
    if (comm_agree(group, &e)) FAULT(e.code, "%s", e.text);
    comm_broadcast(group, "an id for NCCL", id, sizeof id, 0);
    if (k->wires->open(k->ctx, &w, id, comm_size(group), comm_rank(group), comm_timeout(group), &e))
        FAULT(e.code, "rank %d of %d: %s", comm_rank(group), comm_size(group), e.text);
    return w;
}

static void say_why(const transport *t, const char *what, const error *why) {
    if (comm_rank(t->group) == 0) notice("no shared memory for %s, which go by MPI: %s", what, why->text);
}

transport *transport_open(comm *group, const kernels *k) {
    transport *t = mem_alloc(sizeof *t, "a transport");
    t->group = group;
    t->k = k;
    if (k->wires && comm_size(group) > 1) t->wire = open_wire(group, k);
    error why = {0};
    if (k->host_memory && k->shares) t->share = share_open(group, &why);
    t->shares = t->share != NULL;
    if (why.code == EXIT_NO_MEMORY) say_why(t, "messages", &why);
    return t;
}

void transport_close(transport *t) {
    if (!t) return;
    if (t->wire) t->k->wires->close(t->wire);
    share_close(t->share);
    for (int i = 0; i < t->owned; i++) t->k->free(t->k->ctx, t->memory[i]);
    for (int i = 0; i < REQUESTS; i++) {
        mem_free(t->request[i].part);
        mem_free(t->request[i].staging);
        mem_free(t->request[i].host);
    }
    mem_free(t);
}

void *transport_alloc(transport *t, size_t bytes, const char *what) {
    error why = {0};
    void *p = t->shares ? share_alloc(t->share, bytes, &why) : NULL;
    if (p) return p;
    if (t->shares) say_why(t, what, &why);
    t->shares = 0; /* what lies there already is sent by MPI, too */
    REQUIRE(t->owned < OWNED);
    return t->memory[t->owned++] = t->k->alloc(t->k->ctx, bytes, what);
}

int transport_shares(const transport *t) {
    return t->shares;
}

static transport_request *take(transport *t, const char *operation) {
    for (int i = 0; i < (t->wire ? WIRE_SLOTS : REQUESTS); i++)
        if (!t->request[i].in_use) {
            t->request[i].in_use = 1;
            t->request[i].operation = operation;
            t->request[i].sequence = ++t->sequence;
            t->request[i].began = trace_begin(comm_trace(t->group));
            return &t->request[i];
        }
    FAULT(EXIT_BUG, "%s: %d exchanges are under way already; fewer parallel.chunks make fewer", operation,
          t->wire ? WIRE_SLOTS : REQUESTS);
}

/* ---- staged ---- */

static void make_room(transport_request *r, int parts, size_t bytes) {
    if (r->parts < parts) {
        r->parts = parts;
        r->part = mem_grow(r->part, (size_t)parts * sizeof *r->part, "message parts");
        r->staging = mem_grow(r->staging, (size_t)parts * sizeof *r->staging, "message parts");
    }
    if (r->bytes >= bytes) return;
    mem_free(r->host);
    r->bytes = bytes;
    r->host = mem_alloc_pages(bytes, "messages on their way between device and host");
}

/* Receives stand first in r->part, sends behind them. */
static void stage(transport *t, transport_request *r, const char *operation, int sends, const comm_part *send,
                  int receives, const comm_part *receive) {
    size_t bytes = 0, at = 0;
    int n = sends + receives;
    for (int i = 0; i < n; i++) bytes += i < receives ? receive[i].bytes : send[i - receives].bytes;
    make_room(r, n, bytes);
    r->receives = receives;
    for (int i = 0; i < n; i++) {
        comm_part part = i < receives ? receive[i] : send[i - receives];
        r->part[i] = part;
        r->staging[i] = (comm_part){part.peer, r->host + at, part.bytes};
        at += part.bytes;
        if (i >= receives && part.bytes) t->k->to_host(t->k->ctx, r->staging[i].data, part.data, part.bytes);
    }
    r->messages = comm_exchange(t->group, operation, sends, r->staging + receives, receives, r->staging);
}

static void unstage(transport *t, transport_request *r) {
    for (int i = 0; i < r->receives; i++)
        if (r->part[i].bytes)
            t->k->to_device(t->k->ctx, r->part[i].data, r->staging[i].data, r->part[i].bytes);
}

/* ---- by wire ---- */

static void wire_start(transport *t, transport_request *r, int sends, const comm_part *send, int receives,
                       const comm_part *receive) {
    error e = {0};
    if (t->k->wires->start(t->wire, (int)(r - t->request), sends, send, receives, receive,
                           comm_timeout(t->group), &e))
        FAULT(e.code, "rank %d of %d, %s #%llu: %s", comm_rank(t->group), comm_size(t->group), r->operation,
              (unsigned long long)r->sequence, e.text);
}

static void wire_wait(transport *t, const transport_request *r) {
    double began = comm_clock(), seconds = comm_timeout(t->group);
    error e = {0};
    for (int over = 0; !over;) {
        over = t->k->wires->done(t->wire, (int)(r - t->request), &e);
        if (!over && comm_clock() - began > seconds)
            error_set(
                &e, EXIT_TIMED_OUT,
                "waited %.0f s and its messages never came; a rank is stuck, stopped or gone (wait_timeout "
                "sets how long to wait)",
                seconds);
        if (e.code)
            FAULT(e.code, "rank %d of %d, %s #%llu: %s", comm_rank(t->group), comm_size(t->group),
                  r->operation, (unsigned long long)r->sequence, e.text);
    }
    comm_add_exposed(t->group, comm_clock() - began);
    trace_wait(comm_trace(t->group), r->operation, -1, began);
    comm_trace_exchange(t->group, (int)(r - t->request), r->operation, -1, r->began);
}

/* ---- all ways ---- */

transport_request *transport_exchange(transport *t, const char *operation, int sends, const comm_part *send,
                                      int receives, const comm_part *receive) {
    transport_request *r = take(t, operation);
    if (t->shares) r->shared = share_exchange(t->share, operation, sends, send, receives, receive);
    else if (t->k->host_memory)
        r->messages = comm_exchange(t->group, operation, sends, send, receives, receive);
    else if (t->wire) wire_start(t, r, sends, send, receives, receive);
    else stage(t, r, operation, sends, send, receives, receive);
    if (t->wire && !comm_overlaps(t->group)) wire_wait(t, r);
    return r;
}

int transport_has_come(const transport *t, const transport_request *r) {
    if (!r) return 1;
    if (!t->k->host_memory) return 0;
    return t->shares ? share_has_come(t->share, r->shared) : comm_has_come(t->group, r->messages);
}

int transport_arrive(transport *t, transport_request *r) {
    if (!r) return 0;
    if (t->shares) return share_arrive(t->share, r->shared);
    int damaged = 0;
    if (t->wire) wire_wait(t, r);
    else damaged = comm_wait(t->group, r->messages);
    if (!t->wire && !t->k->host_memory) unstage(t, r);
    r->in_use = 0; /* what was sent has left: nothing remains to be waited for */
    return damaged;
}

const void *transport_came(const transport *t, const transport_request *r, int i, const void *data) {
    return t->shares ? share_came(r->shared, i) : data;
}

void transport_taken(transport *t, transport_request *r) {
    if (r && t->shares) share_taken(t->share, r->shared);
}

void transport_wait(transport *t, transport_request *r) {
    if (!r || !t->shares) return;
    share_wait(t->share, r->shared);
    r->in_use = 0;
}

void transport_all_gather_ranges(transport *t, const char *operation, void *data, const size_t *offset) {
    int size = comm_size(t->group);
    if (size == 1) return;
    if (t->k->host_memory) { /* weights lie where kernels read them best, and travel by MPI */
        comm_all_gather_ranges(t->group, operation, data, offset);
        return;
    }
    comm_part *part = mem_alloc(2 * (size_t)size * sizeof *part, "message parts");
    int n = comm_ranges(t->group, data, offset, part, part + size);
    transport_arrive(t, transport_exchange(t, operation, n, part, n, part + size));
    mem_free(part);
}
