/* A save has three parts:
 *
 *   snapshot     ckpt_start: the ranks stand still while every element goes to the rank that will write it;
 *   background   a thread of each rank writes its files from the snapshot while training goes on; a file
 *                takes shape in the snapshot's own memory, where elements lay that are compressed already;
 *   commit       when the files of all ranks are on disk, they share their digests, and a thread of rank 0
 *                writes the manifest, renames, and drops what retention drops.
 *
 * ckpt_poll goes from one part to the next.  It asks whether every rank's thread is done, so that all ranks
 * go on at the same call: no collective operation is ever left open.  MPI is called from the caller's thread
 * alone; HDF5, which is not thread-safe, from the background thread alone.
 */
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "ckpt/commit.h"
#include "ckpt/outfile.h"
#include "ckpt/saver.h"
#include "ckpt/shard.h"
#include "ckpt/verify.h"
#include "launch/files.h"
#include "launch/memory.h"

enum { NICENESS = 10 }; /* of the threads: training goes first */

/* ---- snapshot ---- */

/* A window of each file at a time, straight to its place: nobody needs room for more than it writes. */
static void take_snapshot(ckpt_saver *s) {
    int64_t ranks = comm_size(s->c), files = s->m.n_files;
    char *to = s->snapshot.base + SAVER_MARGIN;
    for (int64_t file = 0; file < files; file += ranks) {
        comm_request *request[2]; /* one window is on its way while the next is asked for */
        route_begin(&s->route, (int)(files - file < ranks ? files - file : ranks), s->first + file);
        int more = route_next(&s->route, s->window, to, &request[0]);
        for (int k = 0; more; k = !k) {
            to += s->window->bytes;
            more = route_next(&s->route, s->window, to, &request[!k]);
            comm_wait(s->c, request[k]);
        }
    }
}

/* ---- background ---- */

/* How many bytes an image may have that lies before values which are still needed. */
static size_t room(const char *image, const char *values) {
    return values > image ? (size_t)(values - image) : 0;
}

/* All datasets of a file, in order.  What was compressed is room for the image. */
static int write_tensors(ckpt_saver *s, shard *to, int64_t file, const char *image, const char *values,
                         error *e) {
    for (int64_t i = s->first[file]; i < s->first[file + 1]; i++) {
        const ckpt_tensor *t = &s->m.tensor[i];
        chunk_grid g = chunk_grid_of(t);
        size_t size = ckpt_type_size(t->type);
        if (shard_add(to, t, &g, e)) return e->code;
        XXH3_128bits_reset(s->digest);
        for (int64_t k = 0; k < g.chunks; k++) {
            const void *frame;
            size_t bytes = compressor_next(s->compressor, &frame);
            chunk_span chunk = chunk_at(t, &g, k);
            XXH3_128bits_update(s->digest, values, (size_t)chunk.count * size);
            values += (size_t)chunk.count * size;
            shard_allow(to, room(image, values));
            if (shard_put(to, &chunk, frame, bytes, e)) return e->code;
        }
        s->m.digest[i] = XXH3_128bits_digest(s->digest);
    }
    return 0;
}

/* One file from `values`, which takes shape at `image`, in the memory before them and in theirs. */
static shard *write_file_of(ckpt_saver *s, int64_t file, char *image, const char *values, error *e) {
    char *path = text_of("%s/%s", s->temporary, s->m.file[file].name);
    shard *to = NULL;
    int64_t first = s->first[file];
    if (!shard_create(&to, path, image, e)) {
        shard_allow(to, room(image, values));
        if (!compressor_begin(s->compressor, s->m.tensor + first, s->first[file + 1] - first, values, e)) {
            write_tensors(s, to, file, image, values, e);
            compressor_end(s->compressor);
        }
    }
    mem_free(path);
    return to;
}

/* Waits until a file is on disk, and notes its size and digest. */
static void settle(shard *written, ckpt_file *f, error *e) {
    error late = {0};
    if (written && shard_finish(written, &f->bytes, &f->digest, &late) && !e->code) *e = late;
}

/* What each rank's thread does: files rank, rank + ranks, ...  While one is compressed, the end of the one
 * before it goes to the disk. */
static void *write_files(void *argument) {
    ckpt_saver *s = argument;
    error *e = &s->out.failure;
    char *image = s->snapshot.base;
    const char *values = image + SAVER_MARGIN;
    shard *before = NULL;
    ckpt_file *its = NULL;
    setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS); /* on Linux: of this thread and those it makes */
    for (int64_t file = comm_rank(s->c); file < s->m.n_files && !e->code; file += comm_size(s->c)) {
        shard *to = write_file_of(s, file, image, values, e);
        size_t held = to ? shard_seal(to) : 0;
        settle(before, its, e);
        before = to;
        its = &s->m.file[file];
        image += (held + OUTFILE_PAGE - 1) / OUTFILE_PAGE * OUTFILE_PAGE;
        values += saver_file_bytes(s->m.tensor, s->first, file);
    }
    settle(before, its, e);
    __atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void start_thread(ckpt_saver *s, void *(*run)(void *)) {
    __atomic_store_n(&s->done, 0, __ATOMIC_RELAXED);
    int refused = pthread_create(&s->thread, NULL, run, s);
    s->has_thread = !refused;
    if (!refused) return;
    error_set(&s->out.failure, EXIT_NO_MEMORY, "no thread to write with: %s", strerror(refused));
    __atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
}

