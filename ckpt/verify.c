#include "ckpt/verify.h"

#include <string.h>

#include "ckpt/chunk.h"
#include "ckpt/shard.h"
#include "launch/files.h"
#include "launch/memory.h"

int verify_file(const char *directory, const ckpt_file *f, error *e) {
    char *path = text_of("%s/%s", directory, f->name);
    int64_t bytes;
    XXH128_hash_t digest;
    int code = digest_file(path, &bytes, &digest, e);
    if (!code && bytes != f->bytes)
        code = error_set(e, EXIT_CORRUPT, "%s: is damaged: %lld bytes long, the manifest says %lld", path,
                         (long long)bytes, (long long)f->bytes);
    if (!code && !XXH128_isEqual(digest, f->digest))
        code = error_set(e, EXIT_CORRUPT, "%s: is damaged: its digest is not the manifest's", path);
    mem_free(path);
    return code;
}

int verify_whole(const char *directory) {
    manifest m;
    error why = {0};
    if (manifest_load(&m, directory, &why)) return 0;
    for (int64_t i = 0; i < m.n_files && !why.code; i++) verify_file(directory, &m.file[i], &why);
    manifest_free(&m);
    return !why.code;
}

static int verify_dataset(const char *path, shard *s, chunk_codec *codec, const ckpt_tensor *t,
                          XXH128_hash_t expected, XXH3_state_t *state, error *e) {
    chunk_grid g = chunk_grid_of(t);
    if (shard_select(s, t, &g, e)) return e->code;
    XXH3_128bits_reset(state);
    for (int64_t i = 0; i < g.chunks; i++) {
        const void *values;
        if (shard_read(s, codec, t, &g, i, &values, e)) return e->code;
        XXH3_128bits_update(state, values, (size_t)chunk_at(t, &g, i).count * ckpt_type_size(t->type));
    }
    if (XXH128_isEqual(XXH3_128bits_digest(state), expected)) return 0;
    return error_set(e, EXIT_CORRUPT,
                     "%s: dataset /%s: every chunk can be read, but its digest is not the "
                     "manifest's",
                     path, t->name);
}

int verify_datasets(const char *directory, const manifest *m, int64_t file, error *e) {
    char *path = text_of("%s/%s", directory, m->file[file].name);
    chunk_codec *codec = chunk_codec_new();
    XXH3_state_t *state = XXH3_createState();
    shard *s = NULL;
    if (!state) FAULT(EXIT_NO_MEMORY, "out of memory: a digest's state");
    int code = shard_open(&s, path, e);
    for (int64_t i = 0; !code && i < m->n_tensors; i++)
        if (m->file_of[i] == file)
            code = verify_dataset(path, s, codec, &m->tensor[i], m->digest[i], state, e);
    shard_close(s);
    XXH3_freeState(state);
    chunk_codec_free(codec);
    mem_free(path);
    return code;
}

void verify_locate(const char *directory, const manifest *m, int64_t file, error *e) {
    error first = {0};
    char *path = text_of("%s/%s: ", directory, m->file[file].name), *damage = mem_string(e->text);
    const char *where = first.text;
    if (!verify_datasets(directory, m, file, &first))
        where = "every dataset reads as it was written: it lies in HDF5's own structure, or decides no value";
    else if (!strncmp(where, path, strlen(path))) where += strlen(path);
    error_set(e, EXIT_CORRUPT, "%s: %s", damage, where);
    mem_free(damage);
    mem_free(path);
}
