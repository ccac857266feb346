/* Saving in the background, on one rank: what is saved is what was there when the save began, whatever
 * happens to it afterwards; nothing depends on threads or on the saves before; a save that fails harms no
 * other. Several ranks: mpi_ckpt.sh and mpi_save.sh. */
#include "tests/ckpt_fixture.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static ckpt_saver *saver_of(const fixture *f, const content *c, checkpoint_config config) {
    if (!config.threads) config.threads = 1;
    return ckpt_saver_open(f->world, f->path, &config, c->tensor, c->n, c->whole, c->n);
}

static void start(ckpt_saver *s, int64_t step) {
    error e = {0};
    json_t *state = some_state();
    if (ckpt_start(s, step, state, &e)) fail_msg("save does not start: %s", e.text);
    json_decref(state);
}

static ckpt_outcome finish(ckpt_saver *s) {
    ckpt_outcome o;
    assert_int_equal(ckpt_finish(s, &o), 1);
    return o;
}

static void fill_all(const content *c, int64_t seed) {
    for (int64_t i = 0; i < c->n; i++) fill(c->whole[i].data, &c->tensor[i], seed);
}

static void assert_same_step(const fixture *f, int64_t step, const char *other, int files) {
    for (int i = -1; i < files; i++) {
        char name[32] = "manifest.json", path[320];
        if (i >= 0) snprintf(name, sizeof name, "shard-%05d.h5", i);
        snprintf(path, sizeof path, "%s/%s", other, name);
        assert_same_file(step_file(f, step, name), path);
    }
}

static void test_snapshot(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 1), before = content_new(many, MANY, 1);
    ckpt_saver *s = saver_of(f, &c, (checkpoint_config){.shards = 3, .threads = 2});
    for (int64_t step = 1; step <= 3; step++) {
        fill_all(&c, step);
        fill_all(&before, step);
        start(s, step);
        fill_all(&c, step + 100); /* training goes on */
        ckpt_outcome o = finish(s);
        if (o.failure.code) fail_msg("%s", o.failure.text);
        assert_int_equal(o.step, step);
        assert_holds(f, step, &before);
        assert_false(exists(step_file(f, step, ".tmp")));
    }
    ckpt_saver_close(s);
    content_free(&before);
    content_free(&c);
}

/* The files of any number of threads are those of one. */
static void test_threads(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 2);
    char one[256];
    save_well(f, &c, 4, 2);
    snprintf(one, sizeof one, "%s/one", f->root);
    assert_int_equal(rename(step_file(f, 4, ""), one), 0);
    for (int64_t threads = 1; threads <= 9; threads += 4) {
        ckpt_saver *s = saver_of(f, &c, (checkpoint_config){.shards = 2, .threads = threads});
        for (int again = 0; again < 2; again++) { /* the second replaces the first */
            start(s, 4);
            ckpt_outcome o = finish(s);
            assert_int_equal(o.failure.code, 0);
            int64_t bytes = 0;
            for (int64_t i = 0; i < MANY; i++) bytes += (int64_t)ckpt_bytes(&many[i]);
            assert_int_equal(o.bytes, bytes);
            assert_true(o.stored > 0 && o.seconds >= o.waited);
            assert_same_step(f, 4, one, 2);
        }
        ckpt_saver_close(s);
    }
    content_free(&c);
}

/* Polling tells of each save once, and there is nothing to tell or to wait for when none is under way. */
static void test_poll(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    ckpt_outcome o;
    ckpt_saver *s = saver_of(f, &c, (checkpoint_config){.shards = 2});
    assert_int_equal(ckpt_poll(s, &o), 0);
    assert_int_equal(ckpt_finish(s, &o), 0);
    for (int64_t step = 1; step <= 2; step++) {
        start(s, step);
        while (!ckpt_poll(s, &o)) usleep(100);
        assert_int_equal(o.failure.code, 0);
        assert_int_equal(o.step, step);
        assert_true(o.waited == 0);
        assert_holds(f, step, &c);
        assert_int_equal(ckpt_poll(s, &o), 0);
        assert_int_equal(ckpt_finish(s, &o), 0);
    }
    ckpt_saver_close(s);
    content_free(&c);
}

