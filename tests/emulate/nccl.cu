/* NCCL's twin for the emulator: a message is a file in /dev/shm, named by the group's id, sender, receiver
 * and number.  What a group of calls asks for is done when it ends; a communicator is "in progress" for a
 * moment after it, as the real one is. */
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RANKS = 64, CALLS = 4096 };
static const double PATIENCE = 60; /* seconds that a message may take */

struct ncclComm {
    char prefix[NCCL_UNIQUE_ID_BYTES];
    int rank, in_progress;
    long sent[RANKS], received[RANKS];
};

/* Calls of the group under way: one thread speaks, as in the program. */
static struct call {
    ncclComm_t comm;
    void *data;
    size_t bytes;
    int peer, is_send;
} calls[CALLS];
static int n_calls, groups;

static void path_of(char *path, size_t size, ncclComm_t c, int from, int to, long number) {
    snprintf(path, size, "%.100s.%d.%d.%ld", c->prefix, from, to, number);
}

static ncclResult_t send_now(const call *x) {
    char path[192], part[200];
    path_of(path, sizeof path, x->comm, x->comm->rank, x->peer, x->comm->sent[x->peer]++);
    snprintf(part, sizeof part, "%s~", path);
    FILE *f = fopen(part, "wb");
    if (!f) return ncclSystemError;
    size_t written = fwrite(x->data, 1, x->bytes, f);
    return fclose(f) || written != x->bytes || rename(part, path) ? ncclSystemError : ncclSuccess;
}

static ncclResult_t receive_now(const call *x) {
    char path[192];
    timespec pause = {0, 50000};
    path_of(path, sizeof path, x->comm, x->peer, x->comm->rank, x->comm->received[x->peer]++);
    FILE *f = NULL;
    for (double waited = 0; !f && waited < PATIENCE; waited += 5e-5)
        if (!(f = fopen(path, "rb"))) nanosleep(&pause, NULL);
    if (!f) return ncclSystemError;
    size_t bytes = fread(x->data, 1, x->bytes, f);
    int more = fgetc(f) != EOF; /* a longer message than was asked for */
    fclose(f);
    unlink(path);
    return bytes != x->bytes || more ? ncclSystemError : ncclSuccess;
}

ncclResult_t ncclGetVersion(int *version) {
    *version = 22809;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    static int made;
    snprintf(id->internal, sizeof id->internal, "/dev/shm/caracal-nccl-%ld-%d", (long)getpid(), made++);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t *) {
    if (ranks > RANKS) return ncclSystemError;
    *comm = (ncclComm_t)calloc(1, sizeof **comm);
    memcpy((*comm)->prefix, id.internal, sizeof id.internal);
    (*comm)->rank = rank;
    (*comm)->in_progress = 1;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state) {
    *state = comm->in_progress ? ncclInProgress : ncclSuccess;
    comm->in_progress = 0;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    free(comm);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t code) {
    return code == ncclSuccess ? "no error" : "unhandled system error";
}

const char *ncclGetLastError(ncclComm_t) {
    return "a message of the emulator did not come";
}

ncclResult_t ncclGroupStart(void) {
    groups++;
    return ncclSuccess;
}

static ncclResult_t note(ncclComm_t comm, void *data, size_t bytes, int peer, int is_send) {
    if (!groups || n_calls == CALLS) return ncclSystemError;
    calls[n_calls++] = {comm, data, bytes, peer, is_send};
    return ncclSuccess;
}

ncclResult_t ncclSend(const void *data, size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t) {
    return note(comm, (void *)data, count, peer, 1);
}

ncclResult_t ncclRecv(void *data, size_t count, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t) {
    return note(comm, data, count, peer, 0);
}

ncclResult_t ncclGroupEnd(void) {
    ncclResult_t code = ncclSuccess;
    groups--;
    for (int i = 0; i < n_calls && code == ncclSuccess; i++)
        if (calls[i].is_send) code = send_now(&calls[i]);
    for (int i = 0; i < n_calls && code == ncclSuccess; i++)
        if (!calls[i].is_send) code = receive_now(&calls[i]);
    for (int i = 0; i < n_calls; i++) calls[i].comm->in_progress = 1;
    n_calls = 0;
    return code == ncclSuccess ? ncclInProgress : code;
}
