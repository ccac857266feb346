#include "ckpt/stream.h"

#include <string.h>

#include "ckpt/chunk.h"
#include "ckpt/commit.h"
#include "ckpt/manifest.h"
#include "ckpt/shard.h"
#include "launch/files.h"
#include "launch/memory.h"

struct ckpt_stream {
    char *directory, *temporary;
    manifest m;
    int64_t *first; /* [files + 1] the tensors of a file */
    int64_t tensor, file;
    chunk_grid grid;     /* of the tensor, while it is being given */
    int64_t chunk, held; /* the chunk being gathered, and its elements so far */
    char *values;        /* [CHUNK_BYTES] */
    shard *shard;
    chunk_codec *codec;
    XXH3_state_t *digest;
};

int ckpt_stream_create(ckpt_stream **out, const char *directory, int64_t step, int64_t shards,
                       const ckpt_tensor *tensors, int64_t n_tensors, error *e) {
    char *final = step_path(directory, step, "");
    int taken = path_exists(final);
    if (taken) error_set(e, EXIT_USAGE, "%s: exists already", final);
    mem_free(final);
    if (taken || commit_begin(directory, step, e)) return e->code;

    ckpt_stream *s = mem_alloc(sizeof *s, "a checkpoint's writer");
    manifest *m = &s->m;
    s->directory = mem_string(directory);
    s->temporary = step_path(directory, step, ".tmp");
    *m = (manifest){.step = step, .n_tensors = n_tensors, .n_files = shards < n_tensors ? shards : n_tensors};
    m->tensor = (ckpt_tensor *)tensors; /* read only, by manifest_text */
    m->file = mem_alloc((size_t)m->n_files * sizeof *m->file, "the manifest's files");
    m->file_of = mem_alloc((size_t)n_tensors * sizeof *m->file_of, "the manifest's tensors");
    m->digest = mem_alloc((size_t)n_tensors * sizeof *m->digest, "the manifest's tensors");
    s->first = mem_alloc((size_t)(m->n_files + 1) * sizeof *s->first, "the tensors of a file");
    ckpt_assign(tensors, n_tensors, m->n_files, s->first);
    for (int64_t f = 0; f < m->n_files; f++) {
        manifest_file_name(f, m->file[f].name);
        for (int64_t i = s->first[f]; i < s->first[f + 1]; i++) m->file_of[i] = f;
    }
    s->values = mem_alloc(CHUNK_BYTES, "a chunk");
    s->codec = chunk_codec_new();
    s->digest = XXH3_createState();
    if (!s->digest) FAULT(EXIT_NO_MEMORY, "out of memory: a digest's state");
    *out = s;
    return 0;
}

/* Completes the file at hand and opens the next, until tensor s->tensor has its place. */
static int turn_files(ckpt_stream *s, error *e) {
    while (s->file < s->m.n_files) {
        ckpt_file *f = &s->m.file[s->file];
        if (!s->shard) {
            char *path = text_of("%s/%s", s->temporary, f->name);
            int code = shard_create(&s->shard, path, NULL, e);
            mem_free(path);
            if (code) return code;
        }
        if (s->tensor < s->first[s->file + 1]) return 0;
        shard *done = s->shard;
        s->shard = NULL;
        if (shard_finish(done, &f->bytes, &f->digest, e)) return e->code;
        s->file++;
    }
    return 0;
}

/* Stores the chunk that is full. */
static int store(ckpt_stream *s, const ckpt_tensor *t, const chunk_span *span, error *e) {
    const void *frame;
    size_t size = ckpt_type_size(t->type);
    XXH3_128bits_update(s->digest, s->values, (size_t)span->count * size);
    size_t bytes = chunk_encode(s->codec, size, s->values, (size_t)span->count, (size_t)s->grid.full, &frame);
    s->held = 0;
    s->chunk++;
    return shard_put(s->shard, span, frame, bytes, e);
}

int ckpt_stream_append(ckpt_stream *s, const void *values, int64_t count, error *e) {
    REQUIRE(s->tensor < s->m.n_tensors && count > 0);
    const ckpt_tensor *t = &s->m.tensor[s->tensor];
    size_t size = ckpt_type_size(t->type);
    if (s->chunk == 0 && s->held == 0) {
        s->grid = chunk_grid_of(t);
        XXH3_128bits_reset(s->digest);
        if (turn_files(s, e) || shard_add(s->shard, t, &s->grid, e)) return e->code;
    }
    for (int64_t at = 0; at < count;) {
        REQUIRE(s->chunk < s->grid.chunks);
        chunk_span span = chunk_at(t, &s->grid, s->chunk);
        int64_t n = span.count - s->held < count - at ? span.count - s->held : count - at;
        char *to = s->values + (size_t)s->held * size;
        if (values) memcpy(to, (const char *)values + (size_t)at * size, (size_t)n * size);
        else memset(to, 0, (size_t)n * size);
        at += n;
        s->held += n;
        if (s->held == span.count && store(s, t, &span, e)) return e->code;
    }
    if (s->chunk == s->grid.chunks) {
        s->m.digest[s->tensor++] = XXH3_128bits_digest(s->digest);
        s->chunk = 0;
    }
    return 0;
}

int ckpt_stream_finish(ckpt_stream *s, const json_t *state, int abandon, error *e) {
    int code = 0;
    if (!abandon) {
        REQUIRE(s->tensor == s->m.n_tensors && s->chunk == 0 && s->held == 0);
        code = turn_files(s, e);
    }
    if (!abandon && !code) {
        size_t bytes;
        s->m.state = (json_t *)state; /* read only */
        char *text = manifest_text(&s->m, &bytes);
        code = commit_finish(s->directory, s->m.step, text, bytes, 0, e);
        mem_free(text);
    }
    shard_close(s->shard);
    if (abandon || code) commit_abandon(s->directory, s->m.step);
    chunk_codec_free(s->codec);
    XXH3_freeState(s->digest);
    mem_free(s->values);
    mem_free(s->first);
    mem_free(s->m.file);
    mem_free(s->m.file_of);
    mem_free(s->m.digest);
    mem_free(s->temporary);
    mem_free(s->directory);
    mem_free(s);
    return code;
}
