/* Growth by stacking: an operation on names.  Chunks travel compressed, as they lie in the files; no number
 * is touched, and one chunk at a time is in memory. */
#include <stdlib.h>
#include <string.h>

#include "ckpt/commit.h"
#include "ckpt/manifest.h"
#include "ckpt/shard.h"
#include "launch/files.h"
#include "launch/memory.h"

typedef struct stacker {
    const char *from, *to; /* step-N, and step-N.tmp of the larger one */
    const manifest *old;
    manifest m;
    int64_t *source; /* [m.n_tensors] the old tensor */
    shard *shard;    /* the old file being read */
    int64_t file;    /* its number, -1: none */
} stacker;

static const char layers[] = "model.layers.";

/* The number K of a name like adam_m/model.layers.K.mlps.0.up_proj.weight, and where its digits are; -1 for a
 * tensor of no layer. */
static int64_t layer_of(const char *name, const char **digits, const char **rest) {
    const char *slash = strchr(name, '/');
    if (!slash || strncmp(slash + 1, layers, sizeof layers - 1)) return -1;
    *digits = slash + sizeof layers; /* the slash, and no zero */
    size_t n = strspn(*digits, "0123456789");
    *rest = *digits + n;
    return n > 0 && n < 18 && **rest == '.' ? strtoll(*digits, NULL, 10) : -1;
}

static int64_t layer_number(const char *name) {
    const char *digits, *rest;
    return layer_of(name, &digits, &rest);
}

int64_t ckpt_layers(const ckpt *k) {
    const manifest *m = ckpt_manifest(k);
    int64_t n = 0;
    for (int64_t i = 0; i < m->n_tensors; i++) {
        int64_t layer = layer_number(m->tensor[i].name);
        if (layer >= n) n = layer + 1;
    }
    return n;
}

static void add(stacker *s, int64_t source, int64_t above) {
    const ckpt_tensor *t = &s->old->tensor[source];
    int64_t i = s->m.n_tensors++;
    const char *digits, *rest;
    int64_t layer = layer_of(t->name, &digits, &rest);
    s->m.tensor[i] = *t;
    s->m.tensor[i].name =
        layer < 0 ? mem_string(t->name)
                  : text_of("%.*s%lld%s", (int)(digits - t->name), t->name, (long long)(layer + above), rest);
    s->m.digest[i] = s->old->digest[source];
    s->source[i] = source;
}

/* The list of the larger model, in the order in which it saves itself: where the old list has tensors of
 * layers, one after the other, the same follow again for the layers above. */
static void stack_names(stacker *s, int64_t n_layers, int64_t times) {
    const manifest *old = s->old;
    size_t most = (size_t)(old->n_tensors * times);
    s->m.tensor = mem_alloc(most * sizeof *s->m.tensor, "the larger model's tensors");
    s->m.digest = mem_alloc(most * sizeof *s->m.digest, "the larger model's tensors");
    s->m.file_of = mem_alloc(most * sizeof *s->m.file_of, "the larger model's tensors");
    s->source = mem_alloc(most * sizeof *s->source, "the larger model's tensors");
    for (int64_t i = 0, end; i < old->n_tensors; i = end) {
        end = i + 1;
        if (layer_number(old->tensor[i].name) < 0) {
            add(s, i, 0);
            continue;
        }
        while (end < old->n_tensors && layer_number(old->tensor[end].name) >= 0) end++;
        for (int64_t floor = 0; floor < times; floor++)
            for (int64_t k = i; k < end; k++) add(s, k, floor * n_layers);
    }
}

static int open_source(stacker *s, int64_t file, error *e) {
    if (s->file == file) return 0;
    shard_close(s->shard);
    s->shard = NULL;
    s->file = -1;
    char *path = text_of("%s/%s", s->from, s->old->file[file].name);
    if (!shard_open(&s->shard, path, e)) s->file = file;
    mem_free(path);
    return e->code;
}

static int copy_tensor(stacker *s, shard *out, int64_t i, error *e) {
    const ckpt_tensor *t = &s->m.tensor[i], *was = &s->old->tensor[s->source[i]];
    chunk_grid g = chunk_grid_of(t);
    if (open_source(s, s->old->file_of[s->source[i]], e) || shard_select(s->shard, was, &g, e) ||
        shard_add(out, t, &g, e))
        return e->code;
    for (int64_t k = 0; k < g.chunks; k++) {
        chunk_span chunk = chunk_at(t, &g, k);
        const void *frame;
        size_t bytes;
        if (shard_frame(s->shard, was, &g, k, &frame, &bytes, e) || shard_put(out, &chunk, frame, bytes, e))
            return e->code;
    }
    return 0;
}

static int write_shard(stacker *s, int64_t file, int64_t first, int64_t end, error *e) {
    ckpt_file *f = &s->m.file[file];
    shard *out;
    manifest_file_name(file, f->name);
    char *path = text_of("%s/%s", s->to, f->name);
    int code = shard_create(&out, path, NULL, e);
    mem_free(path);
    if (code) return code;
    for (int64_t i = first; i < end && !code; i++) {
        s->m.file_of[i] = file;
        code = copy_tensor(s, out, i, e);
    }
    if (!code) return shard_finish(out, &f->bytes, &f->digest, e);
    shard_close(out);
    return code;
}

static int write_all_shards(stacker *s, int64_t shards, error *e) {
    int64_t files = shards < s->m.n_tensors ? shards : s->m.n_tensors;
    int64_t *first = mem_alloc((size_t)(files + 1) * sizeof *first, "the tensors of a file");
    s->m.n_files = files;
    s->m.file = mem_alloc((size_t)files * sizeof *s->m.file, "the manifest's files");
    ckpt_assign(s->m.tensor, s->m.n_tensors, files, first);
    for (int64_t f = 0; f < files && !e->code; f++) write_shard(s, f, first[f], first[f + 1], e);
    mem_free(first);
    return e->code;
}

int ckpt_stack(const ckpt *k, const char *directory, int64_t times, int64_t shards, const json_t *state,
               error *e) {
    const manifest *old = ckpt_manifest(k);
    int64_t n_layers = ckpt_layers(k);
    char *final = step_path(directory, old->step, ""), *temporary = step_path(directory, old->step, ".tmp");
    stacker s = {.from = ckpt_path(k), .to = temporary, .old = old, .file = -1};
    e->code = 0;
    if (n_layers == 0)
        error_set(e, EXIT_USAGE, "%s has no layers to stack: no tensor is named .../%sK...", ckpt_path(k),
                  layers);
    else if (path_exists(final))
        error_set(e, EXIT_USAGE, "%s is there already, and growth replaces nothing", final);
    else if (!commit_begin(directory, old->step, e)) {
        stack_names(&s, n_layers, times);
        s.m.step = old->step;
        s.m.state = json_incref((json_t *)state); /* read only, by manifest_text */
        if (!write_all_shards(&s, shards, e)) {
            size_t bytes;
            char *text = manifest_text(&s.m, &bytes);
            commit_finish(directory, old->step, text, bytes, 0, e);
            mem_free(text);
        }
        if (e->code) commit_abandon(directory, old->step);
    }
    shard_close(s.shard);
    mem_free(s.source);
    manifest_free(&s.m);
    mem_free(final);
    mem_free(temporary);
    return e->code;
}
