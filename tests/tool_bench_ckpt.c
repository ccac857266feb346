/* What a save costs beside what the machine can give, measured in turns in the same run, medians:
 *
 *   bench_ckpt DIR [MiB of state a rank = 1024] [threads a rank = 1] [turns = 5]
 *
 *   stall   how long training stands still: the snapshot, and going from one part of the save to the next
 *   save    the tensors' bytes over the time from the end of the stall to the end of the commit, without
 *           retention, which removes an older checkpoint afterwards
 *   zstd    what its compressor alone does with the same (shuffled) bytes on as many threads
 *   disk    the checkpoint's own files, written again by plain write and fsync of each, one after the other
 * on every rank, as tensors' bytes a second direct  the same past the page cache (O_DIRECT)
 *
 * Nothing else runs meanwhile: a save while ranks train has what training leaves of the cores.
 *
 * The state is a third each of weights, first and second moments, in 16 MiB tensors, cut over the ranks as
 * the optimizer's shards are. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zstd.h>

#include "ckpt/chunk.h"
#include "ckpt/ckpt.h"
#include "ckpt/commit.h"
#include "ckpt/filter.h"
#include "ckpt/outfile.h"
#include "launch/files.h"
#include "launch/memory.h"
#include "launch/random.h"

enum {
    TURNS = 99,
    SIDE = 2048,
    ELEMENTS = SIDE * SIDE,
    BYTES = 4 * ELEMENTS,
    CHUNK = 4 << 20,
    FILES = 2,
    PAGE = OUTFILE_PAGE
};

typedef struct bench {
    comm *c;
    const char *directory;
    int threads;
    int64_t tensors;
    ckpt_tensor *tensor;
    ckpt_slice *slice;
    ckpt_saver *saver;
    float *kind[3];                                 /* [ELEMENTS] weights, first and second moments */
    unsigned char *shuffled;                        /* [3 * BYTES] the same as zstd sees it */
    double stall[TURNS], save[TURNS];               /* seconds */
    double zstd[TURNS], disk[TURNS], direct[TURNS]; /* seconds for the same state */
    int64_t bytes, stored;
    arena file[FILES]; /* of this rank in the newest checkpoint */
    size_t size[FILES];
} bench;

/* Of the slowest rank. */
static double slowest(const bench *b, double seconds) {
    return (double)comm_max_i64(b->c, "bench", (int64_t)(seconds * 1e9)) * 1e-9;
}

/* Normal enough, with every bit of the mantissa in use. */
static float bell(uint64_t stream, int64_t i) {
    double sum = 0;
    for (int k = 0; k < 2; k++) {
        uint64_t bits = random_bits(1, stream, (uint64_t)(2 * i + k));
        sum += (double)(uint32_t)bits + (double)(bits >> 32);
    }
    return (float)((sum / 4294967296.0 - 2) * 1.7320508);
}

static void make_state(bench *b) {
    static const char *const prefix[3] = {"weights", "adam_m", "adam_v"};
    int64_t rank = comm_rank(b->c), ranks = comm_size(b->c);
    int64_t low = ELEMENTS * rank / ranks, high = ELEMENTS * (rank + 1) / ranks;
    b->shuffled = mem_alloc((size_t)3 * BYTES, "chunks");
    for (int k = 0; k < 3; k++) {
        b->kind[k] = mem_alloc(BYTES, "a tensor");
        for (int64_t i = 0; i < ELEMENTS; i++) {
            float x = bell((uint64_t)k, i);
            b->kind[k][i] = k == 0 ? 0.02F * x : k == 1 ? 1e-4F * x : 1e-8F * x * x;
        }
        for (int64_t i = 0; i < ELEMENTS; i++) /* chunk by chunk, byte by byte */
            for (int j = 0; j < 4; j++) {
                int64_t chunk = i / (CHUNK / 4), in = i % (CHUNK / 4);
                b->shuffled[k * (int64_t)BYTES + chunk * CHUNK + j * (CHUNK / 4) + in] =
                    ((unsigned char *)&b->kind[k][i])[j];
            }
    }
    b->tensor = mem_alloc((size_t)b->tensors * sizeof *b->tensor, "the list");
    b->slice = mem_alloc((size_t)b->tensors * sizeof *b->slice, "the list");
    for (int64_t i = 0; i < b->tensors; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s/model.layers.%lld.weight", prefix[i % 3], (long long)(i / 3));
        b->tensor[i] = (ckpt_tensor){mem_string(name), CKPT_F32, 2, {SIDE, SIDE}};
        b->slice[i] = (ckpt_slice){i, low, high - low, mem_alloc((size_t)(high - low) * 4, "a slice")};
        memcpy(b->slice[i].data, b->kind[i % 3] + low, (size_t)(high - low) * 4);
    }
    b->bytes = b->tensors * BYTES;
}

