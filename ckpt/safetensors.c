#include "ckpt/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/files.h"
#include "launch/memory.h"

static const int64_t HEADER_LIMIT = 100000000; /* the format's own */

static int element_bytes(const char *dtype) {
    static const struct {
        const char *name;
        int bytes;
    } known[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
                 {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                 {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(dtype, known[i].name)) return known[i].bytes;
    return 0;
}

/* Reads and multiplies the dimensions; what is wrong with them, or NULL. */
static const char *read_shape(const json_t *shape, safetensor *t) {
    if (!json_is_array(shape)) return "its shape is not a list";
    if (json_array_size(shape) > 8) return "it has more than 8 dimensions";
    t->rank = (int)json_array_size(shape);
    t->count = 1;
    for (int i = 0; i < t->rank; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        if (!json_is_integer(d) || json_integer_value(d) < 0) return "its shape is not made of sizes";
        t->shape[i] = json_integer_value(d);
        if (__builtin_mul_overflow(t->count, t->shape[i], &t->count)) return "its shape overflows";
    }
    return NULL;
}

/* One tensor's entry: `data` points to data_bytes bytes.  What is wrong with it, or NULL. */
static const char *read_entry(json_t *entry, const unsigned char *data, int64_t data_bytes, safetensor *t) {
    const char *dtype;
    json_t *shape;
    json_int_t begin, end;
    int64_t bytes;
    if (!json_is_object(entry) ||
        json_unpack(entry, "{sssos[II!]!}", "dtype", &dtype, "shape", &shape, "data_offsets", &begin, &end))
        return "its entry is not {dtype, shape, data_offsets}";
    int size = element_bytes(dtype);
    if (!size) return "its dtype is unknown";
    strcpy(t->dtype, dtype); /* known names are short */
    const char *wrong = read_shape(shape, t);
    if (wrong) return wrong;
    if (begin < 0 || end < begin || end > data_bytes) return "its data lies outside the file";
    if (__builtin_mul_overflow(t->count, (int64_t)size, &bytes) || bytes != end - begin)
        return "its data is not of the size of its shape";
    t->data = data + begin;
    return NULL;
}

static int by_data(const void *a, const void *b) {
    const safetensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->count < y->count ? -1 : x->count > y->count; /* empty ones first */
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const safetensor *)a)->name, ((const safetensor *)b)->name);
}

/* The format wants every byte of data to belong to exactly one tensor. */
static int check_cover(safetensors *s, const unsigned char *data, int64_t data_bytes, const char *path,
                       error *e) {
    const unsigned char *at = data;
    qsort(s->tensor, (size_t)s->n, sizeof *s->tensor, by_data);
    for (int64_t i = 0; i < s->n; i++) {
        const safetensor *t = &s->tensor[i];
        if (t->data < at) return error_set(e, EXIT_CORRUPT, "%s: %s: overlaps another tensor", path, t->name);
        if (t->data > at)
            return error_set(e, EXIT_CORRUPT, "%s: %lld bytes before %s belong to no tensor", path,
                             (long long)(t->data - at), t->name);
        at += t->count * element_bytes(t->dtype);
    }
    if (at != data + data_bytes)
        return error_set(e, EXIT_CORRUPT, "%s: the last %lld bytes belong to no tensor", path,
                         (long long)(data + data_bytes - at));
    return 0;
}

static int read_metadata(const json_t *metadata) {
    const char *key;
    const json_t *value;
    if (!json_is_object(metadata)) return -1;
    json_object_foreach((json_t *)metadata, key, value) if (!json_is_string(value)) return -1;
    return 0;
}

