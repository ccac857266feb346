#include "ckpt/saver.h"

#include <string.h>

size_t saver_file_bytes(const ckpt_tensor *tensors, const int64_t *first, int64_t file) {
    size_t bytes = 0;
    for (int64_t i = first[file]; i < first[file + 1]; i++) bytes += ckpt_bytes(&tensors[i]);
    return bytes;
}

static size_t share_of(const ckpt_tensor *tensors, const int64_t *first, int64_t files, int rank, int ranks) {
    size_t bytes = 0;
    for (int64_t file = rank; file < files; file += ranks) bytes += saver_file_bytes(tensors, first, file);
    return bytes;
}

size_t ckpt_saver_bytes(const ckpt_tensor *tensors, int64_t n_tensors, const checkpoint_config *config,
                        int ranks) {
    int64_t files = config->shards < n_tensors ? config->shards : n_tensors;
    int64_t *first = mem_alloc((size_t)(files + 1) * sizeof *first, "the tensors of a file");
    size_t most = 0;
    ckpt_assign(tensors, n_tensors, files, first);
    for (int rank = 0; rank < ranks && rank < files; rank++) {
        size_t bytes = share_of(tensors, first, files, rank, ranks);
        if (bytes > most) most = bytes;
    }
    mem_free(first);
    return most + SAVER_MARGIN + compressor_bytes((int)config->threads);
}

static void manifest_make(manifest *m, int64_t files, const ckpt_tensor *tensors, int64_t n) {
    m->n_files = files;
    m->n_tensors = n;
    m->file = mem_alloc((size_t)files * sizeof *m->file, "the manifest's files");
    m->tensor = mem_alloc((size_t)n * sizeof *m->tensor, "the manifest's tensors");
    m->file_of = mem_alloc((size_t)n * sizeof *m->file_of, "the manifest's tensors");
    m->digest = mem_alloc((size_t)n * sizeof *m->digest, "the manifest's tensors");
    for (int64_t i = 0; i < n; i++) {
        m->tensor[i] = tensors[i];
        m->tensor[i].name = mem_string(tensors[i].name);
    }
    for (int64_t f = 0; f < files; f++) manifest_file_name(f, m->file[f].name);
}

ckpt_saver *ckpt_saver_open(comm *c, const char *directory, const checkpoint_config *config,
                            const ckpt_tensor *tensors, int64_t n_tensors, const ckpt_slice *slices,
                            int64_t n_slices) {
    int64_t files = config->shards < n_tensors ? config->shards : n_tensors;
    ckpt_saver *s = mem_alloc(sizeof *s, "a saver");
    s->c = c;
    s->directory = mem_string(directory);
    s->config = *config;
    manifest_make(&s->m, files, tensors, n_tensors);
    s->first = mem_alloc((size_t)(files + 1) * sizeof *s->first, "the tensors of a file");
    ckpt_assign(tensors, n_tensors, files, s->first);
    for (int64_t f = 0; f < files; f++)
        for (int64_t i = s->first[f]; i < s->first[f + 1]; i++) s->m.file_of[i] = f;
    s->slices = mem_alloc((size_t)n_slices * sizeof *slices, "a checkpoint's slices");
    if (n_slices) memcpy(s->slices, slices, (size_t)n_slices * sizeof *slices);
    route_open(&s->route, c, s->m.tensor, n_tensors, s->slices, n_slices);
    s->window = mem_alloc(sizeof *s->window, "a window");
    s->snapshot = arena_create("the snapshot of a checkpoint",
                               SAVER_MARGIN + share_of(tensors, s->first, files, comm_rank(c), comm_size(c)));
    s->compressor = compressor_new((int)config->threads);
    s->digest = XXH3_createState();
    if (!s->digest) FAULT(EXIT_NO_MEMORY, "out of memory: a digest's state");
    return s;
}

void ckpt_saver_close(ckpt_saver *s) {
    if (!s) return;
    REQUIRE(s->part == IDLE);
    XXH3_freeState(s->digest);
    compressor_free(s->compressor);
    arena_destroy(&s->snapshot);
    mem_free(s->window);
    route_close(&s->route);
    mem_free(s->slices);
    mem_free(s->first);
    manifest_free(&s->m);
    mem_free(s->directory);
    mem_free(s);
}

int ckpt_save(comm *c, const char *directory, int64_t step, int64_t shards, const ckpt_tensor *tensors,
              int64_t n_tensors, const ckpt_slice *slices, int64_t n_slices, const json_t *state, error *e) {
    checkpoint_config config = {.shards = shards, .threads = 1};
    ckpt_saver *s = ckpt_saver_open(c, directory, &config, tensors, n_tensors, slices, n_slices);
    ckpt_outcome outcome;
    if (!ckpt_start(s, step, state, e)) {
        ckpt_finish(s, &outcome);
        *e = outcome.failure;
    }
    ckpt_saver_close(s);
    return e->code;
}
