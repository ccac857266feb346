/* Checkpoints on one rank: what is read is what was written, files are functions of their content alone, and
 * no damage, failure or leftover goes unnoticed.  Several ranks: tests/mpi_ckpt.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <hdf5.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "ckpt/chunk.h"
#include "ckpt/ckpt.h"
#include "ckpt/layout.h"
#include "ckpt/manifest.h"
#include "ckpt/verify.h"
#include "launch/memory.h"
#include "launch/random.h"

/* ---- a world of one rank and a directory of its own ---- */

typedef struct fixture {
    comm *world;
    char root[64], path[128]; /* path: the checkpoints' directory */
    int kept[2];
    char captured[8192];
} fixture;

static int setup(void **state) {
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
static void divert(fixture *f) {
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

static void restore(fixture *f) {
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

static int remove_entry(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s, (void)type, (void)at;
    return remove(path);
}

static int teardown(void **state) {
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
    {"adam_m/long", CKPT_F64, 1, {1500000}},
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

static void fill(void *data, const ckpt_tensor *t, int64_t seed) {
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

static content content_new(const ckpt_tensor *tensor, int64_t n, int64_t seed) {
    content c = {tensor, n, mem_alloc((size_t)n * sizeof *c.whole, "slices")};
    for (int64_t i = 0; i < n; i++) {
        int64_t count = ckpt_elements(&tensor[i]);
        c.whole[i] =
            (ckpt_slice){i, 0, count, mem_alloc((size_t)count * ckpt_type_size(tensor[i].type), "a tensor")};
        fill(c.whole[i].data, &tensor[i], seed);
    }
    return c;
}

static void content_free(content *c) {
    for (int64_t i = 0; i < c->n; i++) mem_free(c->whole[i].data);
    mem_free(c->whole);
}

static ckpt_tensor few[FEW];
static char few_names[FEW][32];

/* A checkpoint of some 60 KB, quick to verify again and again. */
static content few_new(int64_t seed) {
    for (int i = 0; i < FEW; i++) {
        snprintf(few_names[i], sizeof few_names[i], "%s/tensor.%d", i % 2 ? "adam_v" : "weights", i);
        few[i] = (ckpt_tensor){few_names[i], i % 3, 2, {i + 1, 13}};
    }
    return content_new(few, FEW, seed);
}

static json_t *some_state(void) {
    return json_pack("{sisfs{sIss}s[iii]}", "tokens", 4096, "loss_scale", 1.0 / 3, "position", "sample",
                     (json_int_t)1 << 60, "digest", "ab\"c\\\n\xc3\xa9", "history", 3, 2, 1);
}

static int save(fixture *f, const content *c, int64_t step, int64_t shards, error *e) {
    json_t *state = some_state();
    int code = ckpt_save(f->world, f->path, step, shards, c->tensor, c->n, c->whole, c->n, state, e);
    json_decref(state);
    return code;
}

static void save_well(fixture *f, const content *c, int64_t step, int64_t shards) {
    error e = {0};
    if (save(f, c, step, shards, &e)) fail_msg("save failed: %s", e.text);
}

static char *step_file(const fixture *f, int64_t step, const char *name) {
    static char path[4][256]; /* a few may be in use at a time */
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, 256, "%s/step-%08lld%s%s", f->path, (long long)step, *name && *name != '.' ? "/" : "", name);
    return p;
}

static int exists(const char *path) {
    return access(path, F_OK) == 0;
}

static char *slurp(const char *path, size_t *bytes) {
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

static void spill(const char *path, const char *data, size_t bytes) {
    FILE *out = fopen(path, "wb");
    if (!out) fail_msg("%s: cannot be written", path);
    assert_int_equal(fwrite(data, 1, bytes, out), bytes);
    fclose(out);
}

static void assert_same_file(const char *a, const char *b) {
    size_t an, bn;
    char *x = slurp(a, &an), *y = slurp(b, &bn);
    assert_int_equal(an, bn);
    assert_memory_equal(x, y, an);
    mem_free(x);
    mem_free(y);
}

/* Everything of a step is there and equal. */
static void assert_holds(fixture *f, int64_t step, const content *c) {
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

/* ---- tests ---- */

static void test_grid(void **state) {
    (void)state;
    static const int64_t size[] = {1, 2, 3, 5, 13, 1000, 1023, 4097, 1048576, 1048577, 3000000};
    for (int i = 0; i < 300; i++) {
        ckpt_tensor t = {"t", i % 3, 1 + i % 4, {1, 1, 1, 1}};
        for (int k = 0; k < t.rank; k++) {
            int64_t want = size[random_bits(1, (uint64_t)i, (uint64_t)k) % 11];
            t.shape[k] = ckpt_elements(&t) > ((int64_t)1 << 40) / want ? 1 : want;
        }
        chunk_grid g = chunk_grid_of(&t);
        int64_t bytes = g.full * (int64_t)ckpt_type_size(t.type), total = ckpt_elements(&t);
        assert_true(bytes <= CHUNK_BYTES);
        assert_true(g.chunks == 1 || bytes >= CHUNK_BYTES / 4);
        /* first, last and some chunks: neighbours meet, and their elements are found in them */
        for (int64_t k = 0; k < g.chunks; k += 1 + g.chunks / 17) {
            chunk_span s = chunk_at(&t, &g, k);
            assert_int_equal(chunk_holding(&g, s.offset), k);
            assert_int_equal(chunk_holding(&g, s.offset + s.count - 1), k);
            int64_t end = k + 1 < g.chunks ? chunk_at(&t, &g, k + 1).offset : total;
            assert_int_equal(s.offset + s.count, end);
            int64_t corner = 0;
            for (int d = 0; d < t.rank; d++) {
                assert_int_equal(s.corner[d] % g.chunk[d], 0);
                corner = corner * t.shape[d] + s.corner[d];
            }
            assert_int_equal(corner, s.offset);
        }
    }
}

static void test_assign(void **state) {
    (void)state;
    ckpt_tensor t[100];
    int64_t first[9], total = 0;
    for (int i = 0; i < 100; i++) {
        t[i] = (ckpt_tensor){"t", CKPT_F32, 1, {1 + (int64_t)(random_bits(2, 0, (uint64_t)i) % 1000)}};
        total += t[i].shape[0];
    }
    ckpt_assign(t, 100, 8, first);
    assert_int_equal(first[0], 0);
    assert_int_equal(first[8], 100);
    for (int f = 0; f < 8; f++) {
        int64_t n = 0;
        assert_true(first[f] <= first[f + 1]);
        for (int64_t i = first[f]; i < first[f + 1]; i++) n += t[i].shape[0];
        assert_true(llabs(n - total / 8) <= 1001);
    }
    ckpt_assign(t, 1, 3, first); /* more files than tensors */
    assert_true(first[3] == 1);
}

static void test_round_trip(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 1);
    save_well(f, &c, 200, 3);
    assert_holds(f, 200, &c);
    assert_true(exists(step_file(f, 200, "shard-00002.h5")));
    assert_false(exists(step_file(f, 200, "shard-00003.h5")));
    assert_false(exists(step_file(f, 200, ".tmp")));

    /* slices of all kinds, across chunks and runs */
    ckpt *k = NULL;
    error e = {0};
    assert_int_equal(ckpt_open(f->world, step_file(f, 200, ""), &k, &e), 0);
    for (uint64_t i = 0; i < 60; i++) {
        int64_t tensor = (int64_t)(i % MANY), n = ckpt_elements(&many[tensor]);
        size_t size = ckpt_type_size(many[tensor].type);
        int64_t low = (int64_t)(random_bits(3, 0, i) % (uint64_t)n), count = 1;
        count += (int64_t)(random_bits(3, 1, i) % (uint64_t)(n - low));
        ckpt_slice s = {tensor, low, count, mem_alloc((size_t)count * size, "a slice")};
        assert_int_equal(ckpt_read(k, &s, 1, &e), 0);
        assert_memory_equal(s.data, (char *)c.whole[tensor].data + (size_t)low * size, (size_t)count * size);
        mem_free(s.data);
    }
    assert_int_equal(ckpt_find(k, "weights/none"), -1);
    ckpt_close(k);
    content_free(&c);
}

/* A frame depends on its values alone, not on what its codec did before, and a short chunk ends with zeros.
 */
static void test_codec(void **state) {
    (void)state;
    error e = {0};
    enum { FULL = 5000 };
    for (size_t size = 4; size <= 8; size += 4) {
        unsigned char values[FULL * 8], first[FULL * 16];
        for (size_t i = 0; i < sizeof values; i++) values[i] = (unsigned char)(random_bits(5, size, i) % 7);
        for (int used = 0; used < 2; used++) {
            const void *frame, *back;
            chunk_codec *k = chunk_codec_new();
            if (used) chunk_encode(k, size, values, FULL - 1, FULL, &frame);
            size_t bytes = chunk_encode(k, size, values, 777, FULL, &frame);
            assert_true(bytes < sizeof first);
            if (used) assert_memory_equal(frame, first, bytes);
            memcpy(first, frame, bytes);
            assert_int_equal(chunk_decode(k, size, first, bytes, FULL, &back, &e), 0);
            assert_memory_equal(back, values, 777 * size);
            for (size_t i = 777 * size; i < FULL * size; i++) assert_int_equal(((const char *)back)[i], 0);
            assert_int_equal(chunk_decode(k, size, first, bytes, FULL - 1, &back, &e), EXIT_CORRUPT);
            assert_int_equal(chunk_decode(k, size, first, bytes, FULL + 1, &back, &e), EXIT_CORRUPT);
            assert_int_equal(chunk_decode(k, size, first, bytes - 1, FULL, &back, &e), EXIT_CORRUPT);
            chunk_codec_free(k);
        }
    }
}

static herr_t check_times(hid_t file, const char *name, const H5O_info_t *info, void *seen) {
    (void)file;
    if (info->atime || info->mtime || info->ctime || info->btime) fail_msg("%s has a time", name);
    ++*(int *)seen;
    return 0;
}

/* No clock in a file, not even one that stood still while two were written. */
static void test_no_times(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    int seen = 0;
    save_well(f, &c, 1, 1);
    hid_t file = H5Fopen(step_file(f, 1, "shard-00000.h5"), H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, check_times, &seen, H5O_INFO_TIME) >= 0);
    H5Fclose(file);
    assert_int_equal(seen, FEW + 3); /* two groups and the root */
    content_free(&c);
}

/* Equal content gives equal bytes, however it lies in memory and wherever it is written. */
static void test_same_bytes(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 2);
    save_well(f, &c, 1, 2);

    ckpt_slice piece[400];
    int64_t n = 0;
    for (int64_t i = 0; i < MANY; i++) {
        int64_t count = ckpt_elements(&many[i]), parts = count < 30 ? count : 30;
        size_t size = ckpt_type_size(many[i].type);
        for (int64_t k = 0; k < parts; k++) { /* unequal pieces, each in memory of its own */
            int64_t low = count * (k * k) / (parts * parts),
                    high = count * ((k + 1) * (k + 1)) / (parts * parts);
            piece[n] = (ckpt_slice){i, low, high - low, mem_alloc((size_t)(high - low) * size, "a piece")};
            memcpy(piece[n++].data, (char *)c.whole[i].data + (size_t)low * size,
                   (size_t)(high - low) * size);
        }
    }
    char other[256];
    error e = {0};
    snprintf(other, sizeof other, "%s/elsewhere", f->root);
    json_t *about = some_state();
    assert_int_equal(ckpt_save(f->world, other, 1, 2, many, MANY, piece, n, about, &e), 0);
    json_decref(about);
    static const char *const names[] = {"manifest.json", "shard-00000.h5", "shard-00001.h5"};
    for (int i = 0; i < 3; i++) {
        snprintf(other, sizeof other, "%s/elsewhere/step-00000001/%s", f->root, names[i]);
        assert_same_file(step_file(f, 1, names[i]), other);
    }
    for (int64_t i = 0; i < n; i++) mem_free(piece[i].data);
    content_free(&c);
}

/* Every bit of every file counts, and every file's length. */
static void test_damage(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    static const char *const names[] = {"manifest.json", "shard-00000.h5", "shard-00001.h5"};
    save_well(f, &c, 5, 2);
    for (uint64_t i = 0; i < 330; i++) {
        const char *name = names[i % 3], *path = step_file(f, 5, name);
        size_t bytes;
        char *good = slurp(path, &bytes), *bad = mem_alloc(bytes, "a damaged file");
        size_t at = random_bits(4, 0, i) % bytes, length = bytes;
        memcpy(bad, good, bytes);
        if (i < 300) bad[at] = (char)(bad[at] ^ 1 << (i / 3 % 8));
        else length = i < 303 ? 0 : i < 306 ? bytes - 1 : at; /* truncated */
        spill(path, bad, length);

        error e = {0};
        ckpt *k = NULL;
        assert_int_equal(ckpt_open(f->world, step_file(f, 5, ""), &k, &e), EXIT_CORRUPT);
        assert_null(k);
        if (!strstr(e.text, name)) fail_msg("%s is damaged, and the message is: %s", name, e.text);
        spill(path, good, bytes);
        mem_free(good);
        mem_free(bad);
    }
    assert_int_equal(unlink(step_file(f, 5, "shard-00001.h5")), 0);
    error e = {0};
    ckpt *k = NULL;
    assert_int_equal(ckpt_open(f->world, step_file(f, 5, ""), &k, &e), EXIT_IO);
    assert_non_null(strstr(e.text, "shard-00001.h5"));
    content_free(&c);
}

/* Where chunk `index` of a dataset lies in its file. */
static int64_t chunk_address(const char *path, const ckpt_tensor *t, int64_t index) {
    hsize_t corner[4], size;
    haddr_t address;
    unsigned mask;
    chunk_grid g = chunk_grid_of(t);
    chunk_span s = chunk_at(t, &g, index);
    for (int i = 0; i < 4; i++) corner[i] = (hsize_t)s.corner[i];
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), set = H5Dopen2(file, t->name, H5P_DEFAULT);
    assert_true(H5Dget_chunk_info_by_coord(set, corner, &mask, &address, &size) >= 0);
    H5Dclose(set);
    H5Fclose(file);
    return (int64_t)address + (int64_t)size / 2;
}

static void flip(const char *path, int64_t at) {
    FILE *io = fopen(path, "r+b");
    fseek(io, at, SEEK_SET);
    int c = fgetc(io);
    fseek(io, at, SEEK_SET);
    fputc(c ^ 16, io);
    fclose(io);
}

/* `caracal verify` names file, dataset and chunk. */
static void test_verify_names_the_chunk(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 3);
    char *argv[] = {"verify", NULL, NULL};
    save_well(f, &c, 8, 2);
    argv[1] = step_file(f, 8, "");
    char *path = step_file(f, 8, "shard-00000.h5");
    flip(path, chunk_address(path, &many[3], 4)); /* weights/stack */
    divert(f);
    int code = ckpt_verify_command(2, argv);
    restore(f);
    assert_int_equal(code, EXIT_CORRUPT);
    assert_non_null(strstr(f->captured, "shard-00000.h5"));
    assert_non_null(strstr(f->captured, "dataset /weights/stack, chunk 4 of"));

    /* damage that appears after opening is still seen, by the chunk's checksum */
    save_well(f, &c, 9, 2);
    ckpt *k = NULL;
    error e = {0};
    path = step_file(f, 9, "shard-00000.h5");
    assert_int_equal(ckpt_open(f->world, step_file(f, 9, ""), &k, &e), 0);
    flip(path, chunk_address(path, &many[3], 2));
    ckpt_slice s = c.whole[3];
    s.data = mem_alloc((size_t)s.count * 4, "a tensor");
    assert_int_equal(ckpt_read(k, &s, 1, &e), EXIT_CORRUPT);
    assert_non_null(strstr(e.text, "dataset /weights/stack, chunk 2 of"));
    mem_free(s.data);
    ckpt_close(k);

    save_well(f, &c, 10, 2);
    argv[1] = step_file(f, 10, "");
    divert(f);
    code = ckpt_verify_command(2, argv);
    code += ckpt_inspect_command(2, argv);
    restore(f);
    assert_int_equal(code, 0);
    assert_non_null(strstr(f->captured, "step 10 verifies: 12 tensors in 2 files"));
    assert_non_null(strstr(f->captured, "weights/model.embed_tokens.weight"));
    assert_non_null(strstr(f->captured, "1152921504606846976")); /* the state */
    assert_null(strstr(f->captured, "caracal:"));
    content_free(&c);
}

static void test_newest(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    error e = {0};
    ckpt *k = (ckpt *)f;
    assert_int_equal(ckpt_newest(f->world, f->path, &k, &e), 0); /* no such directory */
    assert_null(k);
    for (int64_t step = 1; step <= 4; step++) save_well(f, &c, step, 2);
    flip(step_file(f, 4, "shard-00001.h5"), 3000);
    assert_int_equal(unlink(step_file(f, 3, "manifest.json")), 0);
    char *unfinished = step_file(f, 9, ".tmp"); /* whole, but never renamed */
    save_well(f, &c, 9, 2);
    assert_int_equal(rename(step_file(f, 9, ""), unfinished), 0);

    divert(f);
    int code = ckpt_newest(f->world, f->path, &k, &e);
    restore(f);
    assert_int_equal(code, 0);
    assert_non_null(k);
    assert_int_equal(ckpt_step(k), 2);
    assert_non_null(strstr(ckpt_path(k), "step-00000002"));
    assert_non_null(strstr(f->captured, "step-00000004/shard-00001.h5"));
    assert_non_null(strstr(f->captured, "step-00000003"));
    ckpt_close(k);

    flip(step_file(f, 2, "shard-00001.h5"), 3000);
    flip(step_file(f, 1, "manifest.json"), 300);
    divert(f);
    code = ckpt_newest(f->world, f->path, &k, &e);
    restore(f);
    assert_int_equal(code, EXIT_CORRUPT); /* not: start from nothing */
    assert_null(k);
    content_free(&c);
}

/* A manifest that a newer program wrote: whole, and not ours to read. */
static void test_newer_version(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    size_t bytes;
    error e = {0};
    ckpt *k = NULL;
    save_well(f, &c, 1, 1);
    save_well(f, &c, 2, 1);
    char *path = step_file(f, 2, "manifest.json"), *text = slurp(path, &bytes);
    char *version = strstr(text, "\"version\": 1"), *digest = strstr(text, "\"digest\": \"");
    for (char *next = digest; next; next = strstr(next + 1, "\"digest\": \"")) digest = next; /* the last */
    version[strlen("\"version\": ")] = '2';
    XXH128_hash_t h = XXH3_128bits(text, (size_t)(digest - text));
    snprintf(digest, bytes - (size_t)(digest - text) + 1, "\"digest\": \"%016llx%016llx\"\n}\n",
             (unsigned long long)h.high64, (unsigned long long)h.low64);
    spill(path, text, bytes);
    mem_free(text);
    assert_int_equal(ckpt_open(f->world, step_file(f, 2, ""), &k, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "newer"));
    assert_non_null(strstr(e.text, "manifest.json"));
    assert_int_equal(ckpt_newest(f->world, f->path, &k, &e), EXIT_USAGE); /* an older one would hide it */
    assert_null(k);
    content_free(&c);
}

static void test_retention(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    error e = {0};
    checkpoint_config config = {.keep = 2, .keep_every = 40};
    for (int64_t step = 10; step <= 90; step += 10) save_well(f, &c, step, 2);
    assert_int_equal(unlink(step_file(f, 20, "manifest.json")), 0); /* incomplete */
    flip(step_file(f, 30, "manifest.json"), 300);                   /* damaged */
    assert_int_equal(unlink(step_file(f, 90, "manifest.json")), 0); /* does not count as kept */
    spill(step_file(f, 50, "notes.txt"), "mine", 4);
    char strange[256];
    snprintf(strange, sizeof strange, "%s/step-00000010-copy", f->path);
    assert_int_equal(mkdir(strange, 0777), 0);

    assert_int_equal(ckpt_retain(f->path, &config, &e), 0);
    static const int there[] = {0, 1, 1, 1, 1, 0, 1, 1, 1}; /* 10, 20, ... 90 */
    for (int i = 0; i < 9; i++) {
        char *path = step_file(f, 10 * (i + 1), "");
        if (exists(path) != there[i]) fail_msg("%s: %s", path, there[i] ? "is gone" : "is still there");
        assert_false(exists(step_file(f, 10 * (i + 1), ".tmp")));
    }
    assert_true(exists(step_file(f, 50, "notes.txt")));
    assert_false(exists(step_file(f, 50, "shard-00000.h5")));
    assert_true(exists(step_file(f, 20, "shard-00000.h5")));
    assert_true(exists(step_file(f, 30, "shard-00000.h5")));
    assert_true(exists(strange));
    assert_holds(f, 40, &c);
    assert_holds(f, 70, &c);
    assert_holds(f, 80, &c);
    content_free(&c);
}

/* A disk that is full at any point: the save fails, says where and why, leaves nothing behind and nothing
 * lost. */
static void test_full_disk(void **state) {
    fixture *f = *state;
    content c = few_new(1), changed = few_new(2);
    size_t whole;
    save_well(f, &c, 1, 1);
    mem_free(slurp(step_file(f, 1, "shard-00000.h5"), &whole));
    struct rlimit old, limit;
    getrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t part = 0; part < 24; part++) {
        error e = {0};
        limit = old;
        limit.rlim_cur = whole * part / 24;
        setrlimit(RLIMIT_FSIZE, &limit);
        int code = save(f, &changed, 1 + (int64_t)(part % 2), 1, &e); /* over the old one, and beside it */
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(code, EXIT_IO);
        assert_non_null(strstr(e.text, f->path));
        if (!strstr(e.text, "File too large")) fail_msg("no reason given: %s", e.text);
        assert_false(exists(step_file(f, 1, ".tmp")));
        assert_false(exists(step_file(f, 2, ".tmp")));
        assert_false(exists(step_file(f, 2, "")));
        assert_holds(f, 1, &c);
    }
    save_well(f, &changed, 2, 1); /* and when there is room again, all is well */
    assert_holds(f, 2, &changed);
    content_free(&c);
    content_free(&changed);
}

