/* Wires by NCCL, which is opened when several ranks have a GPU each, and not needed otherwise.
 *
 * Messages are ncclSend and ncclRecv alone: NCCL's own reductions add in an order of their choice, so the
 * program folds what it received itself (optim/gradients.h). */
#include <nccl.h>
#include <stdio.h>
#include <string.h>
#ifdef __CUDACC__
#include <dlfcn.h>
#endif

#include "kernels/cuda/context.cuh"

extern "C" {
#include "kernels/wire.h"
}

static_assert((int)WIRE_ID == (int)NCCL_UNIQUE_ID_BYTES, "an id is NCCL's");

#define FUNCTIONS(DO)                                                                                        \
    DO(ncclGetVersion)                                                                                       \
    DO(ncclGetUniqueId)                                                                                      \
    DO(ncclCommInitRankConfig)                                                                               \
    DO(ncclCommGetAsyncError)                                                                                \
    DO(ncclCommAbort)                                                                                        \
    DO(ncclGetErrorString)                                                                                   \
    DO(ncclGetLastError)                                                                                     \
    DO(ncclGroupStart)                                                                                       \
    DO(ncclGroupEnd)                                                                                         \
    DO(ncclSend)                                                                                             \
    DO(ncclRecv)

typedef struct nccl {
    void *library;
#define POINTER(name) decltype(&::name) name;
    FUNCTIONS(POINTER)
#undef POINTER
} nccl;

struct wire {
    nccl api;
    kernel_context *ctx;
    ncclComm_t comm;
    cudaStream_t stream;
    cudaEvent_t before, over[WIRE_SLOTS];
};

#ifdef __CUDACC__

static int load(nccl *x, error *e) {
    *x = nccl{};
    x->library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!x->library)
        return error_set(
            e, EXIT_USAGE,
            "NCCL (libnccl.so.2) is not found (%s): install it or put its folder into LD_LIBRARY_PATH; "
            "parallel.transport: host does without",
            dlerror());
