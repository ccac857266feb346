/* Directories of safetensors files: what is written is read, and files and index that do not agree are
 * refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ckpt/staging.h"
#include "ckpt/weights.h"
#include "launch/memory.h"
#include "tests/scratch.h"
#include "tests/synced.h"

enum { TENSORS = 5 };
static const safetensor_spec specs[TENSORS] = {{"a", "F32", 2, {3, 5}},
                                               {"b.large", "F32", 1, {100}},
                                               {"c", "BF16", 1, {7}},
                                               {"d", "F32", 3, {2, 2, 2}},
                                               {"e", "F32", 1, {1}}};

static int64_t elements(int i) {
    int64_t n = 1;
    for (int k = 0; k < specs[i].rank; k++) n *= specs[i].shape[k];
    return n;
}

static float value(int tensor, int64_t i) {
    return (float)(tensor * 1000 + i); /* bf16 holds those of tensor 2: 2000 and a few are rounded */
}

static int64_t write_weights(const scratch *s, int64_t max_bytes) {
    error e = {0};
    weights_writer *w;
    float x[100];
    if (weights_create(&w, s->directory, specs, TENSORS, max_bytes, &e)) fail_msg("%s", e.text);
    int64_t files = weights_files(w);
    for (int i = 0; i < TENSORS; i++)
        for (int64_t at = 0, n = elements(i); at < n; at += 6) {
            int64_t count = n - at < 6 ? n - at : 6;
            for (int64_t k = 0; k < count; k++) x[k] = value(i, at + k);
            if (weights_append(w, x, count, &e)) fail_msg("%s", e.text);
        }
    if (weights_finish(w, 0, &e)) fail_msg("%s", e.text);
    return files;
}

static void check_weights(const scratch *s, int64_t files) {
    error e = {0};
    weights w;
    float x[100];
    if (weights_open(&w, s->directory, &e)) fail_msg("%s", e.text);
    assert_int_equal(w.files, files);
    assert_int_equal(w.tensors, TENSORS);
    for (int i = 0; i < TENSORS; i++) {
        const safetensor *t = weights_find(&w, specs[i].name);
        assert_non_null(t);
        assert_int_equal(t->count, elements(i));
        assert_int_equal(safetensors_read_f32(t, 0, t->count, x, &e), 0);
        for (int64_t k = 0; k < t->count && i != 2; k++) assert_true(x[k] == value(i, k));
    }
    assert_null(weights_find(&w, "b"));
    weights_close(&w);
}

/* Files hold what they may, and a tensor above that is alone in its file. */
static void test_files(void **state) {
    scratch *s = *state;
    static const struct {
        int64_t max_bytes, files;
    } cases[] = {{1 << 20, 1}, {400, 3}, {50, 3}, {45, 4}, {1, 5}};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(write_weights(s, cases[i].max_bytes), cases[i].files);
        check_weights(s, cases[i].files);
        assert_int_equal(scratch_files(s), cases[i].files + (cases[i].files > 1));
        scratch_empty(s);
    }
}

/* What is made beside a directory's name is on the disk before it gets that name, and the name then. */
static void test_staging(void **state) {
    scratch *s = *state;
    error e = {0};
    char *temporary, *path = scratch_path(s, "out");
    assert_int_equal(staging_begin(path, &temporary, &e), 0);
    synced_forget();
    assert_int_equal(staging_commit(temporary, &e), 0);
    mem_free(temporary);
    assert_int_equal(synced(path), 1);
    assert_int_equal(synced(s->directory), 1);
    assert_int_equal(staging_begin(path, &temporary, &e), 0); /* an empty one is nobody's */
    staging_abandon(temporary);
    mem_free(temporary);
    assert_int_equal(scratch_files(s), 0);
}

static void expect(const scratch *s, int code, const char *words) {
    error e = {0};
    weights w;
    int got = weights_open(&w, s->directory, &e);
    if (got != code || !strstr(e.text, words)) fail_msg("gave %d: %s\n  wanted: %s", got, e.text, words);
    assert_null(w.file);
    assert_null(w.tensor);
}

/* Writes three files and their index, with one place of a file changed. */
static void edited(scratch *s, const char *file, const char *from, const char *to) {
    size_t bytes;
    scratch_empty(s);
    assert_int_equal(write_weights(s, 400), 3);
    char *path = scratch_path(s, file), *text = scratch_read(path, &bytes);
    char *at = memmem(text, bytes, from, strlen(from));
    assert_non_null(at);
    char *changed = calloc(1, bytes + strlen(to) + 1);
    size_t before = (size_t)(at - text), after = bytes - before - strlen(from);
    memcpy(changed, text, before);
    memcpy(changed + before, to, strlen(to));
    memcpy(changed + before + strlen(to), at + strlen(from), after);
    scratch_write_bytes(s, file, changed, before + strlen(to) + after);
    free(changed);
    free(text);
}

static void test_refused(void **state) {
    scratch *s = *state;
    const char *index = "model.safetensors.index.json";
    const char *second = "model-00002-of-00003.safetensors";
    expect(s, EXIT_USAGE, "has neither model.safetensors nor model.safetensors.index.json");
    edited(s, index, "00002-of", "00009-of");
    expect(s, EXIT_IO, "model-00009-of-00003.safetensors: cannot be opened: No such file");
    edited(s, index, "\"b.large\": \"model-00002", "\"b.large\": \"model-00001");
    expect(s, EXIT_CORRUPT,
           "b.large is said to be in model-00001-of-00003.safetensors, which has no such tensor");
    edited(s, index, "\"b.large\": ", "\"b.larger\": ");
    expect(s, EXIT_CORRUPT, "b.larger is said to be in model-00002");
    edited(s, index, "    \"d\": \"model-00003-of-00003.safetensors\",\n", "");
    expect(s, EXIT_CORRUPT, "d is in model-00003-of-00003.safetensors, but the index has it nowhere");
    edited(s, index, "\"model-00002", "\"../model-00002");
    expect(s, EXIT_CORRUPT, "b.large is not in a file of this directory");
    edited(s, index, "\"model-00002-of-00003.safetensors\"", "7");
    expect(s, EXIT_CORRUPT, "b.large is not in a file of this directory: not a text");
    edited(s, index, "\"a\": ", "\"b.large\": ");
    expect(s, EXIT_CORRUPT, "duplicate");
    edited(s, index, "weight_map", "weight_mop");
    expect(s, EXIT_CORRUPT, "has no weight_map");
    edited(s, second, "\"b.large\"", "\"b.lurge\"");
    expect(s, EXIT_CORRUPT, "b.large is said to be in");
    edited(s, second, "[100]", "[101]");
    expect(s, EXIT_CORRUPT, "b.large: its data is not of the size of its shape");
    edited(s, index, "00003-of", "00003-of"); /* and unchanged it is fine */
    check_weights(s, 3);
    assert_int_equal(truncate(scratch_path(s, second), 300), 0);
    expect(s, EXIT_CORRUPT, "model-00002-of-00003.safetensors: b.large: its data lies outside the file");
    edited(s, index, "00003-of", "00003-of");
    scratch_write(s, "model.safetensors", "");
    expect(s, EXIT_CORRUPT, "has both a model.safetensors and an index");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_staging, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_refused, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