static void test_bad_places(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    error e = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/run", f->root);
    spill(path, "a file", 6);
    assert_int_equal(save(f, &c, 1, 1, &e), EXIT_IO);
    assert_non_null(strstr(e.text, "Not a directory"));
    assert_non_null(strstr(e.text, f->root));
    unlink(path);

    save_well(f, &c, 1, 1);
    spill(step_file(f, 2, ".tmp"), "a file", 6);
    e = (error){0};
    assert_int_equal(save(f, &c, 2, 1, &e), EXIT_IO);
    assert_non_null(strstr(e.text, "step-00000002.tmp"));
    unlink(step_file(f, 2, ".tmp"));

    assert_int_equal(symlink("/dev/full", step_file(f, 1, "shard-00001.h5")),
                     0); /* unrelated to the manifest */
    assert_holds(f, 1, &c);
    content_free(&c);
}

/* A step that exists already: an intact one is replaced, a damaged one is kept aside. */
static void test_same_step_again(void **state) {
    fixture *f = *state;
    content c = few_new(1), changed = few_new(2);
    save_well(f, &c, 7, 2);
    divert(f);
    save_well(f, &changed, 7, 2);
    restore(f);
    assert_string_equal(f->captured, "");
    assert_holds(f, 7, &changed);
    assert_false(exists(step_file(f, 7, ".replaced")));
    for (int i = 1; i <= 2; i++) {
        flip(step_file(f, 7, "shard-00001.h5"), 5000);
        divert(f);
        save_well(f, &c, 7, 2);
        restore(f);
        assert_non_null(strstr(f->captured, "step-00000007.damaged"));
        assert_holds(f, 7, &c);
        assert_true(
            exists(step_file(f, 7, i == 1 ? ".damaged/shard-00001.h5" : ".damaged-2/shard-00001.h5")));
    }
    content_free(&c);
    content_free(&changed);
}

