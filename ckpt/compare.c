#include "ckpt/compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/layout.h"
#include "launch/memory.h"

/* ---- elements ---- */

static double number_of(int type, uint64_t bits) {
    if (type == CKPT_F64) {
        double x;
        memcpy(&x, &bits, sizeof x);
        return x;
    }
    uint32_t low = (uint32_t)bits;
    float x;
    memcpy(&x, &low, sizeof x);
    return (double)x;
}

/* Integers in the order of the numbers. */
static int64_t place_of(int type, uint64_t bits) {
    uint64_t sign = type == CKPT_F32 ? (uint64_t)1 << 31 : (uint64_t)1 << 63;
    if (type == CKPT_I64) return (int64_t)bits;
    return bits & sign ? -(int64_t)(bits & ~sign) : (int64_t)bits;
}

int element_is_nan(int type, uint64_t bits) {
    return type != CKPT_I64 && isnan(number_of(type, bits));
}

int element_distance(int type, const uint64_t bits[2], uint64_t *distance) {
    if (element_is_nan(type, bits[0]) || element_is_nan(type, bits[1])) return 0;
    int64_t a = place_of(type, bits[0]), b = place_of(type, bits[1]);
    *distance = a < b ? (uint64_t)b - (uint64_t)a : (uint64_t)a - (uint64_t)b;
    return 1;
}

void element_text(int type, uint64_t bits, char text[ELEMENT_TEXT]) {
    double x = number_of(type, bits);
    if (type == CKPT_I64) snprintf(text, ELEMENT_TEXT, "%lld", (long long)(int64_t)bits);
    else if (type == CKPT_F64)
        snprintf(text, ELEMENT_TEXT, "%.17g = %a (bits %016llx)", x, x, (unsigned long long)bits);
    else snprintf(text, ELEMENT_TEXT, "%.9g = %a (bits %08llx)", x, x, (unsigned long long)bits);
}

/* ---- tensors ---- */

static uint64_t bits_at(const char *data, size_t size, int64_t i) {
    uint64_t wide;
    uint32_t narrow;
    if (size == sizeof narrow) {
        memcpy(&narrow, data + (size_t)i * size, size);
        return narrow;
    }
    memcpy(&wide, data + (size_t)i * size, sizeof wide);
    return wide;
}

static void note(tensor_difference *d, int type, const element_pair *pair) {
    uint64_t distance;
    if (d->elements++ == 0) d->first = *pair;
    if (!element_distance(type, pair->bits, &distance)) {
        d->nans++;
    } else if (d->elements - d->nans == 1 || distance > d->distance) {
        d->farthest = *pair;
        d->distance = distance;
    }
}

static void compare_chunk(const ckpt_tensor *t, const chunk_span *chunk, const char *a, const char *b,
                          tensor_difference *d) {
    size_t size = ckpt_type_size(t->type);
    if (!memcmp(a, b, (size_t)chunk->count * size)) return;
    for (int64_t i = 0; i < chunk->count; i++) {
        element_pair pair = {chunk->offset + i, {bits_at(a, size, i), bits_at(b, size, i)}};
        if (pair.bits[0] != pair.bits[1]) note(d, t->type, &pair);
    }
}

int ckpt_compare(ckpt *a, int64_t i, ckpt *b, int64_t j, tensor_difference *d, error *e) {
    const ckpt_tensor *in_a, *in_b;
    ckpt_tensors(a, &in_a);
    ckpt_tensors(b, &in_b);
    const ckpt_tensor *t = &in_a[i];
    REQUIRE(ckpt_same_shape(t, &in_b[j]));
    *d = (tensor_difference){0};
    if (ckpt_same_digest(a, i, b, j)) return 0;
    chunk_grid g = chunk_grid_of(t);
    size_t bytes = (size_t)g.full * ckpt_type_size(t->type);
    char *x = mem_alloc(bytes, "a chunk to compare"), *y = mem_alloc(bytes, "a chunk to compare");
    int code = 0;
    for (int64_t k = 0; k < g.chunks && !code; k++) {
        chunk_span chunk = chunk_at(t, &g, k);
        ckpt_slice from_a = {i, chunk.offset, chunk.count, x}, from_b = {j, chunk.offset, chunk.count, y};
        code = ckpt_read(a, &from_a, 1, e);
        if (!code) code = ckpt_read(b, &from_b, 1, e);
        if (!code) compare_chunk(t, &chunk, x, y, d);
    }
    mem_free(x);
    mem_free(y);
    if (!code && !d->elements)
        code =
            error_set(e, EXIT_CORRUPT,
                      "%s and %s: their manifests have different digests of %s, but its elements are equal: "
                      "`caracal verify` says which is damaged",
                      ckpt_path(a), ckpt_path(b), t->name);
    return code;
}
