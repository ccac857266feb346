/* A checkpoint comes into being whole or not at all, and goes away only when it may. */
#include "tests/ckpt_fixture.h"

#include <signal.h>
#include <sys/resource.h>

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
        TEST(retention), TEST(full_disk), TEST(bad_places), TEST(same_step_again), TEST(leftovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
