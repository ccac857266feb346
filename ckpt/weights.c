#include "ckpt/weights.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "launch/files.h"
#include "launch/memory.h"

static int by_name(const void *a, const void *b) {
    return strcmp((*(const safetensor *const *)a)->name, (*(const safetensor *const *)b)->name);
}

static const char *place(const json_t *map, const char *name) {
    return json_string_value(json_object_get(map, name));
}

/* {"weight_map": {tensor: file, ...}}; *map is borrowed from the root that is returned. */
static json_t *read_index(const char *path, const json_t **map, error *e) {
    char *text = NULL;
    size_t bytes;
    json_error_t why;
    if (read_file(path, &text, &bytes, e)) return NULL;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why), *file;
    mem_free(text);
    const char *name;
    *map = json_object_get(root, "weight_map");
    if (!root) error_set(e, EXIT_CORRUPT, "%s, line %d: not JSON: %s", path, why.line, why.text);
    else if (!json_object_size(*map)) error_set(e, EXIT_CORRUPT, "%s: has no weight_map", path);
    json_object_foreach((json_t *)*map, name, file) {
        const char *value = json_string_value(file);
        if (!e->code && (!value || !*value || strchr(value, '/')))
            error_set(e, EXIT_CORRUPT, "%s: %s is not in a file of this directory: %.100s", path, name,
                      value ? value : "not a text");
    }
    if (!e->code) return root;
    json_decref(root);
    return NULL;
}

/* Opens every file that the index names, once; `opened` collects their names in the order of w->file. */
static int open_files(weights *w, const char *directory, const char *index, const json_t *map, json_t *opened,
                      error *e) {
    const char *name;
    json_t *file;
    json_object_foreach((json_t *)map, name, file) {
        const char *value = json_string_value(file);
        if (json_object_get(opened, value)) continue;
        char *path = text_of("%s/%s", directory, value);
        w->file = mem_grow(w->file, (size_t)(w->files + 1) * sizeof *w->file, "the files of a model");
        int code = safetensors_open(&w->file[w->files], path, e);
        mem_free(path);
        if (code) return error_within(e, "%s: %s is in %s", index, name, value);
        json_object_set_new(opened, value, json_integer(w->files++));
    }
    return 0;
}

/* Every tensor of a file is where the index says, and nowhere else. */
static int check_file(const safetensors *s, const char *file, const char *index, const json_t *map,
                      error *e) {
    for (int64_t i = 0; i < s->n; i++) {
        const char *says = place(map, s->tensor[i].name);
        if (!says || strcmp(says, file))
            return error_set(e, EXIT_CORRUPT, "%s: %s is in %s, but the index has it %s%s", index,
                             s->tensor[i].name, file, says ? "in " : "nowhere", says ? says : "");
    }
    return 0;
}

static int check_index(const weights *w, const char *index, const json_t *map, json_t *opened, error *e) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)map, name, value) {
        const char *file = json_string_value(value);
        int64_t i = json_integer_value(json_object_get(opened, file));
        if (!safetensors_find(&w->file[i], name))
            return error_set(e, EXIT_CORRUPT, "%s: %s is said to be in %s, which has no such tensor", index,
                             name, file);
    }
    json_object_foreach(opened, name, value) if (check_file(&w->file[json_integer_value(value)], name, index,
                                                            map, e)) return e->code;
    return 0;
}

static int open_sharded(weights *w, const char *directory, const char *index, error *e) {
    const json_t *map;
    json_t *root = read_index(index, &map, e), *opened = json_object();
    if (root && !open_files(w, directory, index, map, opened, e)) check_index(w, index, map, opened, e);
    json_decref(opened);
    json_decref(root);
    return e->code;
}

static int open_single(weights *w, const char *path, error *e) {
    w->file = mem_alloc(sizeof *w->file, "the files of a model");
    if (safetensors_open(w->file, path, e)) return e->code;
    w->files = 1;
    return 0;
}

static void index_names(weights *w) {
    for (int64_t f = 0; f < w->files; f++) w->tensors += w->file[f].n;
    w->tensor = mem_alloc((size_t)w->tensors * sizeof *w->tensor, "the tensors of a model");
    for (int64_t f = 0, n = 0; f < w->files; f++)
        for (int64_t i = 0; i < w->file[f].n; i++) w->tensor[n++] = &w->file[f].tensor[i];
    qsort(w->tensor, (size_t)w->tensors, sizeof *w->tensor, by_name);
}

int weights_open(weights *w, const char *directory, error *e) {
    char *single = text_of("%s/model.safetensors", directory),
         *index = text_of("%s/model.safetensors.index.json", directory);
    *w = (weights){0};
    *e = (error){0};
    if (!path_exists(index) && !path_exists(single))
        error_set(e, EXIT_USAGE,
                  "%s: has neither model.safetensors nor model.safetensors.index.json; a directory with a "
                  "published model is wanted",
                  directory);
    else if (!path_exists(index)) open_single(w, single, e);
    else if (!path_exists(single)) open_sharded(w, directory, index, e);
    else
        error_set(e, EXIT_CORRUPT, "%s: has both a model.safetensors and an index of other files", directory);
    mem_free(single);
    mem_free(index);
    if (e->code) weights_close(w);
    else index_names(w);
    return e->code;
}

void weights_close(weights *w) {
    for (int64_t f = 0; f < w->files; f++) safetensors_close(&w->file[f]);
    mem_free(w->file);
    mem_free(w->tensor);
    *w = (weights){0};
}

const safetensor *weights_find(const weights *w, const char *name) {
    safetensor key = {.name = (char *)name};
    const safetensor *at = &key;
    const safetensor **found =
        w->tensors ? bsearch(&at, w->tensor, (size_t)w->tensors, sizeof *w->tensor, by_name) : NULL;
    return found ? *found : NULL;
}
