/* transport nccl|host|shared|mpi [TRACE]: ranks send one another rows, with the cuda backend (on the
 * emulator, in build/cuda on the device) or, for the last two, with the ref backend: several exchanges under
 * way at once, parts of every size, empty ones too, memory that is used again, then a gather; every number
 * must arrive.  A rank alone sends to itself through the wire.  TRACE: a timeline of it, in which exchanges
 * that are under way together, and one of the group's own with them, have rows of their own. */
#include <stdio.h>
#include <string.h>

#include "kernels/twin.h"
#include "kernels/wire.h"
#include "launch/random.h"
#include "model/transport.h"

enum { EXCHANGES = 3, PART = 5000, ROUNDS = 20, MANY = 900 }; /* many: places of notes are used again */

static float value_of(int from, int to, int round, int64_t i) {
    return (float)(random_bits((uint64_t)round, (uint64_t)from * 64 + (uint64_t)to, (uint64_t)i) % 100003);
}
static int64_t size_of_part(int from, int to, int round) {
    return (int64_t)(random_bits(7, (uint64_t)from * 64 + (uint64_t)to, (uint64_t)round) % PART) *
           (round % 3 != 2);
}

static void fill(const kernels *k, float *device, int from, int to, int round) {
    float host[PART];
    int64_t n = size_of_part(from, to, round);
    for (int64_t i = 0; i < n; i++) host[i] = value_of(from, to, round, i);
    k->to_device(k->ctx, device, host, (size_t)n * sizeof *host);
}
static void check(const kernels *k, const float *device, int from, int to, int round) {
    float host[PART];
    int64_t n = size_of_part(from, to, round);
    k->to_host(k->ctx, host, device, (size_t)n * sizeof *host);
    for (int64_t i = 0; i < n; i++)
        if (host[i] != value_of(from, to, round, i))
            FAULT(EXIT_BUG, "round %d, from rank %d to rank %d: number %lld is %g, not %g", round, from, to,
                  (long long)i, (double)host[i], (double)value_of(from, to, round, i));
}

static void exchanges(comm *world, const kernels *k, int rounds) {
    int size = comm_size(world), me = comm_rank(world);
    transport *t = transport_open(world, k);
    transport_request *r[EXCHANGES] = {0};
    size_t bytes = (size_t)(EXCHANGES * size * PART) * sizeof(float);
    float *room = transport_alloc(t, bytes, "the test"),
          *others = transport_shares(t) ? NULL : k->alloc(k->ctx, bytes, "the test");
    int32_t ranks[64];
    for (int round = 0; round < rounds; round += EXCHANGES) {
        comm_request *own = comm_all_gather_start(world, "ranks", ranks, &me, sizeof me);
        for (int x = 0; x < EXCHANGES; x++) {
            float *sent = room + x * size * PART, *came = others ? others + x * size * PART : NULL;
            comm_part send[64], receive[64];
            int n = 0;
            transport_wait(t, r[x]);
            for (int peer = 0; peer < size; peer++) {
                if (peer == me) continue;
                fill(k, sent + peer * PART, me, peer, round + x);
                size_t out = (size_t)size_of_part(me, peer, round + x),
                       in = (size_t)size_of_part(peer, me, round + x);
                send[n] = (comm_part){peer, sent + peer * PART, out * sizeof *sent};
                receive[n++] = (comm_part){peer, came ? came + peer * PART : NULL, in * sizeof *came};
            }
            r[x] = transport_exchange(t, "test", n, send, n, receive);
        }
        for (int x = EXCHANGES - 1; x >= 0; x--) {
            float *came = others ? others + x * size * PART : NULL;
            if (x == 0) comm_wait(world, own); /* began before this one and ends before it */
            transport_arrive(t, r[x]);
            for (int peer = 0, n = 0; peer < size; peer++)
                if (peer != me)
                    check(k, transport_came(t, r[x], n++, came ? came + peer * PART : NULL), peer, me,
                          round + x);
            transport_taken(t, r[x]);
        }
    }
    for (int x = 0; x < EXCHANGES; x++) transport_wait(t, r[x]);
    size_t offset[65] = {0};
    for (int i = 0; i < size; i++) offset[i + 1] = offset[i] + (size_t)size_of_part(i, 0, 1) * sizeof *room;
    fill(k, room + offset[me] / sizeof *room, me, 0, 1);
    transport_all_gather_ranges(t, "test", room, offset);
    for (int i = 0; i < size; i++) check(k, room + offset[i] / sizeof *room, i, 0, 1);
    k->free(k->ctx, others);
    transport_close(t);
}

static void to_itself(const kernels *k) {
    float *room = k->alloc(k->ctx, 2 * PART * sizeof *room, "the test");
    char id[WIRE_ID];
    error e = {0};
    wire *w;
    if (k->wires->identify(k->ctx, id, &e) || k->wires->open(k->ctx, &w, id, 1, 0, 60, &e))
        FAULT(e.code, "%s", e.text);
    for (int round = 0; round < ROUNDS; round++) {
        comm_part out = {0, room, (size_t)size_of_part(0, 0, round) * sizeof *room}, in = out;
        in.data = room + PART;
        fill(k, room, 0, 0, round);
        if (k->wires->start(w, round, 1, &out, 1, &in, 30, &e)) FAULT(e.code, "%s", e.text);
        int over = 0;
        while (!over) over = k->wires->done(w, round, &e);
        if (over < 0) FAULT(e.code, "%s", e.text);
        check(k, room + PART, 0, 0, round);
    }
    k->wires->close(w);
    k->free(k->ctx, room);
}

int main(int argc, char **argv) {
    error e = {0};
    comm *world;
    kernels k;
    char text[TRANSPORT_TEXT];
    if (argc < 2 || argc > 3) FAULT(EXIT_USAGE, "usage: transport nccl|host|shared|mpi [TRACE]");
    int near = !strcmp(argv[1], "shared") || !strcmp(argv[1], "mpi");
    kernels_config c = {.isa = "auto", .threads = 1};
    strcpy(c.device, near ? "ref" : "cuda");
    transport_kind kind = !strcmp(argv[1], "nccl")     ? TRANSPORT_NCCL
                          : !strcmp(argv[1], "shared") ? TRANSPORT_AUTO
                                                       : TRANSPORT_HOST;
    if (comm_open(&world, 30, &e) || (near ? kernels_open(&k, &c, &e) : kernels_cuda(&k, &c, &e)) ||
        transport_choose(&k, world, kind, text, &e))
        FAULT(e.code, "%s", e.text);
    trace *timeline = argc > 2 ? trace_open() : NULL;
    comm_set_trace(world, timeline);
    if (comm_size(world) == 1) to_itself(&k);
    else exchanges(world, &k, near ? MANY : ROUNDS);
    comm_set_trace(world, NULL);
    if (timeline && trace_write(timeline, world, argv[2], &e)) FAULT(e.code, "%s", e.text);
    trace_close(timeline);
    if (comm_rank(world) == 0) printf("%d ranks, %s\n", comm_size(world), text);
    kernels_close(&k);
    comm_close(world);
    return 0;
}
