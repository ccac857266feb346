/* safetensors: files of ours and of others come back as they were, and a damaged or hostile header is an
 * error that names the file and the tensor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <glob.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "ckpt/safetensors.h"
#include "launch/memory.h"
#include "launch/random.h"

static const char path[] = "model.safetensors"; /* in a directory of its own */

typedef struct fixture {
    char home[4096], root[64];
} fixture;

static int setup(void **state) {
    fixture *f = mem_alloc(sizeof *f, "a test");
    strcpy(f->root, "/tmp/caracal-safetensors-XXXXXX");
    assert_non_null(getcwd(f->home, sizeof f->home));
    assert_non_null(mkdtemp(f->root));
    assert_int_equal(chdir(f->root), 0);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    unlink(path);
    assert_int_equal(chdir(f->home), 0);
    assert_int_equal(rmdir(f->root), 0); /* nothing else was left there */
    mem_free(f);
    return 0;
}

static float bits_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static uint32_t float_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

/* ---- what is written is read ---- */

enum { COUNT = 70001 };

static void test_round_trip(void **state) {
    (void)state;
    const safetensor_spec specs[] = {{"b.weight", "F32", 2, {7, COUNT / 7}},
                                     {"a \"quoted\" \xc3\xa9", "BF16", 1, {COUNT / 7 * 7}},
                                     {"scalar", "F32", 0, {0}},
                                     {"empty", "F32", 2, {3, 0}}};
    error e = {0};
    safetensors_writer *w = NULL;
    int64_t n = COUNT / 7 * 7;
    float *x = mem_alloc((size_t)n * 4, "values"), *y = mem_alloc((size_t)n * 4, "values");
    for (int64_t i = 0; i < n; i++) { /* every kind of number, ties included */
        x[i] = bits_float((uint32_t)random_bits(1, (uint64_t)i, 0) << (i % 3 * 8));
        if (isnan(x[i])) x[i] = 1;
    }
    assert_int_equal(safetensors_create(&w, path, specs, 4, &e), 0);
    for (int tensor = 0; tensor < 2; tensor++)
        for (int64_t at = 0, step = 1; at < n; at += step, step = step * 3 + 1) /* in pieces */
            assert_int_equal(safetensors_append(w, x + at, step < n - at ? step : n - at, &e), 0);
    assert_int_equal(safetensors_append(w, x, 1, &e), 0);
    assert_int_equal(access(path, F_OK), -1); /* not before it is whole */
    assert_int_equal(safetensors_finish(w, 0, &e), 0);

    safetensors s;
    if (safetensors_open(&s, path, &e)) fail_msg("%s", e.text);
    assert_int_equal(s.n, 4);
    for (int64_t i = 1; i < s.n; i++) assert_true(strcmp(s.tensor[i - 1].name, s.tensor[i].name) < 0);
    const safetensor *b = safetensors_find(&s, "b.weight"), *a = safetensors_find(&s, specs[1].name);
    assert_non_null(a);
    assert_non_null(b);
    assert_null(safetensors_find(&s, "b"));
    assert_string_equal(a->dtype, "BF16");
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->shape[1], COUNT / 7);
    assert_int_equal(b->count, n);
    assert_int_equal(((uintptr_t)b->data - (uintptr_t)s.map) % 8, 0);
    assert_int_equal(safetensors_read_f32(b, 0, n, y, &e), 0);
    assert_memory_equal(x, y, (size_t)n * 4);
    assert_int_equal(safetensors_read_f32(b, 1000, 5, y, &e), 0);
    assert_memory_equal(x + 1000, y, 5 * 4);
    assert_int_equal(safetensors_read_f32(a, 0, n, y, &e), 0);
    for (int64_t i = 0; i < n; i++) {
        /* bf16 is float32 with 16 bits fewer: the nearest, and of two the even one */
        uint32_t whole = float_bits(x[i]), got = float_bits(y[i]), low = whole & 0xffff, want = whole - low;
        if (low > 0x8000 || (low == 0x8000 && want & 0x10000)) want += 0x10000;
        if (got != want) fail_msg("element %lld: %a became %a", (long long)i, x[i], y[i]);
    }
    assert_int_equal(safetensors_find(&s, "scalar")->count, 1);
    assert_int_equal(safetensors_find(&s, "empty")->count, 0);
    safetensors_close(&s);
    mem_free(x);
    mem_free(y);
}

