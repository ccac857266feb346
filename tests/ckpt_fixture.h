/* What the tests of checkpoints share: a world of one rank in a directory of its own, and tensors to save. */
#ifndef CARACAL_TESTS_CKPT_FIXTURE_H
#define CARACAL_TESTS_CKPT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckpt/ckpt.h"
#include "ckpt/layout.h"
#include "launch/memory.h"
#include "launch/random.h"

/* ---- a world of one rank and a directory of its own ---- */

typedef struct fixture {
    comm *world;
    char root[64], path[128]; /* path: the checkpoints' directory */
    int kept[2];
    char captured[8192];
} fixture;

static inline int setup(void **state) {
    fixture *f = mem_alloc(sizeof *f, "a test");
    error e = {0};
    strcpy(f->root, "/tmp/caracal-ckpt-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    snprintf(f->path, sizeof f->path, "%s/run/checkpoints", f->root);
    assert_int_equal(comm_open(&f->world, 60, &e), 0);
    *state = f;
    return 0;
}

/* What is written to stdout and stderr until `restore` goes to f->captured. */
static inline void divert(fixture *f) {
    char path[128];
    snprintf(path, sizeof path, "%s/output", f->root);
    fflush(NULL);
    f->kept[0] = dup(1);
    f->kept[1] = dup(2);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    dup2(fd, 1);
    dup2(fd, 2);
    close(fd);
}

static inline void restore(fixture *f) {
    fflush(NULL);
    lseek(1, 0, SEEK_SET);
    ssize_t n = read(1, f->captured, sizeof f->captured - 1);
    f->captured[n > 0 ? n : 0] = 0;
    for (int i = 0; i < 2; i++) {
        dup2(f->kept[i], i + 1);
        close(f->kept[i]);
        f->kept[i] = 0;
    }
}

static inline int remove_entry(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s, (void)type, (void)at;
    return remove(path);
}

static inline int teardown(void **state) {
    fixture *f = *state;
    if (f->kept[0]) { /* a test failed on the way */
        restore(f);
        fputs(f->captured, stderr);
    }
    nftw(f->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    comm_close(f->world);
    mem_free(f);
    return 0;
}

/* ---- tensors ---- */

enum { MANY = 12, FEW = 40 };

/* Shapes that are cut in every way: whole, in the first dimension, inside a dimension, inside a row. */
static const ckpt_tensor many[MANY] = {
    {"weights/model.embed_tokens.weight", CKPT_F32, 2, {1031, 2048}},
    {"weights/model.norm.weight", CKPT_F32, 1, {7}},
    {"weights/one", CKPT_F32, 1, {1}},
    {"weights/stack", CKPT_F32, 3, {3, 5, 300001}},
    {"weights/rows", CKPT_F32, 2, {2, 1200007}},
    {"weights/four", CKPT_F32, 4, {2, 3, 4, 5}},
    {"adam_m/model.norm.weight", CKPT_F32, 1, {7}},
    {"adam_m/long", CKPT_F64, 1, {700000}},
    {"router/bias", CKPT_F64, 2, {4, 96}},
    {"router/counts", CKPT_I64, 2, {4, 96}},
    {"router/zero", CKPT_I64, 1, {100000}},
    {"top", CKPT_I64, 1, {3}},
};

typedef struct content {
    const ckpt_tensor *tensor;
    int64_t n;
    ckpt_slice *whole; /* one slice a tensor */
} content;

static inline void fill(void *data, const ckpt_tensor *t, int64_t seed) {
    uint64_t stream = random_stream(t->name);
    for (int64_t i = 0; i < ckpt_elements(t); i++) {
        uint64_t bits = random_bits((uint64_t)seed, stream, (uint64_t)i / 4) >> (i % 4 * 16) & 0xffff;
        double value = (double)bits / 32768 - 1;
        if (!strcmp(t->name, "router/zero")) value = 0;
        if (t->type == CKPT_F32) ((float *)data)[i] = (float)(value * value * value);
        else if (t->type == CKPT_F64) ((double *)data)[i] = value / 3;
        else ((int64_t *)data)[i] = (int64_t)(value * 1e15);
    }
}

static inline content content_new(const ckpt_tensor *tensor, int64_t n, int64_t seed) {
    content c = {tensor, n, mem_alloc((size_t)n * sizeof *c.whole, "slices")};
    for (int64_t i = 0; i < n; i++) {
        int64_t count = ckpt_elements(&tensor[i]);
        c.whole[i] =
            (ckpt_slice){i, 0, count, mem_alloc((size_t)count * ckpt_type_size(tensor[i].type), "a tensor")};
        fill(c.whole[i].data, &tensor[i], seed);
    }
    return c;
}

static inline void content_free(content *c) {
    for (int64_t i = 0; i < c->n; i++) mem_free(c->whole[i].data);
    mem_free(c->whole);
}

static ckpt_tensor few[FEW];
static char few_names[FEW][32];

/* A checkpoint of some 60 KB, quick to verify again and again. */
static inline content few_new(int64_t seed) {
    for (int i = 0; i < FEW; i++) {
        snprintf(few_names[i], sizeof few_names[i], "%s/tensor.%d", i % 2 ? "adam_v" : "weights", i);
        few[i] = (ckpt_tensor){few_names[i], i % 3, 2, {i + 1, 13}};
    }
    return content_new(few, FEW, seed);
}

static inline json_t *some_state(void) {
    return json_pack("{sisfs{sIss}s[iii]}", "tokens", 4096, "loss_scale", 1.0 / 3, "position", "sample",
                     (json_int_t)1 << 60, "digest", "ab\"c\\\n\xc3\xa9", "history", 3, 2, 1);
}

static inline int save(fixture *f, const content *c, int64_t step, int64_t shards, error *e) {
    json_t *state = some_state();
    int code = ckpt_save(f->world, f->path, step, shards, c->tensor, c->n, c->whole, c->n, state, e);
    json_decref(state);
    return code;
}

static inline void save_well(fixture *f, const content *c, int64_t step, int64_t shards) {
    error e = {0};
    if (save(f, c, step, shards, &e)) fail_msg("save failed: %s", e.text);
}

static inline char *step_file(const fixture *f, int64_t step, const char *name) {
    static char path[4][256]; /* a few may be in use at a time */
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, 256, "%s/step-%08lld%s%s", f->path, (long long)step, *name && *name != '.' ? "/" : "", name);
    return p;
}

static inline int exists(const char *path) {
    return access(path, F_OK) == 0;
}

static inline char *slurp(const char *path, size_t *bytes) {
    FILE *in = fopen(path, "rb");
    if (!in) fail_msg("%s: cannot be opened", path);
    fseek(in, 0, SEEK_END);
    *bytes = (size_t)ftell(in);
    rewind(in);
    char *data = mem_alloc(*bytes + 1, "a file");
    assert_int_equal(fread(data, 1, *bytes, in), *bytes);
    fclose(in);
    return data;
}

static inline void spill(const char *path, const char *data, size_t bytes) {
    FILE *out = fopen(path, "wb");
    if (!out) fail_msg("%s: cannot be written", path);
    assert_int_equal(fwrite(data, 1, bytes, out), bytes);
    fclose(out);
}

static inline void assert_same_file(const char *a, const char *b) {
    size_t an, bn;
    char *x = slurp(a, &an), *y = slurp(b, &bn);
    assert_int_equal(an, bn);
    assert_memory_equal(x, y, an);
    mem_free(x);
    mem_free(y);
}

/* Everything of a step is there and equal. */
static inline void assert_holds(fixture *f, int64_t step, const content *c) {
    ckpt *k = NULL;
    error e = {0};
    if (ckpt_open(f->world, step_file(f, step, ""), &k, &e)) fail_msg("%s", e.text);
    const ckpt_tensor *t;
    assert_int_equal(ckpt_tensors(k, &t), c->n);
    for (int64_t i = 0; i < c->n; i++) {
        int64_t at = ckpt_find(k, c->tensor[i].name), count = ckpt_elements(&c->tensor[i]);
        assert_int_equal(at, i);
        assert_string_equal(t[at].name, c->tensor[i].name);
        size_t bytes = (size_t)count * ckpt_type_size(t[at].type);
        ckpt_slice s = {at, 0, count, mem_alloc(bytes, "a tensor")};
        memset(s.data, 0xaa, bytes);
        if (ckpt_read(k, &s, 1, &e)) fail_msg("%s", e.text);
        assert_memory_equal(s.data, c->whole[i].data, bytes);
        mem_free(s.data);
    }
    json_t *state = some_state();
    assert_true(json_equal(state, ckpt_state(k)));
    json_decref(state);
    assert_int_equal(ckpt_step(k), step);
    ckpt_close(k);
}

/* Changes one bit. */
static inline void flip(const char *path, int64_t at) {
    FILE *io = fopen(path, "r+b");
    fseek(io, at, SEEK_SET);
    int c = fgetc(io);
    fseek(io, at, SEEK_SET);
    fputc(c ^ 16, io);
    fclose(io);
}

#endif
