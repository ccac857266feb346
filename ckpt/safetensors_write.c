#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "ckpt/layout.h"
#include "ckpt/safetensors.h"
#include "launch/files.h"
#include "launch/memory.h"

enum { PIECE = 1 << 16 }; /* values converted at a time */

struct safetensors_writer {
    char *path, *temporary;
    int fd;
    int64_t n, now, given; /* tensors; the one being given, and how much of it was */
    int64_t *count;        /* [n] elements */
    int *is_bf16;          /* [n] */
    uint16_t *piece;
};

/* The header: entries in the order given, padded with spaces so that the data starts at a multiple of 8. */
static char *header_text(const safetensors_writer *w, const safetensor_spec *specs) {
    json_t *header = json_pack("{s{ss}}", "__metadata__", "format", "pt"); /* transformers wants to be told */
    int64_t at = 0;
    for (int64_t i = 0; i < w->n; i++) {
        json_t *shape = json_array();
        for (int k = 0; k < specs[i].rank; k++) json_array_append_new(shape, json_integer(specs[i].shape[k]));
        int64_t end = at + w->count[i] * (w->is_bf16[i] ? 2 : 4);
        json_t *entry = json_pack("{sssos[II]}", "dtype", specs[i].dtype, "shape", shape, "data_offsets",
                                  (json_int_t)at, (json_int_t)end);
        REQUIRE(!json_object_get(header, specs[i].name));
        REQUIRE(json_object_set_new(header, specs[i].name, entry) == 0);
        at = end;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (!text) FAULT(EXIT_BUG, "a safetensors header cannot be written as JSON");
    size_t n = strlen(text);
    char *padded = text_of("%s%*s", text, (int)((8 - n % 8) % 8), "");
    mem_free(text);
    return padded;
}

static int write_header(safetensors_writer *w, const safetensor_spec *specs) {
    char *text = header_text(w, specs);
    size_t n = strlen(text);
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(n >> (8 * i));
    int failure = write_all(w->fd, length, 8) || write_all(w->fd, text, n);
    mem_free(text);
    return failure;
}

int safetensors_create(safetensors_writer **out, const char *path, const safetensor_spec *specs, int64_t n,
                       error *e) {
    safetensors_writer *w = mem_alloc(sizeof *w, "a safetensors writer");
    w->path = mem_string(path);
    w->temporary = text_of("%s.tmp", path);
    w->n = n;
    w->count = mem_alloc((size_t)n * sizeof *w->count, "tensor sizes");
    w->is_bf16 = mem_alloc((size_t)n * sizeof *w->is_bf16, "tensor types");
    w->piece = mem_alloc(PIECE * sizeof *w->piece, "converted values");
    for (int64_t i = 0; i < n; i++) {
        w->is_bf16[i] = !strcmp(specs[i].dtype, "BF16");
        REQUIRE((w->is_bf16[i] || !strcmp(specs[i].dtype, "F32")) && specs[i].rank >= 0 &&
                specs[i].rank <= 8);
        w->count[i] = shape_elements(specs[i].rank, specs[i].shape);
    }
    w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int code = 0;
    if (w->fd < 0) code = path_error(e, w->temporary, "cannot be created");
    else if (write_header(w, specs)) code = path_error(e, w->temporary, "cannot be written");
    if (code) {
        error ignored = {0};
        safetensors_finish(w, 1, &ignored);
        return code;
    }
    *out = w;
    return 0;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

int safetensors_append(safetensors_writer *w, const float *values, int64_t count, error *e) {
    while (w->now < w->n && w->given == w->count[w->now]) w->now++, w->given = 0;
    if (count == 0) return 0;
    REQUIRE(w->now < w->n && count <= w->count[w->now] - w->given);
    w->given += count;
    int failure = 0;
    if (w->is_bf16[w->now]) {
        for (int64_t at = 0; at < count && !failure; at += PIECE) {
            int64_t n = count - at < PIECE ? count - at : PIECE;
            for (int64_t i = 0; i < n; i++) w->piece[i] = to_bf16(values[at + i]);
            failure = write_all(w->fd, w->piece, (size_t)n * 2);
        }
    } else {
        failure = write_all(w->fd, values, (size_t)count * 4);
    }
    return failure ? path_error(e, w->temporary, "cannot be written") : 0;
}

static void writer_free(safetensors_writer *w) {
    mem_free(w->path);
    mem_free(w->temporary);
    mem_free(w->count);
    mem_free(w->is_bf16);
    mem_free(w->piece);
    mem_free(w);
}

int safetensors_finish(safetensors_writer *w, int abandon, error *e) {
    int code = 0;
    while (w->now < w->n && w->given == w->count[w->now]) w->now++, w->given = 0;
    if (!abandon && w->now < w->n)
        code = error_set(e, EXIT_IO, "%s: abandoned: only %lld of %lld tensors were given", w->path,
                         (long long)w->now, (long long)w->n);
    if (!abandon && !code && fsync(w->fd)) code = path_error(e, w->temporary, "cannot be synced to disk");
    if (w->fd >= 0 && close(w->fd) && !abandon && !code)
        code = path_error(e, w->temporary, "cannot be written");
    if (!abandon && !code) code = move_into_place(w->temporary, w->path, e);
    if (w->fd >= 0 && (abandon || code)) unlink(w->temporary);
    writer_free(w);
    return code;
}