/* Not a number stays not a number, however few of its bits bf16 keeps. */
static void test_not_a_number(void **state) {
    (void)state;
    const safetensor_spec spec = {"t", "BF16", 1, {5}};
    const float x[5] = {bits_float(0x7f800001), bits_float(0xffc00000), INFINITY, -INFINITY,
                        bits_float(0x7f7fffff)};
    float y[5];
    error e = {0};
    safetensors_writer *w;
    safetensors s;
    assert_int_equal(safetensors_create(&w, path, &spec, 1, &e), 0);
    assert_int_equal(safetensors_append(w, x, 5, &e), 0);
    assert_int_equal(safetensors_finish(w, 0, &e), 0);
    assert_int_equal(safetensors_open(&s, path, &e), 0);
    assert_int_equal(safetensors_read_f32(&s.tensor[0], 0, 5, y, &e), 0);
    assert_true(isnan(y[0]) && isnan(y[1]));
    assert_true(y[2] == INFINITY && y[3] == -INFINITY && y[4] == INFINITY);
    safetensors_close(&s);
}

/* A file that was not completed never appears, and the one before it stays. */
static void test_abandoned(void **state) {
    (void)state;
    const safetensor_spec specs[] = {{"t", "F32", 1, {5}}, {"u", "F32", 1, {50000}}};
    float *x = mem_alloc(50000 * 4, "values");
    error e = {0};
    safetensors_writer *w;
    safetensors s;
    struct rlimit old, limit;
    x[0] = 3;
    assert_int_equal(safetensors_create(&w, path, specs, 1, &e), 0);
    assert_int_equal(safetensors_append(w, x, 5, &e), 0);
    assert_int_equal(safetensors_finish(w, 0, &e), 0);

    assert_int_equal(safetensors_create(&w, path, specs, 2, &e), 0);
    assert_int_equal(safetensors_append(w, x, 5, &e), 0);
    assert_int_equal(safetensors_finish(w, 0, &e), EXIT_IO); /* u is missing */
    assert_non_null(strstr(e.text, path));
    assert_int_equal(safetensors_create(&w, path, specs, 2, &e), 0);
    assert_int_equal(safetensors_finish(w, 1, &e), 0);

    getrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_IGN);
    limit = old;
    limit.rlim_cur = 4096; /* a full disk */
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_int_equal(safetensors_create(&w, path, specs, 2, &e), 0);
    assert_int_equal(safetensors_append(w, x, 5, &e), 0);
    int code = safetensors_append(w, x, 50000, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(code, EXIT_IO);
    assert_non_null(strstr(e.text, "File too large"));
    assert_int_equal(safetensors_finish(w, 1, &e), 0);
    assert_int_equal(safetensors_create(&w, "no/such/place", specs, 1, &e), EXIT_IO);

    assert_int_equal(safetensors_open(&s, path, &e), 0);
    assert_int_equal(s.n, 1);
    safetensors_close(&s);
    mem_free(x);
}

/* ---- files of others ---- */

/* A file of this header and so many bytes of data: 0, 1, 2 ... */
static void put_file(const char *header, uint64_t says, size_t data) {
    FILE *out = fopen(path, "wb");
    for (int i = 0; i < 8; i++) fputc((int)(says >> (8 * i) & 255), out);
    fwrite(header, 1, strlen(header), out);
    for (size_t i = 0; i < data; i++) fputc((int)(i & 255), out);
    fclose(out);
}

