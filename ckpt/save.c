#include <stdlib.h>
#include <string.h>

#include "ckpt/chunk.h"
#include "ckpt/commit.h"
#include "ckpt/files.h"
#include "ckpt/manifest.h"
#include "ckpt/route.h"
#include "ckpt/shard.h"
#include "launch/memory.h"

/* One save under way. */
typedef struct saver {
    comm *c;
    const char *directory; /* step-N.tmp */
    const ckpt_tensor *tensors;
    manifest m;     /* each owner fills in its own files and tensors */
    int64_t *first; /* [files + 1] the tensors of a file */
    route route;
    chunk_codec *codec;
    XXH3_state_t *digest; /* of the tensor being written */
    shard *shard;         /* the file being written, NULL when this rank has none in this round */
    window *window[2];    /* one is on its way while the other is written */
    char *staging[2];
} saver;

/* Writes one window: begins the datasets that start in it, stores their chunks, completes their digests. */
static int store_window(saver *s, const window *w, const char *staging, error *e) {
    for (int i = 0; i < w->spans; i++) {
        const window_span *span = &w->span[i];
        const ckpt_tensor *t = &s->tensors[span->tensor];
        const char *values = staging + span->at;
        size_t size = ckpt_type_size(t->type);
        chunk_grid g = chunk_grid_of(t);
        if (span->chunk == 0) {
            XXH3_128bits_reset(s->digest);
            if (shard_add(s->shard, t, &g, e)) return e->code;
        }
        XXH3_128bits_update(s->digest, values, (size_t)span->count * size);
        for (int64_t k = 0; k < span->chunks; k++) {
            const void *frame;
            chunk_span chunk = chunk_at(t, &g, span->chunk + k);
            size_t bytes = chunk_encode(s->codec, size, values + (size_t)(chunk.offset - span->offset) * size,
                                        (size_t)chunk.count, (size_t)g.full, &frame);
            if (shard_put(s->shard, &chunk, frame, bytes, e)) return e->code;
            comm_progress(s->c);
        }
        if (span->chunk + span->chunks == g.chunks)
            s->m.digest[span->tensor] = XXH3_128bits_digest(s->digest);
    }
    return 0;
}

/* Moves and writes all windows of a round.  The ranks agree after every window: a full disk on one of them
 * stops all, and no rank waits for another longer than one window takes. */
static int store_round(saver *s, error *e) {
    comm_request *request[2];
    int more = route_next(&s->route, s->window[0], s->staging[0], &request[0]);
    for (int k = 0; more; k = !k) {
        comm_wait(s->c, request[k]);
        more = route_next(&s->route, s->window[!k], s->staging[!k], &request[!k]);
        if (s->window[k]->spans) store_window(s, s->window[k], s->staging[k], e);
        if (comm_agree(s->c, e)) {
            comm_wait(s->c, request[!k]);
            return e->code;
        }
    }
    return 0;
}

/* Closes the file, makes it durable and notes its digest. */
static int finish_file(saver *s, const char *path, ckpt_file *f, error *e) {
    shard *done = s->shard;
    s->shard = NULL;
    if (shard_finish(done, e) || sync_path(path, e)) return e->code;
    return digest_file(path, &f->bytes, &f->digest, e);
}

/* As many files at a time as there are ranks: rank q writes file + q. */
static int write_files(saver *s, error *e) {
    int64_t ranks = comm_size(s->c), files = s->m.n_files;
    for (int64_t file = 0; file < files; file += ranks) {
        int64_t mine = file + comm_rank(s->c);
        char *path = NULL;
        if (mine < files) {
            path = text_of("%s/%s", s->directory, s->m.file[mine].name);
            shard_create(&s->shard, path, e);
        }
        route_begin(&s->route, (int)(files - file < ranks ? files - file : ranks), s->first + file);
        if (!comm_agree(s->c, e)) store_round(s, e);
        if (!e->code && path) finish_file(s, path, &s->m.file[mine], e);
        mem_free(path);
        if (comm_agree(s->c, e)) return e->code;
    }
    return 0;
}

