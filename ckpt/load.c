#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ckpt/chunk.h"
#include "ckpt/commit.h"
#include "ckpt/manifest.h"
#include "ckpt/shard.h"
#include "ckpt/verify.h"
#include "launch/files.h"
#include "launch/memory.h"

struct ckpt {
    char *path;
    manifest m;
    int64_t *by_name;   /* indices of m.tensor, sorted by name */
    shard **shard;      /* [n_files], opened when first read */
    chunk_codec *codec; /* made with the first read */
    /* the chunk decoded last: slices of one rank are often neighbours */
    int64_t tensor, chunk;
    const char *values;
};

/* ---- opening ---- */

static int by_name(const void *a, const void *b, void *m) {
    const ckpt_tensor *tensor = ((manifest *)m)->tensor;
    return strcmp(tensor[*(const int64_t *)a].name, tensor[*(const int64_t *)b].name);
}

static int index_names(ckpt *k, error *e) {
    int64_t n = k->m.n_tensors;
    k->by_name = mem_alloc((size_t)n * sizeof *k->by_name, "the index of names");
    for (int64_t i = 0; i < n; i++) k->by_name[i] = i;
    qsort_r(k->by_name, (size_t)n, sizeof *k->by_name, by_name, &k->m);
    for (int64_t i = 1; i < n; i++)
        if (by_name(&k->by_name[i - 1], &k->by_name[i], &k->m) == 0)
            return error_set(e, EXIT_CORRUPT, "%s/" MANIFEST_NAME ": %s is there twice", k->path,
                             k->m.tensor[k->by_name[i]].name);
    return 0;
}

/* Rank 0 reads the manifest, so that all ranks trust the same bytes. */
static int share_manifest(comm *c, ckpt *k, error *e) {
    char *text = NULL;
    size_t bytes = 0;
    if (comm_rank(c) == 0) manifest_read_text(k->path, &text, &bytes, e);
    if (comm_agree(c, e)) return e->code;
    comm_broadcast(c, "checkpoint manifest", &bytes, sizeof bytes, 0);
    if (comm_rank(c)) text = mem_alloc(bytes + 1, "the manifest");
    comm_broadcast(c, "checkpoint manifest", text, bytes, 0);
    char *name = text_of("%s/" MANIFEST_NAME, k->path);
    if (!manifest_parse(&k->m, text, bytes, name, e)) index_names(k, e);
    mem_free(name);
    mem_free(text);
    return comm_agree(c, e);
}

/* Every file's size and digest, the ranks side by side. */
static int check_files(comm *c, const ckpt *k, error *e) {
    for (int64_t file = 0; file < k->m.n_files; file += comm_size(c)) {
        int64_t mine = file + comm_rank(c);
        if (mine < k->m.n_files && verify_file(k->path, &k->m.file[mine], e) == EXIT_CORRUPT)
            verify_locate(k->path, &k->m, mine, e);
        if (comm_agree(c, e)) return e->code;
    }
    return 0;
}

int ckpt_open(comm *c, const char *path, ckpt **out, error *e) {
    ckpt *k = mem_alloc(sizeof *k, "a checkpoint");
    k->path = mem_string(path);
    e->code = 0;
    if (share_manifest(c, k, e) || check_files(c, k, e)) {
        ckpt_close(k);
        return e->code;
    }
    k->shard = mem_alloc((size_t)k->m.n_files * sizeof *k->shard, "a checkpoint's files");
    k->tensor = -1;
    *out = k;
    return 0;
}

void ckpt_close(ckpt *k) {
    if (!k) return;
    for (int64_t i = 0; k->shard && i < k->m.n_files; i++) shard_close(k->shard[i]);
    mem_free(k->shard);
    chunk_codec_free(k->codec);
    mem_free(k->by_name);
    mem_free(k->path);
    manifest_free(&k->m);
    mem_free(k);
}

int ckpt_newest(comm *c, const char *directory, ckpt **out, error *e) {
    int64_t step = INT64_MAX;
    *out = NULL;
    e->code = 0;
    for (;;) {
        error why = {0};
        if (comm_rank(c) == 0) step_below(directory, "", step, &step, &why);
        if (comm_agree(c, &why)) {
            *e = why;
            return e->code;
        }
        comm_broadcast(c, "newest checkpoint", &step, sizeof step, 0);
        if (step < 0) break;
        char *path = step_path(directory, step, "");
        ckpt_open(c, path, out, &why);
        mem_free(path);
        if (!why.code) {
            if (e->code && comm_rank(c) == 0) notice("%s is used instead", ckpt_path(*out));
            return e->code = 0;
        }
        if (why.code == EXIT_USAGE) { /* a newer program's: an older checkpoint would only hide that */
            *e = why;
            return e->code;
        }
        if (comm_rank(c) == 0) notice("checkpoint skipped: %s", why.text);
        if (!e->code) *e = why; /* the newest one's reason */
    }
    if (e->code) error_within(e, "%s: no checkpoint verifies; the newest", directory);
    return e->code;
}

int ckpt_is_one(const char *path) {
    return path_has(path, MANIFEST_NAME);
}