static void test_types(void **state) {
    (void)state;
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"h\":{\"dtype\":\"F16\",\"shape\":[7],\"data_offsets\":[1,15]},"
                                 "\"b\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1]},"
                                 "\"d\":{\"shape\":[2],\"data_offsets\":[15,31],\"dtype\":\"F64\"}}   ";
    static const uint16_t half[7] = {0x3c00, 0xc500, 0x0001, 0x83ff, 0x7bff, 0xfc00, 0x7e01};
    static const float want[6] = {1, -5, 0x1p-24f, -1023 * 0x1p-24f, 65504, -INFINITY};
    const double doubles[2] = {1.0 / 3, 1e300};
    float y[7];
    error e = {0};
    safetensors s;
    put_file(header, strlen(header), 31);
    FILE *io = fopen(path, "r+b"); /* the data begins at an odd address */
    fseek(io, (long)(8 + strlen(header) + 1), SEEK_SET);
    fwrite(half, 2, 7, io);
    fwrite(doubles, 8, 2, io);
    fclose(io);
    if (safetensors_open(&s, path, &e)) fail_msg("%s", e.text);
    assert_int_equal(s.n, 3);
    assert_int_equal(safetensors_read_f32(safetensors_find(&s, "h"), 0, 7, y, &e), 0);
    for (int i = 0; i < 6; i++) assert_true(y[i] == want[i]);
    assert_true(isnan(y[6]));
    assert_int_equal(safetensors_read_f32(safetensors_find(&s, "d"), 0, 2, y, &e), 0);
    assert_true(y[0] == 1.0f / 3 && y[1] == INFINITY);
    assert_int_equal(safetensors_read_f32(safetensors_find(&s, "b"), 0, 1, y, &e), EXIT_CORRUPT);
    assert_non_null(strstr(e.text, "BOOL"));
    safetensors_close(&s);
}

