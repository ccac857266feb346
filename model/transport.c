#include "model/transport.h"

#include <string.h>

#include "launch/memory.h"

enum { REQUESTS = 32 }; /* as many as a group has */

struct transport_request {
    int in_use;
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
    transport_request request[REQUESTS];
};

transport *transport_open(comm *group, const kernels *k) {
    transport *t = mem_alloc(sizeof *t, "a transport");
    t->group = group;
    t->k = k;
    return t;
}

void transport_close(transport *t) {
    if (!t) return;
    for (int i = 0; i < REQUESTS; i++) {
        mem_free(t->request[i].part);
        mem_free(t->request[i].staging);
        mem_free(t->request[i].host);
    }
    mem_free(t);
}

static transport_request *take(transport *t, const char *operation) {
    for (int i = 0; i < REQUESTS; i++)
        if (!t->request[i].in_use) {
            t->request[i].in_use = 1;
            return &t->request[i];
        }
    FAULT(70, "%s: %d exchanges are under way already", operation, REQUESTS);
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

/* ---- */

transport_request *transport_exchange(transport *t, const char *operation, int sends, const comm_part *send,
                                      int receives, const comm_part *receive) {
    transport_request *r = take(t, operation);
    if (t->k->host_memory) r->messages = comm_exchange(t->group, operation, sends, send, receives, receive);
    else stage(t, r, operation, sends, send, receives, receive);
    return r;
}

int transport_wait(transport *t, transport_request *r) {
    if (!r) return 0;
    int damaged = comm_wait(t->group, r->messages);
    if (!t->k->host_memory) unstage(t, r);
    r->in_use = 0;
    return damaged;
}

void transport_all_gather_ranges(transport *t, const char *operation, void *data, const size_t *offset) {
    int size = comm_size(t->group);
    if (size == 1) return;
    comm_part *part = mem_alloc(2 * (size_t)size * sizeof *part, "message parts");
    int n = comm_ranges(t->group, data, offset, part, part + size);
    transport_wait(t, transport_exchange(t, operation, n, part, n, part + size));
    mem_free(part);
}