/* A disk that is full while the files are written: training hears of it later, and the next save is well. */
static void test_failure_in_the_background(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 1);
    ckpt_saver *s = saver_of(f, &c, (checkpoint_config){.shards = 2, .threads = 3, .keep = 1});
    struct rlimit old, limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    start(s, 1);
    assert_int_equal(finish(s).failure.code, 0);
    for (int64_t step = 2; step < 6; step++) {
        limit = old;
        limit.rlim_cur = (rlim_t)step << 20;
        setrlimit(RLIMIT_FSIZE, &limit);
        start(s, step);
        ckpt_outcome o = finish(s);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(o.failure.code, EXIT_IO);
        assert_non_null(strstr(o.failure.text, "shard-0000"));
        assert_non_null(strstr(o.failure.text, "File too large"));
        assert_false(exists(step_file(f, step, "")));
        assert_false(exists(step_file(f, step, ".tmp")));
        assert_holds(f, 1, &c); /* retention keeps it: nothing took its place */
    }
    start(s, 7);
    assert_int_equal(finish(s).failure.code, 0);
    assert_holds(f, 7, &c);
    assert_false(exists(step_file(f, 1, ""))); /* and now something did */
    ckpt_saver_close(s);
    content_free(&c);
}

/* A save that cannot begin says so at once, and nothing is under way. */
static void test_no_place(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    char path[256];
    ckpt_outcome o;
    error e = {0};
    ckpt_saver *s = saver_of(f, &c, (checkpoint_config){.shards = 2});
    json_t *about = some_state();
    snprintf(path, sizeof path, "%s/run", f->root);
    spill(path, "a file", 6);
    assert_int_equal(ckpt_start(s, 1, about, &e), EXIT_IO);
    assert_int_equal(ckpt_finish(s, &o), 0);
    unlink(path);
    assert_int_equal(ckpt_start(s, 1, about, &e), 0);
    json_decref(about);
    assert_int_equal(finish(s).failure.code, 0);
    assert_holds(f, 1, &c);
    ckpt_saver_close(s);
    content_free(&c);
}

/* `caracal plan` tells what a saver takes. */
static void test_bytes(void **state) {
    (void)state;
    int64_t each[MANY], first[4];
    size_t all = 0, largest = 0;
    checkpoint_config config = {.shards = 3, .threads = 1};
    for (int i = 0; i < MANY; i++) all += (size_t)(each[i] = (int64_t)ckpt_bytes(&many[i]));
    ckpt_assign(many, MANY, 3, first);
    for (int f = 0; f < 3; f++) {
        size_t bytes = 0;
        for (int64_t i = first[f]; i < first[f + 1]; i++) bytes += (size_t)each[i];
        if (bytes > largest) largest = bytes;
    }
    size_t one = ckpt_saver_bytes(many, MANY, &config, 1), three = ckpt_saver_bytes(many, MANY, &config, 3);
    assert_int_equal(one - three, all - largest);
    assert_int_equal(ckpt_saver_bytes(many, MANY, &config, 8), three);
    assert_in_range(one - all, (size_t)2 * CHUNK_BYTES, (size_t)8 * CHUNK_BYTES);
}

/* Slices that leave an element out, or give one twice, end the program before anything is written. */
static void test_slices_that_do_not_cover(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    for (int i = 0; i < 4; i++) {
        ckpt_slice s[FEW + 1], *last = &s[FEW - 1];
        memcpy(s, c.whole, FEW * sizeof *s);
        int64_t n = last->count / 2;
        s[FEW] = (ckpt_slice){last->tensor, i == 3 ? 0 : n, last->count - n, last->data};
        last->count = i == 0 ? n - 1 : n;
        if (i == 2) s[FEW].count--;
        int status;
        pid_t child = fork();
        if (!child) {
            error e = {0};
            if (!freopen("/dev/null", "w", stderr)) _exit(1);
            _exit(ckpt_save(f->world, f->path, i, 1, c.tensor, c.n, s, FEW + 1, some_state(), &e));
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WEXITSTATUS(status) != (i == 1 ? 0 : EXIT_BUG)) fail_msg("case %d: %d", i, WEXITSTATUS(status));
    }
    content_free(&c);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(snapshot),
        TEST(threads),
        TEST(poll),
        TEST(failure_in_the_background),
        TEST(no_place),
        TEST(bytes),
        TEST(slices_that_do_not_cover),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
