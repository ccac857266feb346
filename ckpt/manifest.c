#include "ckpt/manifest.h"

#include <stdio.h>
#include <string.h>

#include "ckpt/layout.h"
#include "launch/files.h"
#include "launch/memory.h"

static const char format_name[] = "caracal checkpoint";

/* The last line, of fixed length, is the digest of every byte before it. */
enum { TAIL_BYTES = sizeof "\"digest\": \"\"\n}\n" - 1 + 32 };

static void write_tail(const char *text, size_t bytes, char tail[TAIL_BYTES + 1]) {
    char hex[33];
    digest_text(XXH3_128bits(text, bytes), hex);
    snprintf(tail, TAIL_BYTES + 1, "\"digest\": \"%s\"\n}\n", hex);
}

void manifest_file_name(int64_t file, char name[24]) {
    snprintf(name, 24, "shard-%05d.h5", (int)file);
}

void manifest_free(manifest *m) {
    for (int64_t i = 0; m->tensor && i < m->n_tensors; i++) mem_free(m->tensor[i].name);
    mem_free(m->file);
    mem_free(m->tensor);
    mem_free(m->file_of);
    mem_free(m->digest);
    json_decref(m->state);
    *m = (manifest){0};
}

/* ---- writing ---- */

typedef struct buffer {
    char *text;
    size_t bytes, capacity;
} buffer;

static void append(buffer *b, const char *text) {
    size_t n = strlen(text);
    if (b->bytes + n + 1 > b->capacity) {
        b->capacity = 2 * (b->bytes + n + 1);
        b->text = mem_grow(b->text, b->capacity, "the manifest");
    }
    memcpy(b->text + b->bytes, text, n + 1);
    b->bytes += n;
}

/* Appends a value on a line of its own and releases it. */
static void append_json(buffer *b, json_t *value, size_t flags, const char *after) {
    char *text = json_dumps(value, flags | JSON_ENCODE_ANY);
    if (!text) FAULT(EXIT_BUG, "a manifest's value cannot be written as JSON (a name that is not UTF-8?)");
    append(b, text);
    append(b, after);
    mem_free(text);
    json_decref(value);
}

char *manifest_text(const manifest *m, size_t *bytes) {
    buffer b = {0};
    char hex[33], line[128], tail[TAIL_BYTES + 1];
    snprintf(line, sizeof line, "{\n\"format\": \"%s\",\n\"version\": %d,\n\"step\": %lld,\n\"files\": [\n",
             format_name, CKPT_VERSION, (long long)m->step);
    append(&b, line);
    for (int64_t i = 0; i < m->n_files; i++) {
        const ckpt_file *f = &m->file[i];
        digest_text(f->digest, hex);
        append_json(&b,
                    json_pack("{sssIss}", "name", f->name, "bytes", (json_int_t)f->bytes, "xxh3_128", hex), 0,
                    i + 1 < m->n_files ? ",\n" : "\n");
    }
    append(&b, "],\n\"tensors\": [\n");
    for (int64_t i = 0; i < m->n_tensors; i++) {
        const ckpt_tensor *t = &m->tensor[i];
        json_t *shape = json_array();
        for (int k = 0; k < t->rank; k++) json_array_append_new(shape, json_integer(t->shape[k]));
        digest_text(m->digest[i], hex);
        append_json(&b,
                    json_pack("{sssssosIss}", "name", t->name, "type", ckpt_type_name(t->type), "shape",
                              shape, "file", (json_int_t)m->file_of[i], "xxh3_128", hex),
                    0, i + 1 < m->n_tensors ? ",\n" : "\n");
    }
    append(&b, "],\n\"state\": ");
    append_json(&b, json_incref(m->state), JSON_SORT_KEYS | JSON_INDENT(1), ",\n");
    write_tail(b.text, b.bytes, tail);
    append(&b, tail);
    *bytes = b.bytes;
    return b.text;
}

/* ---- reading ---- */

static int hex_digest(const char *hex, XXH128_hash_t *digest) {
    unsigned long long high, low;
    int end = 0;
    if (strlen(hex) != 32 || strspn(hex, "0123456789abcdef") != 32) return -1;
    if (sscanf(hex, "%16llx%16llx%n", &high, &low, &end) != 2 || end != 32) return -1;
    digest->high64 = high;
    digest->low64 = low;
    return 0;
}

static int read_file_entry(json_t *entry, ckpt_file *f, int64_t index) {
    const char *name, *hex;
    json_int_t bytes;
    if (json_unpack(entry, "{sssIss}", "name", &name, "bytes", &bytes, "xxh3_128", &hex)) return -1;
    manifest_file_name(index, f->name);
    f->bytes = bytes;
    return strcmp(name, f->name) || bytes < 0 || hex_digest(hex, &f->digest);
}

/* A path inside an HDF5 file: names between single slashes. */
static int usable_name(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || name[0] == '/' || name[n - 1] == '/' || strstr(name, "//")) return 0;
    char *wrapped = text_of("/%s/", name);
    int ok = !strstr(wrapped, "/./") && !strstr(wrapped, "/../");
    mem_free(wrapped);
    return ok;
}

