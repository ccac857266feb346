#include "data/indexed.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "launch/files.h"
#include "launch/memory.h"

static const char magic[9] = "MMIDIDX\0", made_by[8] = "CARACAL";
enum { VERSION = 1, TYPE_INT32 = 4, TYPE_UINT16 = 8, HEADER_BYTES = 9 + 8 + 1 + 8 + 8, DIGEST_BYTES = 32 };

/* The arrays of an .idx begin at byte 34 and so are not aligned. */
static int64_t read_i64(const char *p) {
    int64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static int32_t read_i32(const char *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static int check_header(indexed_reader *r, const input *idx, const char *path, error *e) {
    const char *p = idx->data;
    if (idx->bytes < HEADER_BYTES || memcmp(p, magic, sizeof magic))
        return error_set(e, EXIT_CORRUPT,
                         "%s is not an index of token files (it does not start with MMIDIDX)", path);
    if (read_i64(p + 9) != VERSION)
        return error_set(e, EXIT_CORRUPT, "%s has version %lld; only %d is known", path,
                         (long long)read_i64(p + 9), VERSION);
    int type = (unsigned char)p[17];
    if (type != TYPE_INT32 && type != TYPE_UINT16)
        return error_set(e, EXIT_CORRUPT, "%s: tokens of type %d; 4 (int32) and 8 (uint16) are supported",
                         path, type);
    r->token_bytes = type == TYPE_INT32 ? 4 : 2;
    r->sequences = read_i64(p + 18);
    int64_t marks = read_i64(p + 26), most = (int64_t)idx->bytes; /* more would not fit: no overflow below */
    int plausible = r->sequences >= 0 && r->sequences <= most && marks >= 1 && marks <= most;
    int64_t arrays = plausible ? HEADER_BYTES + 12 * r->sequences + 8 * marks : -1;
    r->documents = marks - 1;
    if (arrays >= 0 && arrays + (int64_t)sizeof made_by + DIGEST_BYTES == most &&
        !memcmp(p + arrays, made_by, sizeof made_by))
        snprintf(r->tokenizer, sizeof r->tokenizer, "%.*s", DIGEST_BYTES, p + arrays + sizeof made_by);
    else if (arrays != most)
        return error_set(e, EXIT_CORRUPT, "%s: %lld sequences and %lld documents do not make its %zu bytes",
                         path, (long long)r->sequences, (long long)marks - 1, idx->bytes);
    return 0;
}

/* Sequences must lie end to end, since samples are cut from the stream of all tokens. */
static int check_arrays(indexed_reader *r, const input *idx, const char *path, error *e) {
    const char *length = idx->data + HEADER_BYTES, *offset = length + 4 * r->sequences;
    const char *document = offset + 8 * r->sequences, *end = document + 8 * (r->documents + 1);
    int64_t at = 0, before = 0;
    for (int64_t i = 0; i < r->sequences; i++) {
        if (read_i32(length + 4 * i) < 0 || read_i64(offset + 8 * i) != at)
            return error_set(
                e, EXIT_CORRUPT,
                "%s: sequence %lld (%d tokens at byte %lld) does not begin where the one before ends "
                "(byte %lld)",
                path, (long long)i, read_i32(length + 4 * i), (long long)read_i64(offset + 8 * i),
                (long long)at);
        at += (int64_t)read_i32(length + 4 * i) * r->token_bytes;
    }
    for (const char *p = document; p < end; p += 8) {
        int64_t first = read_i64(p);
        if ((p == document && first) || first < before || first > r->sequences ||
            (p + 8 == end && first != r->sequences))
            return error_set(e, EXIT_CORRUPT, "%s: document %lld begins at sequence %lld of %lld", path,
                             (long long)(p - document) / 8, (long long)first, (long long)r->sequences);
        before = first;
    }
    if (at != (int64_t)r->bin.bytes)
        return error_set(e, EXIT_CORRUPT,
                         "%s has %zu bytes, and its index says %lld: cut short, or not its index", r->path,
                         r->bin.bytes, (long long)at);
    r->tokens = at / r->token_bytes;
    r->index = XXH3_64bits(idx->data, (size_t)(end - idx->data));
    return 0;
}

int indexed_open(indexed_reader *r, const char *prefix, error *e) {
    *r = (indexed_reader){.path = text_of("%s.bin", prefix), .bin.data = ""};
    char *path = text_of("%s.idx", prefix);
    input idx;
    int code = input_open(&idx, path, e);
    if (!code) code = input_open(&r->bin, r->path, e);
    if (!code) code = check_header(r, &idx, path, e);
    if (!code) code = check_arrays(r, &idx, path, e);
    input_close(&idx);
    mem_free(path);
    if (code) indexed_close(r);
    return code;
}

int indexed_place(const char *prefix, int64_t token, int64_t *document, int64_t *within, error *e) {
    char *path = text_of("%s.idx", prefix);
    indexed_reader r = {.path = path};
    input idx;
    int code = input_open(&idx, path, e);
    if (!code) code = check_header(&r, &idx, path, e);
    *document = *within = 0;
    if (!code) {
        const char *length = idx.data + HEADER_BYTES, *first = length + 12 * r.sequences,
                   *end = first + 8 * (r.documents + 1);
        int64_t sequence = 0, at = 0; /* the sequence that has the token, and its first token */
        while (sequence < r.sequences && at + read_i32(length + 4 * sequence) <= token)
            at += read_i32(length + 4 * sequence++);
        const char *next = first + 8; /* the first sequence of the document after */
        while (next + 8 < end && read_i64(next) <= sequence) next += 8;
        *document = (next - first) / 8 - 1;
        *within = token - at;
        for (int64_t i = read_i64(next - 8); i < sequence; i++) *within += read_i32(length + 4 * i);
    }
    input_close(&idx);
    mem_free(path);
    return code;
}

void indexed_close(indexed_reader *r) {
    input_close(&r->bin);
    mem_free(r->path);
    *r = (indexed_reader){.bin.data = ""};
}

void indexed_copy(const indexed_reader *r, int64_t at, int64_t count, int32_t *out) {
    const char *p = r->bin.data + at * r->token_bytes;
    if (r->token_bytes == 4) {
        memcpy(out, p, (size_t)count * 4);
        return;
    }
    for (int64_t i = 0; i < count; i++) out[i] = ((const uint16_t *)(const void *)p)[i];
}

/* The first of `count` tokens that is not in the vocabulary, or -1. */
static int64_t find_beyond(const indexed_reader *r, int64_t count, int64_t vocab_size) {
    const uint16_t *small = (const uint16_t *)(const void *)r->bin.data;
    const int32_t *large = (const int32_t *)(const void *)r->bin.data;
    for (int64_t i = 0; i < count; i++) {
        int64_t id = r->token_bytes == 2 ? small[i] : large[i];
        if (id < 0 || id >= vocab_size) return i;
    }
    return -1;
}

int indexed_check(const indexed_reader *r, int64_t most, int64_t vocab_size, error *e) {
    int64_t i = find_beyond(r, r->tokens < most ? r->tokens : most, vocab_size);
    if (i < 0) return 0;
    int32_t id;
    indexed_copy(r, i, 1, &id);
    return error_set(e, EXIT_CORRUPT,
                     "%s: token %lld is %d, and the vocabulary has %lld: not this tokenizer's file", r->path,
                     (long long)i, id, (long long)vocab_size);
}

void indexed_digest(const indexed_reader *r, int64_t most, char hex[33]) {
    int64_t count = r->tokens < most ? r->tokens : most;
    digest_text(XXH3_128bits_withSeed(r->bin.data, (size_t)(count * r->token_bytes), r->index), hex);
}

int indexed_create(indexed_writer *w, const char *prefix, const char *tokenizer, int64_t vocab_size,
                   error *e) {
    REQUIRE(!*tokenizer || strlen(tokenizer) == DIGEST_BYTES);
    *w = (indexed_writer){.prefix = mem_string(prefix), .token_bytes = vocab_size <= 65536 ? 2 : 4};
    snprintf(w->tokenizer, sizeof w->tokenizer, "%s", tokenizer);
    char *path = text_of("%s.bin", prefix);
    int code = output_open(&w->bin, path, e);
    mem_free(path);
    if (code) indexed_discard(w);
    return code;
}

void indexed_add(indexed_writer *w, const int32_t *ids, int64_t count) {
    REQUIRE(count < INT32_MAX);
    if (w->documents == w->room) {
        w->room = 2 * w->room + 1024;
        w->length = mem_grow(w->length, (size_t)w->room * sizeof *w->length, "an index of documents");
    }
    w->length[w->documents++] = (int32_t)count;
    w->tokens += count;
    if (w->token_bytes == 4) {
        output_write(&w->bin, ids, (size_t)count * 4);
        return;
    }
    uint16_t block[1024];
    for (int64_t i = 0, n = 0; i < count; i++) {
        block[n++] = (uint16_t)ids[i];
        if (n < 1024 && i + 1 < count) continue;
        output_write(&w->bin, block, (size_t)n * 2);
        n = 0;
    }
}

static void write_index(const indexed_writer *w, output *o) {
    unsigned char type = w->token_bytes == 4 ? TYPE_INT32 : TYPE_UINT16;
    int64_t version = VERSION, marks = w->documents + 1, at = 0;
    output_write(o, magic, sizeof magic);
    output_write(o, &version, sizeof version);
    output_write(o, &type, 1);
    output_write(o, &w->documents, sizeof w->documents);
    output_write(o, &marks, sizeof marks);
    output_write(o, w->length, (size_t)w->documents * sizeof *w->length);
    for (int64_t i = 0; i < w->documents; i++) {
        output_write(o, &at, sizeof at);
        at += (int64_t)w->length[i] * w->token_bytes;
    }
    for (int64_t i = 0; i < marks; i++) output_write(o, &i, sizeof i);
    if (!*w->tokenizer) return;
    output_write(o, made_by, sizeof made_by);
    output_write(o, w->tokenizer, DIGEST_BYTES);
}

int indexed_finish(indexed_writer *w, error *e) {
    if (output_finish(&w->bin, e)) return e->code;
    char *path = text_of("%s.idx", w->prefix);
    int code = output_open(&w->idx, path, e);
    mem_free(path);
    if (code) return code;
    write_index(w, &w->idx);
    return output_finish(&w->idx, e);
}

int indexed_commit(indexed_writer *w, error *e) {
    char *directory = parent_of(w->idx.path);
    /* an old index is gone for good before the .bin changes */
    int code = unlink(w->idx.path) == 0 ? sync_path(directory, e) : 0;
    mem_free(directory);
    if (code || output_commit(&w->bin, e) || output_commit(&w->idx, e)) return e->code;
    indexed_discard(w);
    return 0;
}

void indexed_discard(indexed_writer *w) {
    output_discard(&w->bin);
    output_discard(&w->idx);
    mem_free(w->length);
    mem_free(w->prefix);
    *w = (indexed_writer){0};
}

void indexed_remove(const char *prefix) {
    char *idx = text_of("%s.idx", prefix), *bin = text_of("%s.bin", prefix);
    unlink(idx);
    unlink(bin);
    mem_free(idx);
    mem_free(bin);
}