/* What a killed save leaves is never loaded, and the next save clears it away. */
static void test_leftovers(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    for (int64_t step = 3; step <= 5; step++) save_well(f, &c, step, 2);
    for (int64_t step = 3; step <= 5; step++)
        assert_int_equal(rename(step_file(f, step, ""), step_file(f, step, ".tmp")), 0);
    unlink(step_file(f, 4, ".tmp/manifest.json"));
    spill(step_file(f, 4, ".tmp/manifest.json.tmp"), "{", 1);
    spill(step_file(f, 5, ".tmp/notes.txt"), "mine", 4);
    save_well(f, &c, 4, 1);
    assert_false(exists(step_file(f, 3, ".tmp")));
    assert_false(exists(step_file(f, 4, ".tmp")));
    assert_false(exists(step_file(f, 4, "shard-00001.h5")));
    assert_false(exists(step_file(f, 5, ".tmp/manifest.json")));
    assert_true(exists(step_file(f, 5, ".tmp/notes.txt")));
    assert_holds(f, 4, &c);
    content_free(&c);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(grid),       TEST(assign),          TEST(round_trip), TEST(no_times),
        TEST(same_bytes), TEST(codec),           TEST(damage),     TEST(verify_names_the_chunk),
        TEST(newest),     TEST(newer_version),   TEST(retention),  TEST(full_disk),
        TEST(bad_places), TEST(same_step_again), TEST(leftovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