static int read_shape(json_t *shape, ckpt_tensor *t) {
    const int64_t most =
        (int64_t)1 << 56; /* bytes of a tensor: far from overflow wherever they are added up */
    int64_t elements = 1;
    t->rank = (int)json_array_size(shape);
    if (json_array_size(shape) < 1 || json_array_size(shape) > 4) return -1;
    for (int i = 0; i < t->rank; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        t->shape[i] = json_integer_value(d);
        if (!json_is_integer(d) || t->shape[i] < 1 || t->shape[i] > most / 8 / elements) return -1;
        elements *= t->shape[i];
    }
    return 0;
}

static int read_tensor_entry(manifest *m, json_t *entry, int64_t index) {
    ckpt_tensor *t = &m->tensor[index];
    const char *name, *type, *hex;
    json_t *shape;
    json_int_t file;
    if (json_unpack(entry, "{sssssosIss}", "name", &name, "type", &type, "shape", &shape, "file", &file,
                    "xxh3_128", &hex))
        return -1;
    t->name = mem_string(name);
    t->type = -1;
    for (int i = CKPT_F32; i <= CKPT_I64; i++)
        if (!strcmp(type, ckpt_type_name(i))) t->type = i;
    m->file_of[index] = file;
    return t->type < 0 || file < 0 || file >= m->n_files || !usable_name(name) || read_shape(shape, t) ||
           hex_digest(hex, &m->digest[index]);
}

static int read_entries(manifest *m, json_t *files, json_t *tensors, const char *path, error *e) {
    int64_t n_files = (int64_t)json_array_size(files), n_tensors = (int64_t)json_array_size(tensors);
    m->file = mem_alloc((size_t)n_files * sizeof *m->file, "the manifest's files");
    m->tensor = mem_alloc((size_t)n_tensors * sizeof *m->tensor, "the manifest's tensors");
    m->file_of = mem_alloc((size_t)n_tensors * sizeof *m->file_of, "the manifest's tensors");
    m->digest = mem_alloc((size_t)n_tensors * sizeof *m->digest, "the manifest's tensors");
    m->n_files = n_files;
    m->n_tensors = n_tensors;
    for (int64_t i = 0; i < n_files; i++)
        if (read_file_entry(json_array_get(files, (size_t)i), &m->file[i], i))
            return error_set(e, EXIT_CORRUPT, "%s: entry %lld of files is not valid", path, (long long)i);
    for (int64_t i = 0; i < n_tensors; i++)
        if (read_tensor_entry(m, json_array_get(tensors, (size_t)i), i))
            return error_set(e, EXIT_CORRUPT, "%s: entry %lld of tensors (%s) is not valid", path,
                             (long long)i, m->tensor[i].name ? m->tensor[i].name : "no name");
    return 0;
}

static int read_root(manifest *m, json_t *root, const char *path, error *e) {
    const char *format = json_string_value(json_object_get(root, "format"));
    json_int_t version = 0, step = 0;
    json_t *files, *tensors, *state;
    if (!format || strcmp(format, format_name) || json_unpack(root, "{sI}", "version", &version))
        return error_set(e, EXIT_CORRUPT, "%s: is not a checkpoint's manifest", path);
    if (version > CKPT_VERSION)
        return error_set(e, EXIT_USAGE,
                         "%s: written by a newer program (format version %lld; this one reads up to %d)",
                         path, (long long)version, CKPT_VERSION);
    if (version < 1 ||
        json_unpack(root, "{sIsososo}", "step", &step, "files", &files, "tensors", &tensors, "state",
                    &state) ||
        step < 0 || !json_is_array(files) || !json_is_array(tensors) || !json_is_object(state))
        return error_set(e, EXIT_CORRUPT, "%s: is not a complete manifest", path);
    m->step = step;
    m->state = json_incref(state);
    return read_entries(m, files, tensors, path, e);
}

int manifest_parse(manifest *m, const char *text, size_t bytes, const char *path, error *e) {
    char tail[TAIL_BYTES + 1];
    *m = (manifest){0};
    if (bytes < TAIL_BYTES) return error_set(e, EXIT_CORRUPT, "%s: is damaged (only %zu bytes)", path, bytes);
    write_tail(text, bytes - TAIL_BYTES, tail);
    if (memcmp(tail, text + bytes - TAIL_BYTES, TAIL_BYTES))
        return error_set(e, EXIT_CORRUPT, "%s: is damaged (its digest is not that of its text)", path);
    json_error_t where;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    if (!root) return error_set(e, EXIT_CORRUPT, "%s: line %d: %s", path, where.line, where.text);
    int code = read_root(m, root, path, e);
    json_decref(root);
    if (code) manifest_free(m);
    return code;
}

int manifest_read_text(const char *directory, char **text, size_t *bytes, error *e) {
    char *path = text_of("%s/" MANIFEST_NAME, directory);
    int code = read_file(path, text, bytes, e);
    if (code && path_exists(directory) && !path_exists(path))
        code =
            error_set(e, EXIT_CORRUPT, "%s: is no complete checkpoint: it has no " MANIFEST_NAME, directory);
    mem_free(path);
    return code;
}

int manifest_load(manifest *m, const char *directory, error *e) {
    char *path = text_of("%s/" MANIFEST_NAME, directory), *text;
    size_t bytes;
    int code = manifest_read_text(directory, &text, &bytes, e);
    if (!code) {
        code = manifest_parse(m, text, bytes, path, e);
        mem_free(text);
    }
    mem_free(path);
    return code;
}