static void save(bench *b, int turn) {
    error e = {0};
    ckpt_outcome o;
    json_t *state = json_pack("{si}", "turn", turn);
    comm_barrier(b->c, "bench");
    if (ckpt_start(b->saver, turn, state, &e)) FAULT(e.code, "%s", e.text);
    ckpt_finish(b->saver, &o);
    if (o.failure.code) FAULT(o.failure.code, "%s", o.failure.text);
    json_decref(state);
    b->stall[turn] = slowest(b, o.stalled);
    b->save[turn] = slowest(b, o.seconds) - b->stall[turn];
    b->stored = o.stored;
}

/* A thread takes the saving threads' low priority, so that whatever else runs here disturbs all alike. */
static void step_back(void) {
    setpriority(PRIO_PROCESS, (id_t)gettid(), 10);
}

static void *compress(void *argument) {
    const bench *b = argument;
    step_back();
    ZSTD_CCtx *z = ZSTD_createCCtx();
    size_t room = ZSTD_compressBound(CHUNK);
    char *out = mem_alloc(room, "a frame");
    int64_t each = b->bytes / comm_size(b->c) / b->threads / CHUNK;
    ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, FILTER_ZSTD_LEVEL);
    ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1);
    for (int64_t i = 0; i < each; i++)
        if (ZSTD_isError(ZSTD_compress2(z, out, room, b->shuffled + i % 12 * CHUNK, CHUNK))) abort();
    ZSTD_freeCCtx(z);
    mem_free(out);
    return NULL;
}

/* The newest checkpoint's files of this rank, into memory. */
static void read_files(bench *b, int turn) {
    for (int k = 0; k < FILES; k++) {
        char path[4096], *data;
        error e = {0};
        snprintf(path, sizeof path, "%s/step-%08d/shard-%05d.h5", b->directory, turn,
                 comm_rank(b->c) + k * comm_size(b->c));
        if (read_file(path, &data, &b->size[k], &e)) FAULT(e.code, "%s", e.text);
        b->file[k] = arena_create("a file", b->size[k] + PAGE);
        memcpy(b->file[k].base, data, b->size[k]);
        mem_free(data);
    }
}

/* Past the page cache the last page is written whole, and cut. */
static void write_file_again(const bench *b, int k, int flags) {
    size_t size = b->size[k], bytes = flags ? (size + PAGE - 1) / PAGE * PAGE : size;
    char path[4096];
    snprintf(path, sizeof path, "%s/plain-%d-%d", b->directory, comm_rank(b->c), k);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | flags, 0666);
    for (size_t at = 0; at < bytes; at += CHUNK) {
        size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
        if (write(fd, b->file[k].base + at, n) != (ssize_t)n) FAULT(EXIT_IO, "%s: cannot be written", path);
    }
    if (ftruncate(fd, (off_t)size) || fsync(fd) || close(fd)) FAULT(EXIT_IO, "%s: cannot be written", path);
}

static void *write_plainly(void *argument) {
    step_back();
    for (int k = 0; k < FILES; k++) write_file_again(argument, k, 0);
    return NULL;
}

static void *write_directly(void *argument) {
    step_back();
    for (int k = 0; k < FILES; k++) write_file_again(argument, k, O_DIRECT);
    return NULL;
}