#define T(shape, offsets) "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_damaged(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *says;
    } bad[] = {
        {"{\"t\":" T("[2]", "[0,8]") "}", 7, "t: its data lies outside"},
        {"{\"t\":" T("[2]", "[0,8]") "}", 9, "the last 1 bytes belong to no tensor"},
        {"{\"t\":" T("[2]", "[4,12]") "}", 12, "before t belong to no tensor"},
        {"{\"t\":" T("[2]", "[0,8]") ",\"u\":" T("[2]", "[4,12]") "}", 12, "u: overlaps"},
        {"{\"t\":" T("[2]", "[0,8]") ",\"u\":" T("[2]", "[0,8]") "}", 8, "overlaps"},
        {"{\"t\":" T("[2]", "[0,8]") ",\"t\":" T("[2]", "[8,16]") "}", 16, "duplicate"},
        {"{\"t\":" T("[3]", "[0,8]") "}", 8, "t: its data is not of the size"},
        {"{\"t\":" T("[2]", "[8,0]") "}", 8, "t: its data lies outside"},
        {"{\"t\":" T("[2]", "[-8,0]") "}", 8, "t: its data lies outside"},
        {"{\"t\":" T("[-2,-1]", "[0,8]") "}", 8, "t: its shape"},
        {"{\"t\":" T("[2.0]", "[0,8]") "}", 8, "t: its shape"},
        {"{\"t\":" T("2", "[0,8]") "}", 8, "t: its shape"},
        {"{\"t\":" T("[4294967296,4294967296]", "[0,0]") "}", 0, "t: its shape overflows"},
        {"{\"t\":" T("[4611686018427387904]", "[0,0]") "}", 0, "t: its data is not of the size"},
        {"{\"t\":" T("[2,1,1,1,1,1,1,1,1]", "[0,8]") "}", 8, "t: it has more than 8"},
        {"{\"t\":" T("[2]", "[0]") "}", 8, "t: its entry"},
        {"{\"t\":" T("[2]", "[0,8,8]") "}", 8, "t: its entry"},
        {"{\"t\":" T("[2]", "[0,18446744073709551624]") "}", 8, "its header is not a JSON object"},
        {"{\"t\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "t: its dtype"},
        {"{\"t\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "t: its entry"},
        {"{\"t\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "t: its entry"},
        {"{\"t\":5}", 0, "t: its entry"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__"},
        {"[1]", 0, "not a JSON object"},
        {"{\"t\":", 8, "not a JSON object"},
        {"{\"\xff\xfe\":" T("[2]", "[0,8]") "}", 8, "not a JSON object"},
        {"{\"a\\u0000b\":" T("[2]", "[0,8]") "}", 8, "not a JSON object"},
        {"{} {}", 0, "not a JSON object"},
        {"", 0, "not a JSON object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        error e = {0};
        safetensors s;
        put_file(bad[i].header, strlen(bad[i].header), bad[i].data);
        int code = safetensors_open(&s, path, &e);
        if (code != EXIT_CORRUPT || !strstr(e.text, bad[i].says) || !strstr(e.text, path))
            fail_msg("%s\n  gave %d: %s\n  wanted: %s", bad[i].header, code, e.text, bad[i].says);
        assert_null(s.map);
        assert_null(s.tensor);
    }
}

/* A header that claims to be longer than the file, and a file that ends early. */
static void test_header_length(void **state) {
    (void)state;
    static const char header[] = "{\"t\":" T("[2]", "[0,8]") "}";
    const uint64_t n = strlen(header),
                   says[] = {n + 9, n + 1000, 1ull << 40, UINT64_MAX, 1ull << 63, 0, n - 1, n + 8};
    safetensors s;
    for (size_t i = 0; i < sizeof says / sizeof *says; i++) {
        error e = {0};
        put_file(header, says[i], 8);
        assert_int_equal(safetensors_open(&s, path, &e), EXIT_CORRUPT);
        assert_non_null(strstr(e.text, path));
    }
    for (int64_t length = (int64_t)n + 15; length >= 0; length--) {
        error e = {0};
        put_file(header, n, 8);
        assert_int_equal(truncate(path, length), 0);
        assert_int_equal(safetensors_open(&s, path, &e), EXIT_CORRUPT);
        assert_non_null(strstr(e.text, path));
    }
    error e = {0};
    assert_int_equal(safetensors_open(&s, "no/such/file", &e), EXIT_IO);
    assert_int_equal(safetensors_open(&s, "/", &e), EXIT_IO);
    assert_string_equal(e.text, "/: cannot be opened: Is a directory");
    put_file(header, n, 8);
    assert_int_equal(safetensors_open(&s, path, &e), 0); /* and whole it is fine */
    safetensors_close(&s);
}

/* Files that the reference implementation wrote. */
static void test_golden(void **state) {
    const fixture *f = *state;
    char pattern[4200];
    glob_t files;
    snprintf(pattern, sizeof pattern, "%s/tests/golden/*/*.safetensors", f->home);
    assert_int_equal(glob(pattern, 0, NULL, &files), 0);
    assert_true(files.gl_pathc >= 12);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        error e = {0};
        safetensors s;
        if (safetensors_open(&s, files.gl_pathv[i], &e)) fail_msg("%s", e.text);
        assert_true(s.n > 0);
        for (int64_t k = 0; k < s.n; k++) {
            const safetensor *t = &s.tensor[k];
            float *x = mem_alloc((size_t)t->count * 4, "a tensor");
            if (safetensors_read_f32(t, 0, t->count, x, &e)) fail_msg("%s", e.text);
            double sum = 0;
            for (int64_t j = 0; j < t->count; j++) sum += fabs((double)x[j]);
            if (!isfinite(sum)) fail_msg("%s: %s is not finite", files.gl_pathv[i], t->name);
            if (strstr(t->name, "norm.weight") && strstr(files.gl_pathv[i], "/model.safetensors") && sum == 0)
                fail_msg("%s: %s is zero", files.gl_pathv[i], t->name);
            mem_free(x);
        }
        safetensors_close(&s);
    }
    globfree(&files);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(round_trip), TEST(not_a_number),  TEST(abandoned), TEST(types),
        TEST(damaged),    TEST(header_length), TEST(golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