int ckpt_expected(const char *path, error *e) {
    static const char wanted[] =
        "a checkpoint is wanted: a run directory that has one, or a step-N in its checkpoints/";
    const char *slash = strrchr(path, '/');
    struct stat s;
    if (stat(path, &s)) return error_set(e, EXIT_USAGE, "%s: %s; %s", path, strerror(errno), wanted);
    if (!S_ISDIR(s.st_mode)) return error_set(e, EXIT_USAGE, "%s: is a file; %s", path, wanted);
    if (ckpt_is_one(path) || !strncmp(slash ? slash + 1 : path, "step-", 5)) return 0;
    char *directory = ckpt_directory_of(path);
    int64_t step = -1;
    if (!step_below(directory, "", INT64_MAX, &step, e) && step < 0)
        error_set(e, EXIT_USAGE, "%s: there is no checkpoint here; %s", path, wanted);
    mem_free(directory);
    return step < 0 ? e->code : 0;
}

char *ckpt_directory_of(const char *path) {
    return text_of("%s%s", path, path_has(path, "checkpoints") ? "/checkpoints" : "");
}

int ckpt_steps(const char *directory, int64_t **steps, int64_t *n, error *e) {
    int64_t step = INT64_MAX;
    *steps = NULL;
    *n = 0;
    for (;;) {
        if (step_below(directory, "", step, &step, e)) {
            mem_free(*steps);
            return e->code;
        }
        if (step < 0) break;
        *steps = mem_grow(*steps, (size_t)(*n + 1) * sizeof **steps, "a directory's steps");
        (*steps)[(*n)++] = step;
    }
    for (int64_t i = 0; i < *n / 2; i++) { /* the newest came first */
        int64_t newer = (*steps)[i];
        (*steps)[i] = (*steps)[*n - 1 - i];
        (*steps)[*n - 1 - i] = newer;
    }
    return 0;
}

/* ---- what is in it ---- */

const char *ckpt_path(const ckpt *k) {
    return k->path;
}
const json_t *ckpt_state(const ckpt *k) {
    return k->m.state;
}
int64_t ckpt_step(const ckpt *k) {
    return k->m.step;
}

const manifest *ckpt_manifest(const ckpt *k) {
    return &k->m;
}

int64_t ckpt_tensors(const ckpt *k, const ckpt_tensor **tensors) {
    *tensors = k->m.tensor;
    return k->m.n_tensors;
}

int64_t ckpt_find(const ckpt *k, const char *name) {
    int64_t low = 0, high = k->m.n_tensors;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(name, k->m.tensor[k->by_name[middle]].name);
        if (order == 0) return k->by_name[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return -1;
}

int64_t ckpt_files(const ckpt *k) {
    return k->m.n_files;
}

int ckpt_same_shape(const ckpt_tensor *x, const ckpt_tensor *y) {
    return x->type == y->type && x->rank == y->rank &&
           !memcmp(x->shape, y->shape, (size_t)x->rank * sizeof *x->shape);
}

int ckpt_same_digest(const ckpt *a, int64_t i, const ckpt *b, int64_t j) {
    return XXH128_isEqual(a->m.digest[i], b->m.digest[j]);
}

/* ---- reading ---- */

static int load_chunk(ckpt *k, int64_t tensor, const chunk_grid *g, int64_t index, error *e) {
    const ckpt_tensor *t = &k->m.tensor[tensor];
    int64_t file = k->m.file_of[tensor];
    const void *values;
    if (k->tensor == tensor && k->chunk == index) return 0;
    if (!k->codec) k->codec = chunk_codec_new();
    if (!k->shard[file]) {
        char *path = text_of("%s/%s", k->path, k->m.file[file].name);
        int code = shard_open(&k->shard[file], path, e);
        mem_free(path);
        if (code) return code;
    }
    int selected = k->tensor == tensor;
    k->tensor = -1; /* until it is known what is there */
    if (!selected && shard_select(k->shard[file], t, g, e)) return e->code;
    if (shard_read(k->shard[file], k->codec, t, g, index, &values, e)) return e->code;
    k->tensor = tensor;
    k->chunk = index;
    k->values = values;
    return 0;
}

static int read_slice(ckpt *k, const ckpt_slice *s, error *e) {
    const ckpt_tensor *t = &k->m.tensor[s->tensor];
    size_t size = ckpt_type_size(t->type);
    chunk_grid g = chunk_grid_of(t);
    for (int64_t at = s->offset, end = s->offset + s->count; at < end;) {
        int64_t index = chunk_holding(&g, at);
        if (load_chunk(k, s->tensor, &g, index, e)) return e->code;
        chunk_span chunk = chunk_at(t, &g, index);
        int64_t stop = chunk.offset + chunk.count < end ? chunk.offset + chunk.count : end;
        memcpy((char *)s->data + (size_t)(at - s->offset) * size,
               k->values + (size_t)(at - chunk.offset) * size, (size_t)(stop - at) * size);
        at = stop;
    }
    if (s->offset == 0 && s->count == ckpt_elements(t) &&
        !XXH128_isEqual(XXH3_128bits(s->data, (size_t)s->count * size), k->m.digest[s->tensor]))
        return error_set(e, EXIT_CORRUPT, "%s/%s: dataset /%s: its digest is not the manifest's", k->path,
                         k->m.file[k->m.file_of[s->tensor]].name, t->name);
    return 0;
}

int ckpt_read(ckpt *k, const ckpt_slice *slices, int64_t n_slices, error *e) {
    for (int64_t i = 0; i < n_slices; i++) {
        const ckpt_slice *s = &slices[i];
        REQUIRE(s->tensor >= 0 && s->tensor < k->m.n_tensors && s->offset >= 0 && s->count >= 0 &&
                s->offset + s->count <= ckpt_elements(&k->m.tensor[s->tensor]));
        if (read_slice(k, s, e)) return e->code;
    }
    return 0;
}