/* ---- commit ---- */

/* Sizes and digests, which their owners know, to all ranks. */
static void share_digests(ckpt_saver *s) {
    int64_t rank = comm_rank(s->c), ranks = comm_size(s->c);
    size_t n = (size_t)s->m.n_tensors, f = (size_t)s->m.n_files;
    uint64_t *all = mem_alloc((2 * n + 3 * f) * sizeof *all, "digests"), *files = all + 2 * n;
    for (size_t i = 0; i < n; i++) {
        if (s->m.file_of[i] % ranks != rank) continue;
        all[2 * i] = s->m.digest[i].low64;
        all[2 * i + 1] = s->m.digest[i].high64;
    }
    for (size_t i = (size_t)rank; i < f; i += (size_t)ranks) {
        files[3 * i] = (uint64_t)s->m.file[i].bytes;
        files[3 * i + 1] = s->m.file[i].digest.low64;
        files[3 * i + 2] = s->m.file[i].digest.high64;
    }
    comm_sum_disjoint_u64(s->c, "checkpoint digests", all, 2 * n + 3 * f);
    for (size_t i = 0; i < n; i++) s->m.digest[i] = (XXH128_hash_t){all[2 * i], all[2 * i + 1]};
    for (size_t i = 0; i < f; i++) {
        s->m.file[i].bytes = (int64_t)files[3 * i];
        s->m.file[i].digest = (XXH128_hash_t){files[3 * i + 1], files[3 * i + 2]};
    }
    mem_free(all);
}

/* What rank 0's thread does: the manifest last, then the name; or away with everything. */
static void *commit(void *argument) {
    ckpt_saver *s = argument;
    error *e = &s->out.failure;
    if (!e->code) {
        char *final = step_path(s->directory, s->m.step, "");
        int intact = path_exists(final) && verify_whole(final);
        size_t bytes;
        char *text = manifest_text(&s->m, &bytes);
        s->out.stored = (int64_t)bytes;
        commit_finish(s->directory, s->m.step, text, bytes, intact, e);
        mem_free(text);
        mem_free(final);
    }
    if (e->code) commit_abandon(s->directory, s->m.step);
    else if (s->config.keep) ckpt_retain(s->directory, s->m.step, &s->config, &s->out.retention);
    __atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* ---- from one part to the next ---- */

/* Goes on if all ranks can; 1 when the save has ended. */
static int advance(ckpt_saver *s) {
    int64_t done = __atomic_load_n(&s->done, __ATOMIC_ACQUIRE);
    comm_sum_i64(s->c, "checkpoint progress", &done, 1);
    if (done < comm_size(s->c)) return 0;
    if (s->has_thread) pthread_join(s->thread, NULL);
    s->has_thread = 0;
    comm_agree(s->c, &s->out.failure);
    if (s->part == COMMITTING) return 1;

    if (!s->out.failure.code) share_digests(s);
    s->part = COMMITTING;
    if (comm_rank(s->c) == 0) start_thread(s, commit);
    return 0;
}

static void end(ckpt_saver *s, ckpt_outcome *outcome) {
    for (int64_t i = 0; i < s->m.n_files; i++) s->out.stored += s->m.file[i].bytes;
    s->out.seconds = comm_clock() - s->began;
    *outcome = s->out;
    json_decref(s->m.state);
    s->m.state = NULL;
    mem_free(s->temporary);
    s->temporary = NULL;
    s->part = IDLE;
}

int ckpt_start(ckpt_saver *s, int64_t step, const json_t *state, error *e) {
    REQUIRE(s->part == IDLE);
    s->began = comm_clock();
    e->code = 0;
    if (comm_rank(s->c) == 0) commit_begin(s->directory, step, e);
    if (comm_agree(s->c, e)) return e->code;
    s->out = (ckpt_outcome){.step = step};
    for (int64_t i = 0; i < s->m.n_tensors; i++) s->out.bytes += (int64_t)ckpt_bytes(&s->m.tensor[i]);
    s->temporary = step_path(s->directory, step, ".tmp");
    s->m.step = step;
    s->m.state = json_incref((json_t *)state);
    take_snapshot(s);
    s->part = WRITING;
    start_thread(s, write_files);
    s->out.stalled = comm_clock() - s->began;
    return 0;
}

int ckpt_poll(ckpt_saver *s, ckpt_outcome *outcome) {
    if (s->part == IDLE) return 0;
    double began = comm_clock();
    int ended = advance(s);
    s->out.stalled += comm_clock() - began;
    if (ended) end(s, outcome);
    return ended;
}

int ckpt_finish(ckpt_saver *s, ckpt_outcome *outcome) {
    const struct timespec moment = {.tv_nsec = 1000000};
    if (s->part == IDLE) return 0;
    double began = comm_clock();
    /* asking again and again, so that no rank waits inside one operation for another's disk */
    while (!advance(s)) nanosleep(&moment, NULL);
    s->out.waited = comm_clock() - began;
    end(s, outcome);
    return 1;
}