#define FIND(name)                                                                                           \
    if (!(x->name = (decltype(&::name))dlsym(x->library, #name)))                                            \
        return error_set(e, EXIT_USAGE, "libnccl.so.2 has no %s: NCCL 2.18 or later is needed", #name);
    FUNCTIONS(FIND)
#undef FIND
    return 0;
}

#else /* the emulator has its own */

static int load(nccl *x, error *) {
    *x = nccl{};
#define FIND(name) x->name = ::name;
    FUNCTIONS(FIND)
#undef FIND
    return 0;
}

#endif

static int failed(const nccl *x, ncclComm_t comm, ncclResult_t code, const char *what, error *e) {
    if (code == ncclSuccess || code == ncclInProgress) return 0;
    return error_set(e, EXIT_RANK_DIED, "NCCL: %s: %s (%.200s)", what, x->ncclGetErrorString(code),
                     x->ncclGetLastError(comm));
}

/* Communicators do not block: what they began is waited for here. */
static int settle(const wire *w, const char *what, double seconds, error *e) {
    double began = comm_clock();
    for (;;) {
        ncclResult_t state = ncclSuccess;
        if (failed(&w->api, w->comm, w->api.ncclCommGetAsyncError(w->comm, &state), what, e) ||
            failed(&w->api, w->comm, state, what, e))
            return e->code;
        if (state == ncclSuccess) return 0;
        if (comm_clock() - began > seconds)
            return error_set(
                e, EXIT_TIMED_OUT,
                "NCCL: %s lasts longer than %.0f s; a rank is stuck, stopped or gone (wait_timeout sets "
                "how long to wait)",
                what, seconds);
    }
}

static int load_and_name(kernel_context *, char name[WIRE_NAME], error *e) {
    nccl x;
    int version = 0;
    if (load(&x, e)) return e->code;
    x.ncclGetVersion(&version);
    snprintf(name, WIRE_NAME, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    return 0;
}

static void device_name(kernel_context *ctx, char name[WIRE_NAME]) {
    cudaDeviceProp device;
    CUDA_OK(cudaGetDeviceProperties(&device, ctx->device));
    memset(name, 0, WIRE_NAME);
    for (int i = 0; i < 16; i++) snprintf(name + 2 * i, 3, "%02x", (unsigned char)device.uuid.bytes[i]);
}

static int identify(kernel_context *, char id[WIRE_ID], error *e) {
    nccl x;
    ncclUniqueId made;
    if (load(&x, e) || failed(&x, NULL, x.ncclGetUniqueId(&made), "making an id", e)) return e->code;
    memcpy(id, made.internal, WIRE_ID);
    return 0;
}

static void close_wire(wire *w) {
    /* nothing is under way: every exchange was waited for */
    if (w->comm) w->api.ncclCommAbort(w->comm);
    for (int i = 0; i < WIRE_SLOTS; i++) CUDA_OK(cudaEventDestroy(w->over[i]));
    CUDA_OK(cudaEventDestroy(w->before));
    CUDA_OK(cudaStreamDestroy(w->stream));
    mem_free(w);
}

static int open_wire(kernel_context *ctx, wire **out, const char id[WIRE_ID], int ranks, int rank,
                     double seconds, error *e) {
    nccl x;
    if (load(&x, e)) return e->code;
    wire *w = (wire *)mem_alloc(sizeof *w, "a wire");
    w->api = x;
    w->ctx = ctx;
    int least, greatest; /* messages go first: compute has enough to do */
    CUDA_OK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CUDA_OK(cudaStreamCreateWithPriority(&w->stream, cudaStreamNonBlocking, greatest));
    CUDA_OK(cudaEventCreateWithFlags(&w->before, cudaEventDisableTiming));
    for (int i = 0; i < WIRE_SLOTS; i++)
        CUDA_OK(cudaEventCreateWithFlags(&w->over[i], cudaEventDisableTiming));
    ncclUniqueId made;
    memcpy(made.internal, id, WIRE_ID);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclResult_t code = x.ncclCommInitRankConfig(&w->comm, ranks, made, rank, &config);
    if (failed(&x, w->comm, code, "joining the ranks", e) || settle(w, "joining the ranks", seconds, e)) {
        close_wire(w);
        return e->code;
    }
    *out = w;
    return 0;
}

static int start(wire *w, int slot, int sends, const comm_part *send, int receives, const comm_part *receive,
                 double seconds, error *e) {
    const nccl *x = &w->api;
    ncclResult_t code = ncclSuccess;
    CUDA_OK(cudaEventRecord(w->before, w->ctx->stream));
    CUDA_OK(cudaStreamWaitEvent(w->stream, w->before, 0));
    for (int i = 0; i < receives; i++) wrote(w->ctx, receive[i].data, receive[i].bytes);
    x->ncclGroupStart();
    for (int i = 0; i < receives && !failed(x, w->comm, code, "receiving", e); i++)
        if (receive[i].bytes)
            code =
                x->ncclRecv(receive[i].data, receive[i].bytes, ncclInt8, receive[i].peer, w->comm, w->stream);
    for (int i = 0; i < sends && !failed(x, w->comm, code, "sending", e); i++)
        if (send[i].bytes)
            code = x->ncclSend(send[i].data, send[i].bytes, ncclInt8, send[i].peer, w->comm, w->stream);
    ncclResult_t end = x->ncclGroupEnd();
    if (failed(x, w->comm, code, "an exchange", e) || failed(x, w->comm, end, "an exchange", e) ||
        settle(w, "starting an exchange", seconds, e))
        return e->code;
    CUDA_OK(cudaEventRecord(w->over[slot], w->stream));
    return 0;
}

static int done(wire *w, int slot, error *e) {
    ncclResult_t state = ncclSuccess;
    cudaError_t code = cudaEventQuery(w->over[slot]);
    if (code == cudaSuccess) return 1;
    if (code != cudaErrorNotReady) {
        error_set(e, EXIT_RANK_DIED, "the GPU fails in an exchange: %s", cudaGetErrorString(code));
        return -1;
    }
    cudaGetLastError(); /* "not ready" is no error, but the next launch would take it for its own */
    if (failed(&w->api, w->comm, w->api.ncclCommGetAsyncError(w->comm, &state), "an exchange", e) ||
        failed(&w->api, w->comm, state, "an exchange", e))
        return -1;
    return 0;
}

extern "C" const wires cuda_wires = {load_and_name, device_name, identify, open_wire,
                                     close_wire,    start,       done};