static void remove_again(const bench *b) {
    for (int k = 0; k < FILES; k++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/plain-%d-%d", b->directory, comm_rank(b->c), k);
        unlink(path);
    }
}

/* The slowest rank's seconds for so many threads that run `work`. */
static double timed(bench *b, int threads, void *(*work)(void *)) {
    pthread_t thread[64];
    comm_barrier(b->c, "bench");
    double began = comm_clock();
    for (int i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, work, b)) abort();
    for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    return slowest(b, comm_clock() - began);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static void report(bench *b, int turns) {
    double stall = median(b->stall, turns), most = b->stall[turns - 1], mb = (double)b->bytes / 1e6;
    double save_rate = mb / median(b->save, turns), zstd_rate = mb / median(b->zstd, turns);
    double disk_rate = mb / median(b->disk, turns), direct_rate = mb / median(b->direct, turns);
    double best_rate = disk_rate > direct_rate ? disk_rate : direct_rate;
    if (comm_rank(b->c)) return;
    printf("%d ranks x %d threads, %.2f GiB a rank, %.3f to 1, %d turns\n", comm_size(b->c), b->threads,
           (double)b->bytes / comm_size(b->c) / (1 << 30), (double)b->bytes / (double)b->stored, turns);
    printf("  stall %.3f s (at most %.3f s)\n", stall, most);
    printf("  save   %.0f MB/s\n  zstd   %.0f MB/s\n", save_rate, zstd_rate);
    printf("  disk   %.0f MB/s\n  direct %.0f MB/s\n", disk_rate, direct_rate);
    printf("  save is %.0f%% of the lesser of zstd and disk, %.0f%% of the lesser of zstd and the better "
           "writer\n",
           100 * save_rate / (zstd_rate < disk_rate ? zstd_rate : disk_rate),
           100 * save_rate / (zstd_rate < best_rate ? zstd_rate : best_rate));
}

int main(int argc, char **argv) {
    bench b = {.threads = argc > 3 ? atoi(argv[3]) : 1};
    int turns = argc > 4 ? atoi(argv[4]) : 5;
    int64_t mib = argc > 2 ? atoll(argv[2]) : 1024;
    error e = {0};
    if (argc < 2 || turns < 1 || turns > TURNS || mib < 48 || b.threads < 1 || b.threads > 64) {
        fprintf(stderr, "usage: bench_ckpt DIR [MiB of state a rank] [threads a rank] [turns]\n");
        return EXIT_USAGE;
    }
    if (comm_open(&b.c, 600, &e)) FAULT(e.code, "%s", e.text);
    b.directory = argv[1];
    b.tensors = mib * comm_size(b.c) / 16 / 3 * 3;
    make_state(&b);
    checkpoint_config config = {.shards = FILES * comm_size(b.c), .threads = b.threads};
    b.saver = ckpt_saver_open(b.c, b.directory, &config, b.tensor, b.tensors, b.slice, b.tensors);
    for (int turn = 0; turn < turns; turn++) {
        save(&b, turn);
        b.zstd[turn] = timed(&b, b.threads, compress);
        read_files(&b, turn);
        b.disk[turn] = timed(&b, 1, write_plainly);
        remove_again(&b);
        b.direct[turn] = timed(&b, 1, write_directly);
        remove_again(&b);
        for (int k = 0; k < FILES; k++) arena_destroy(&b.file[k]);
        if (!comm_rank(b.c) && commit_remove(b.directory, turn, &e)) FAULT(e.code, "%s", e.text);
    }
    report(&b, turns);
    ckpt_saver_close(b.saver);
    for (int64_t i = 0; i < b.tensors; i++) {
        mem_free(b.tensor[i].name);
        mem_free(b.slice[i].data);
    }
    for (int k = 0; k < 3; k++) mem_free(b.kind[k]);
    mem_free(b.shuffled);
    mem_free(b.tensor);
    mem_free(b.slice);
    comm_close(b.c);
    return 0;
}