/* Sizes and digests, which their owners know, to all ranks. */
static void share_digests(saver *s) {
    size_t n = (size_t)s->m.n_tensors, f = (size_t)s->m.n_files;
    uint64_t *all = mem_alloc((2 * n + 3 * f) * sizeof *all, "digests"), *files = all + 2 * n;
    for (size_t i = 0; i < n; i++) {
        all[2 * i] = s->m.digest[i].low64;
        all[2 * i + 1] = s->m.digest[i].high64;
    }
    for (size_t i = 0; i < f; i++) {
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

/* The manifest last, then the name; before that, all ranks look at a checkpoint that has it already. */
static int commit(saver *s, const char *directory, error *e) {
    int root = comm_rank(s->c) == 0, intact = 0;
    char *final = step_path(directory, s->m.step, "");
    int64_t exists = root && path_exists(final);
    if (comm_max_i64(s->c, "checkpoint exists", exists)) {
        error why = {0};
        ckpt *old = NULL;
        intact = !ckpt_open(s->c, final, &old, &why);
        ckpt_close(old);
    }
    if (root) {
        size_t bytes;
        char *text = manifest_text(&s->m, &bytes);
        commit_finish(directory, s->m.step, text, bytes, intact, e);
        mem_free(text);
    }
    mem_free(final);
    return comm_agree(s->c, e);
}

static void saver_open(saver *s, int64_t files, int64_t n_tensors) {
    manifest *m = &s->m;
    m->n_files = files;
    m->n_tensors = n_tensors;
    m->file = mem_alloc((size_t)files * sizeof *m->file, "the manifest's files");
    m->file_of = mem_alloc((size_t)n_tensors * sizeof *m->file_of, "the manifest's tensors");
    m->digest = mem_alloc((size_t)n_tensors * sizeof *m->digest, "the manifest's tensors");
    s->first = mem_alloc((size_t)(files + 1) * sizeof *s->first, "the tensors of a file");
    ckpt_assign(s->tensors, n_tensors, files, s->first);
    size_t largest = 0;
    for (int64_t f = 0; f < files; f++) {
        size_t bytes = 0;
        manifest_file_name(f, m->file[f].name);
        for (int64_t i = s->first[f]; i < s->first[f + 1]; i++) {
            m->file_of[i] = f;
            bytes += ckpt_bytes(&s->tensors[i]);
        }
        if (bytes > largest) largest = bytes;
    }
    s->codec = chunk_codec_new();
    s->digest = XXH3_createState();
    if (!s->digest) FAULT(EXIT_NO_MEMORY, "out of memory: a digest's state");
    for (int k = 0; k < 2; k++) {
        s->window[k] = mem_alloc(sizeof *s->window[k], "a window");
        s->staging[k] = mem_alloc(largest < WINDOW_BYTES ? largest : WINDOW_BYTES, "a window's bytes");
    }
}

static void saver_close(saver *s) {
    shard_close(s->shard);
    route_close(&s->route);
    chunk_codec_free(s->codec);
    XXH3_freeState(s->digest);
    for (int k = 0; k < 2; k++) {
        mem_free(s->window[k]);
        mem_free(s->staging[k]);
    }
    mem_free(s->first);
    mem_free(s->m.file);
    mem_free(s->m.file_of);
    mem_free(s->m.digest);
}

int ckpt_save(comm *c, const char *directory, int64_t step, int64_t shards, const ckpt_tensor *tensors,
              int64_t n_tensors, const ckpt_slice *slices, int64_t n_slices, const json_t *state, error *e) {
    char *temporary = step_path(directory, step, ".tmp");
    int64_t files = shards < n_tensors ? shards : n_tensors;
    saver s = {.c = c, .directory = temporary, .tensors = tensors};
    e->code = 0;
    /* read only, by manifest_text on rank 0 */
    s.m.step = step;
    s.m.tensor = (ckpt_tensor *)tensors;
    s.m.state = (json_t *)state;
    saver_open(&s, files, n_tensors);
    route_open(&s.route, c, tensors, n_tensors, slices, n_slices);

    if (comm_rank(c) == 0) commit_begin(directory, step, e);
    int begun = !comm_agree(c, e);
    if (begun && !write_files(&s, e)) {
        share_digests(&s);
        commit(&s, directory, e);
    }
    saver_close(&s); /* before the files go: a failed one may still be open */
    if (begun && e->code) {
        comm_barrier(c, "checkpoint abandoned");
        if (comm_rank(c) == 0) commit_abandon(directory, step);
    }
    mem_free(temporary);
    return e->code;
}
