/* transport nccl|host: ranks with the cuda backend (on the emulator, in build/cuda on the device) send one
 * another rows of device memory: several exchanges under way at once, parts of every size, empty ones too,
 * then a gather; every number must arrive.  A rank alone sends to itself through the wire. */
#include <stdio.h>
#include <string.h>

#include "kernels/twin.h"
#include "kernels/wire.h"
#include "launch/random.h"
#include "model/transport.h"

enum { EXCHANGES = 3, PART = 5000, ROUNDS = 20 };

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
            FAULT(70, "round %d, from rank %d to rank %d: number %lld is %g, not %g", round, from, to,
                  (long long)i, (double)host[i], (double)value_of(from, to, round, i));
}

static void exchanges(comm *world, const kernels *k, float *room) {
    int size = comm_size(world), me = comm_rank(world);
    transport *t = transport_open(world, k);
    transport_request *r[EXCHANGES];
    for (int round = 0; round < ROUNDS; round += EXCHANGES) {
        for (int x = 0; x < EXCHANGES; x++) {
            float *sent = room + x * 2 * size * PART, *came = sent + size * PART;
            comm_part send[64], receive[64];
            int n = 0;
            for (int peer = 0; peer < size; peer++) {
                if (peer == me) continue;
                fill(k, sent + peer * PART, me, peer, round + x);
                size_t out = (size_t)size_of_part(me, peer, round + x),
                       in = (size_t)size_of_part(peer, me, round + x);
                send[n] = (comm_part){peer, sent + peer * PART, out * sizeof *sent};
                receive[n++] = (comm_part){peer, came + peer * PART, in * sizeof *came};
            }
            r[x] = transport_exchange(t, "test", n, send, n, receive);
        }
        for (int x = EXCHANGES - 1; x >= 0; x--) {
            float *came = room + x * 2 * size * PART + size * PART;
            transport_wait(t, r[x]);
            for (int peer = 0; peer < size; peer++)
                if (peer != me) check(k, came + peer * PART, peer, me, round + x);
        }
    }
    size_t offset[65] = {0};
    for (int i = 0; i < size; i++) offset[i + 1] = offset[i] + (size_t)size_of_part(i, 0, 1) * sizeof *room;
    fill(k, room + offset[me] / sizeof *room, me, 0, 1);
    transport_all_gather_ranges(t, "test", room, offset);
    for (int i = 0; i < size; i++) check(k, room + offset[i] / sizeof *room, i, 0, 1);
    transport_close(t);
}

static void to_itself(const kernels *k, float *room) {
    char id[WIRE_ID];
    error e = {0};
    wire *w;
    if (k->wires->identify(k->ctx, id, &e) || k->wires->open(k->ctx, &w, id, 1, 0, 30, &e))
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
}

int main(int argc, char **argv) {
    error e = {0};
    comm *world;
    kernels k;
    char text[TRANSPORT_TEXT];
    kernels_config c = {.device = "cuda", .isa = "auto", .threads = 1};
    if (argc != 2) FAULT(EXIT_USAGE, "usage: transport nccl|host");
    transport_kind kind = strcmp(argv[1], "host") ? TRANSPORT_NCCL : TRANSPORT_HOST;
    if (comm_open(&world, 30, &e) || kernels_cuda(&k, &c, &e)) FAULT(e.code, "%s", e.text);
    if (transport_choose(&k, world, kind, text, &e)) FAULT(e.code, "%s", e.text);
    size_t bytes = (size_t)(EXCHANGES * 2 * comm_size(world) * PART) * sizeof(float);
    float *room = k.alloc(k.ctx, bytes, "the test");
    if (comm_size(world) == 1) to_itself(&k, room);
    else exchanges(world, &k, room);
    if (comm_rank(world) == 0) printf("%d ranks, %s\n", comm_size(world), text);
    k.free(k.ctx, room);
    kernels_close(&k);
    comm_close(world);
    return 0;
}
