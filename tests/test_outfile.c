/* A file on its way to the disk: whatever is written where and in which order, with memory, with too little
 * of it and without, the file has the bytes, the digest is theirs, and the disk has them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "ckpt/outfile.h"
#include "launch/files.h"
#include "launch/memory.h"
#include "launch/random.h"
#include "tests/synced.h"

enum { MOST = 24 << 20 };

typedef struct fixture {
    char directory[64], path[80];
    arena memory;
    char *wanted; /* [MOST] */
    size_t end;
} fixture;

static int setup(void **state) {
    fixture *f = mem_alloc(sizeof *f, "a fixture");
    snprintf(f->directory, sizeof f->directory, "/tmp/caracal-outfile-XXXXXX");
    if (!mkdtemp(f->directory)) return -1;
    snprintf(f->path, sizeof f->path, "%s/file", f->directory);
    f->memory = arena_create("an image", MOST);
    f->wanted = mem_alloc(MOST, "what is wanted");
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    unlink(f->path);
    rmdir(f->directory);
    arena_destroy(&f->memory);
    mem_free(f->wanted);
    mem_free(f);
    return 0;
}

static outfile *create(fixture *f, char *image) {
    outfile *out;
    error e = {0};
    memset(f->memory.base, 0x5a, MOST); /* not zero: what it holds must not show */
    memset(f->wanted, 0, MOST);
    f->end = 0;
    synced_forget();
    if (outfile_create(&out, f->path, image, &e)) fail_msg("%s", e.text);
    return out;
}

static void write_bytes(fixture *f, outfile *out, size_t at, size_t bytes, uint64_t seed) {
    for (size_t i = 0; i < bytes; i += 61) f->wanted[at + i] = (char)random_bits(seed, at, i);
    outfile_write(out, at, f->wanted + at, bytes);
    if (at + bytes > f->end) f->end = at + bytes;
    assert_int_equal(outfile_size(out), f->end);
}

static void assert_reads(const fixture *f, outfile *out, size_t at, size_t bytes) {
    char *there = mem_alloc(bytes, "what is read");
    outfile_read(out, at, there, bytes);
    assert_memory_equal(there, f->wanted + at, bytes);
    mem_free(there);
}

static void assert_finishes(const fixture *f, outfile *out) {
    int64_t bytes;
    XXH128_hash_t digest;
    error e = {0};
    char *data;
    size_t size;
    if (outfile_finish(out, &bytes, &digest, &e)) fail_msg("%s", e.text);
    assert_int_equal(bytes, f->end);
    assert_true(synced(f->path));
    assert_true(XXH128_isEqual(digest, XXH3_128bits(f->wanted, f->end)));
    assert_int_equal(read_file(f->path, &data, &size, &e), 0);
    assert_int_equal(size, f->end);
    assert_memory_equal(data, f->wanted, size);
    mem_free(data);
}

/* Appends of all sizes with holes between, which are filled later or never, and changes of what went to the
 * disk long ago: as HDF5 writes, and worse. */
static void scribble(fixture *f, outfile *out, uint64_t seed) {
    for (uint64_t i = 0; f->end < MOST - (3 << 20); i++) {
        size_t bytes = 1 + random_bits(seed, 0, i) % (i % 3 ? 3000 : 2 << 20);
        size_t hole = i % 4 ? 0 : random_bits(seed, 1, i) % 9000;
        write_bytes(f, out, f->end + hole, bytes, seed);
        if (i % 5) continue;
        size_t at = random_bits(seed, 2, i) % f->end;
        write_bytes(f, out, at, 1 + random_bits(seed, 3, i) % 5000, seed + i); /* now and then past the end */
        assert_reads(f, out, at / 2, 10000);
    }
    outfile_resize(out, f->end += 777);
    for (size_t at = 0; at < f->end - 100; at += f->end / 40) write_bytes(f, out, at, 100, seed + 1);
}

static void test_memory(void **state) {
    fixture *f = *state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        outfile *out = create(f, f->memory.base);
        outfile_allow(out, MOST);
        scribble(f, out, seed);
        outfile_seal(out);
        assert_int_equal(outfile_held(out), f->end);
        assert_finishes(f, out);
    }
}

static void test_no_memory(void **state) {
    fixture *f = *state;
    outfile *out = create(f, NULL);
    scribble(f, out, 5);
    outfile_seal(out);
    assert_int_equal(outfile_held(out), 0);
    assert_finishes(f, out);
}

/* It grows while the file does, and then not fast enough; what lies behind it is somebody else's. */
static void test_little_memory(void **state) {
    fixture *f = *state;
    static const size_t rooms[] = {0, 1, 5000, 4 << 20, (4 << 20) + 1, 11111111};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        outfile *out = create(f, f->memory.base);
        outfile_allow(out, rooms[i] / 2);
        if (rooms[i] > 1) write_bytes(f, out, 1, rooms[i] / 2 - 1, i);
        outfile_allow(out, rooms[i]);
        scribble(f, out, 6 + i);
        const char *rest = f->memory.base + rooms[i];
        assert_true(*rest == 0x5a && !memcmp(rest, rest + 1, MOST - rooms[i] - 1));
        assert_int_equal(outfile_held(out), 0);
        assert_finishes(f, out);
    }
}

static void test_shorter(void **state) {
    fixture *f = *state;
    static const size_t sizes[] = {0, 100, (8 << 20) - 5, (9 << 20) - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        outfile *out = create(f, f->memory.base);
        outfile_allow(out, MOST);
        write_bytes(f, out, 0, 9 << 20, i);
        outfile_resize(out, f->end = sizes[i]);
        memset(f->wanted + f->end, 0, MOST - f->end);
        write_bytes(f, out, f->end + 10, 5, i);
        outfile_seal(out);
        assert_int_equal(outfile_held(out), f->end);
        assert_finishes(f, out);
    }
}

/* The disk fails at some byte, or the file is given up: it says so once, at the end, and nothing hangs. */
static void test_failure(void **state) {
    fixture *f = *state;
    struct rlimit old, limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    for (int with = 0; with < 2; with++) {
        for (rlim_t most = 0; most < 20 << 20; most += 5 << 20) {
            int64_t bytes;
            XXH128_hash_t digest;
            error e = {0};
            limit = old;
            limit.rlim_cur = most;
            outfile *out = create(f, with ? f->memory.base : NULL);
            outfile_allow(out, MOST);
            setrlimit(RLIMIT_FSIZE, &limit);
            for (int i = 0; i < 20; i++) write_bytes(f, out, f->end, 1 << 20, 1);
            int code = outfile_finish(out, &bytes, &digest, &e);
            setrlimit(RLIMIT_FSIZE, &old);
            assert_int_equal(code, EXIT_IO);
            assert_non_null(strstr(e.text, "/file: cannot be written: File too large"));
        }
    }
    error e = {0};
    outfile *out = create(f, f->memory.base);
    outfile_cancel(out);
    outfile_write(out, 0, "abc", 3);
    assert_int_equal(outfile_failure(out), ECANCELED);
    assert_int_equal(outfile_finish(out, NULL, NULL, &e), EXIT_IO);
    char nowhere[100];
    snprintf(nowhere, sizeof nowhere, "%s/none/file", f->directory);
    assert_int_equal(outfile_create(&out, nowhere, f->memory.base, &e), EXIT_IO);
    assert_non_null(strstr(e.text, "/none/file: cannot be created: No such file"));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(memory), TEST(no_memory), TEST(little_memory), TEST(shorter), TEST(failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