static int read_header(safetensors *s, const char *path, error *e) {
    const unsigned char *map = s->map;
    uint64_t length = 0;
    json_error_t where;
    if (s->map_bytes < 8) return error_set(e, EXIT_CORRUPT, "%s: only %zu bytes long", path, s->map_bytes);
    for (int i = 7; i >= 0; i--) length = length << 8 | map[i];
    if (length > s->map_bytes - 8 || length > (uint64_t)HEADER_LIMIT)
        return error_set(e, EXIT_CORRUPT, "%s: says that its header has %llu bytes; the file has %zu", path,
                         (unsigned long long)length, s->map_bytes);
    json_t *header = json_loadb((const char *)map + 8, (size_t)length, JSON_REJECT_DUPLICATES, &where),
           *entry;
    if (!json_is_object(header)) {
        json_decref(header);
        return error_set(e, EXIT_CORRUPT, "%s: its header is not a JSON object: %s", path,
                         header ? "another value" : where.text);
    }
    const unsigned char *data = map + 8 + length;
    int64_t data_bytes = (int64_t)(s->map_bytes - 8 - length);
    const char *name;
    int code = 0;
    s->tensor = mem_alloc(json_object_size(header) * sizeof *s->tensor, "the list of tensors");
    json_object_foreach(header, name, entry) {
        if (!strcmp(name, "__metadata__")) {
            if (read_metadata(entry))
                code = error_set(e, EXIT_CORRUPT, "%s: __metadata__: is not a map of texts", path);
        } else {
            safetensor *t = &s->tensor[s->n++];
            t->name = mem_string(name);
            const char *wrong = read_entry(entry, data, data_bytes, t);
            if (wrong) code = error_set(e, EXIT_CORRUPT, "%s: %s: %s", path, name, wrong);
        }
        if (code) break;
    }
    json_decref(header);
    if (!code) code = check_cover(s, data, data_bytes, path, e);
    if (!code) qsort(s->tensor, (size_t)s->n, sizeof *s->tensor, by_name);
    return code;
}

int safetensors_open(safetensors *s, const char *path, error *e) {
    struct stat info;
    *s = (safetensors){0};
    const char *why;
    int fd = open_file(path, &why);
    if (fd < 0) return error_set(e, EXIT_IO, "%s: cannot be opened: %s", path, why);
    if (fstat(fd, &info)) {
        path_error(e, path, "cannot be opened");
        close(fd);
        return e->code;
    }
    s->map_bytes = (size_t)info.st_size;
    s->map = s->map_bytes ? mmap(NULL, s->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    close(fd);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        return path_error(e, path, "cannot be mapped");
    }
    int code = read_header(s, path, e);
    if (code) safetensors_close(s);
    return code;
}

void safetensors_close(safetensors *s) {
    for (int64_t i = 0; i < s->n; i++) mem_free(s->tensor[i].name);
    mem_free(s->tensor);
    if (s->map) munmap(s->map, s->map_bytes);
    *s = (safetensors){0};
}

const safetensor *safetensors_find(const safetensors *s, const char *name) {
    safetensor key = {.name = (char *)name};
    return s->n ? bsearch(&key, s->tensor, (size_t)s->n, sizeof key, by_name) : NULL;
}

/* ---- values ---- */

static float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return from_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float subnormal = (float)fraction * 0x1p-24f; /* exact */
    return sign ? -subnormal : subnormal;
}

int safetensors_read_f32(const safetensor *t, int64_t offset, int64_t count, float *out, error *e) {
    REQUIRE(offset >= 0 && count >= 0 && offset <= t->count && count <= t->count - offset);
    const unsigned char *p = t->data + offset * element_bytes(t->dtype); /* of any alignment */
    if (!strcmp(t->dtype, "F32")) {
        memcpy(out, p, (size_t)count * 4);
    } else if (!strcmp(t->dtype, "BF16")) {
        for (int64_t i = 0; i < count; i++)
            out[i] = from_bits((uint32_t)p[2 * i] << 16 | (uint32_t)p[2 * i + 1] << 24);
    } else if (!strcmp(t->dtype, "F16")) {
        for (int64_t i = 0; i < count; i++) out[i] = half_to_float((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
    } else if (!strcmp(t->dtype, "F64")) {
        for (int64_t i = 0; i < count; i++) {
            double d;
            memcpy(&d, p + 8 * i, 8);
            out[i] = (float)d;
        }
    } else {
        return error_set(e, EXIT_CORRUPT, "%s: has dtype %s; F32, F64, BF16 or F16 was expected", t->name,
                         t->dtype);
    }
    return 0;
}
