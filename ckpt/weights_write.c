#include <jansson.h>
#include <string.h>

#include "ckpt/layout.h"
#include "ckpt/weights.h"
#include "launch/files.h"
#include "launch/memory.h"

struct weights_writer {
    char *directory;
    const safetensor_spec *spec;
    int64_t n, files;
    int64_t *first; /* [files + 1] the tensors of a file */
    int64_t total;  /* bytes of all */
    int64_t file, tensor, given;
    safetensors_writer *out; /* the file being written */
};

static int64_t bytes_of(const safetensor_spec *s) {
    return shape_elements(s->rank, s->shape) * (strcmp(s->dtype, "BF16") ? 4 : 2);
}

static char *file_name(int64_t file, int64_t files) {
    if (files == 1) return mem_string("model.safetensors");
    return text_of("model-%05lld-of-%05lld.safetensors", (long long)file + 1, (long long)files);
}

/* Tensors in order, as many to a file as it may hold. */
static void plan(weights_writer *w, int64_t max_bytes) {
    int64_t used = 0;
    w->first = mem_alloc((size_t)(w->n + 1) * sizeof *w->first, "the files of a model");
    for (int64_t i = 0; i < w->n; i++) {
        int64_t bytes = bytes_of(&w->spec[i]);
        if (i == 0 || used + bytes > max_bytes) w->first[w->files++] = i, used = 0;
        used += bytes;
        w->total += bytes;
    }
    w->first[w->files] = w->n;
}

static int next_file(weights_writer *w, error *e) {
    int64_t from = w->first[w->file], n = w->first[w->file + 1] - from;
    char *name = file_name(w->file, w->files), *path = text_of("%s/%s", w->directory, name);
    int code = safetensors_create(&w->out, path, w->spec + from, n, e);
    mem_free(name);
    mem_free(path);
    return code;
}

int weights_create(weights_writer **out, const char *directory, const safetensor_spec *specs, int64_t n,
                   int64_t max_bytes, error *e) {
    REQUIRE(n > 0);
    weights_writer *w = mem_alloc(sizeof *w, "a model's writer");
    w->directory = mem_string(directory);
    w->spec = specs;
    w->n = n;
    plan(w, max_bytes);
    int code = next_file(w, e);
    if (code) {
        error ignored = {0};
        weights_finish(w, 1, &ignored);
        return code;
    }
    *out = w;
    return 0;
}

int weights_append(weights_writer *w, const float *values, int64_t count, error *e) {
    REQUIRE(w->tensor < w->n);
    if (w->tensor == w->first[w->file + 1]) { /* the file at hand has all of its tensors */
        safetensors_writer *done = w->out;
        w->out = NULL;
        if (safetensors_finish(done, 0, e)) return e->code;
        w->file++;
        if (next_file(w, e)) return e->code;
    }
    if (safetensors_append(w->out, values, count, e)) return e->code;
    w->given += count;
    const safetensor_spec *now = &w->spec[w->tensor];
    if (w->given == shape_elements(now->rank, now->shape)) w->tensor++, w->given = 0;
    return 0;
}

static int write_index(const weights_writer *w, error *e) {
    json_t *map = json_object();
    for (int64_t f = 0; f < w->files; f++) {
        char *name = file_name(f, w->files);
        for (int64_t i = w->first[f]; i < w->first[f + 1]; i++)
            json_object_set_new(map, w->spec[i].name, json_string(name));
        mem_free(name);
    }
    json_t *root = json_pack("{s{sI}so}", "metadata", "total_size", (json_int_t)w->total, "weight_map", map);
    char *json = json_dumps(root, JSON_INDENT(2)), *text = text_of("%s\n", json),
         *path = text_of("%s/model.safetensors.index.json", w->directory);
    int code = write_file(path, text, strlen(text), e);
    json_decref(root);
    mem_free(json);
    mem_free(text);
    mem_free(path);
    return code;
}

int weights_finish(weights_writer *w, int abandon, error *e) {
    int code = 0;
    REQUIRE(abandon || w->tensor == w->n);
    if (w->out) code = safetensors_finish(w->out, abandon, e);
    if (!abandon && !code && w->files > 1) code = write_index(w, e);
    mem_free(w->directory);
    mem_free(w->first);
    mem_free(w);
    return code;
}

int64_t weights_files(const weights_writer *w) {
    return w->files;
}
