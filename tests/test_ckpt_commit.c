/* A checkpoint comes into being whole or not at all, and goes away only when it may. */
#include "ckpt/commit.h"
#include "tests/ckpt_fixture.h"
#include "tests/synced.h"

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

    assert_int_equal(ckpt_retain(f->path, 90, &config, &e), 0); /* not whole: the older ones are needed */
    assert_true(exists(step_file(f, 10, "")));
    assert_int_equal(ckpt_retain(f->path, 80, &config, &e), 0);
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

/* Before the first step: can checkpoints be written here, and is there room for two? */
static void test_preflight(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    error e = {0};
    const int64_t most = (int64_t)1 << 27;
    const ckpt_tensor huge = {"huge", CKPT_F32, 2, {most, most}};
    assert_int_equal(ckpt_preflight(f->path, c.tensor, c.n, &e), 0);
    assert_true(exists(f->path)); /* made, and nothing left in it */
    assert_int_equal(rmdir(f->path), 0);
    assert_int_equal(ckpt_preflight(f->path, &huge, 1, &e), EXIT_IO);
    assert_non_null(strstr(e.text, f->path));
    /* 4 * 2^54 bytes twice */
    assert_non_null(strstr(e.text, "2 more of up to 68719476736.0 MiB need 137438953472.0 MiB"));
    assert_non_null(strstr(e.text, "MiB are missing"));
    /* one that is there tells the size, and is one of the two; a damaged one tells nothing */
    save_well(f, &c, 1, 2);
    assert_int_equal(ckpt_preflight(f->path, &huge, 1, &e), 0);
    flip(step_file(f, 1, "manifest.json"), 300);
    assert_int_equal(ckpt_preflight(f->path, &huge, 1, &e), EXIT_IO);
    /* what was cut off takes no room from the next run */
    assert_int_equal(rename(step_file(f, 1, ""), step_file(f, 1, ".tmp")), 0);
    assert_int_equal(ckpt_preflight(f->path, c.tensor, c.n, &e), 0);
    assert_false(exists(step_file(f, 1, ".tmp")));

    char path[256];
    snprintf(path, sizeof path, "%s/file", f->root);
    spill(path, "mine", 4);
    assert_int_equal(ckpt_preflight(path, c.tensor, c.n, &e), EXIT_IO);
    assert_non_null(strstr(e.text, path));
    assert_non_null(strstr(e.text, "Not a directory"));
    assert_int_equal(ckpt_preflight("/proc/checkpoints", c.tensor, c.n, &e), EXIT_IO);
    assert_non_null(strstr(e.text, "/proc/checkpoints"));
    content_free(&c);
}

/* What this run did not write, and what is not whole, neither goes away nor counts. */
static void test_retention_of_others(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    error e = {0};
    checkpoint_config config = {.keep = 1};
    for (int64_t step = 1; step <= 5; step++) save_well(f, &c, step, 2);
    /* step 2: of another run */
    json_t *other = json_pack("{ss}", "config_digest", "another");
    assert_int_equal(ckpt_save(f->world, f->path, 2, 2, c.tensor, c.n, c.whole, c.n, other, &e), 0);
    json_decref(other);
    /* step 3: a link to a whole checkpoint that lies elsewhere */
    char elsewhere[256];
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", f->root);
    assert_int_equal(rename(step_file(f, 3, ""), elsewhere), 0);
    assert_int_equal(symlink(elsewhere, step_file(f, 3, "")), 0);
    /* step 4: cut short */
    assert_int_equal(truncate(step_file(f, 4, "shard-00001.h5"), 1000), 0);
    /* step 5: damaged where only reading all of it would show; the run went back to before it and saved 1 */
    flip(step_file(f, 5, "shard-00001.h5"), 3000);
    /* a directory, a file and a name that only look like checkpoints */
    assert_int_equal(mkdir(step_file(f, 0, ""), 0777), 0);
    spill(step_file(f, 6, ""), "mine", 4);
    char strange[256];
    snprintf(strange, sizeof strange, "%s/step-x", f->path);
    assert_int_equal(mkdir(strange, 0777), 0);

    for (int64_t saved = 1; saved <= 7; saved += 6) { /* twice: back at 1, and past everything */
        if (saved == 7) save_well(f, &c, 7, 2);
        assert_int_equal(ckpt_retain(f->path, saved, &config, &e), 0);
        for (int64_t step = 0; step <= 6; step++) {
            int gone = saved == 7 && (step == 1 || step == 5);
            if (exists(step_file(f, step, "")) == gone)
                fail_msg("step %d after %d: %s", (int)step, (int)saved, gone ? "is still there" : "is gone");
        }
        assert_true(exists(strange));
        assert_holds(f, 3, &c); /* through the link */
    }
    assert_holds(f, 7, &c);

    /* one under another name than its own is a copy of somebody's */
    assert_int_equal(unlink(step_file(f, 6, "")), 0);
    save_well(f, &c, 8, 2);
    assert_int_equal(rename(step_file(f, 8, ""), step_file(f, 6, "")), 0);
    assert_int_equal(ckpt_retain(f->path, 7, &config, &e), 0);
    assert_true(exists(step_file(f, 6, "manifest.json")));

    /* what cannot be removed is named, and the others go nevertheless */
    for (int64_t step = 8; step <= 10; step++) save_well(f, &c, step, 2);
    assert_int_equal(mkdir(step_file(f, 9, ".tmp"), 0777), 0);
    snprintf(strange, sizeof strange, "%s/notes.txt", step_file(f, 9, ".tmp"));
    spill(strange, "mine", 4);
    assert_int_equal(ckpt_retain(f->path, 10, &config, &e), EXIT_IO);
    assert_non_null(strstr(e.text, "step-00000009"));
    assert_holds(f, 9, &c);
    assert_holds(f, 10, &c);
    assert_false(exists(step_file(f, 8, "")));
    assert_true(exists(strange));
    content_free(&c);
}

/* A link under the name of an unfinished save: what lies behind it is not ours to clear away. */
static void test_linked_leftover(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    error e = {0};
    char elsewhere[256];
    save_well(f, &c, 1, 2);
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", f->root);
    assert_int_equal(rename(step_file(f, 1, ""), elsewhere), 0);
    assert_int_equal(symlink(elsewhere, step_file(f, 1, ".tmp")), 0);
    assert_int_equal(save(f, &c, 2, 2, &e), EXIT_IO);
    assert_non_null(strstr(e.text, "step-00000001.tmp"));
    assert_int_equal(rename(elsewhere, step_file(f, 1, "")), 0);
    assert_holds(f, 1, &c);
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

/* A disk that cannot sync something, the last name included: the save fails, and the checkpoint that it was
 * to replace is there as before. */
static void test_failing_sync(void **state) {
    fixture *f = *state;
    content c = few_new(1), changed = few_new(2);
    int n = 0, code;
    save_well(f, &c, 1, 1);
    do {
        error e = {0};
        synced_failing = ++n;
        code = save(f, &changed, 1, 1, &e);
        if (!code) break;
        assert_int_equal(code, EXIT_IO);
        assert_int_equal(synced_failing, 0);
        assert_false(exists(step_file(f, 1, ".tmp")) || exists(step_file(f, 1, ".replaced")));
        assert_holds(f, 1, &c);
    } while (n < 100);
    synced_failing = 0;
    assert_int_equal(n, 6); /* the file, its directory, the manifest, its name, the step's name */
    assert_holds(f, 1, &changed);
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

    struct stat before, after; /* the same once more: nothing is touched, so that no crash can take it away */
    assert_int_equal(stat(step_file(f, 7, ""), &before), 0);
    save_well(f, &changed, 7, 2);
    assert_int_equal(stat(step_file(f, 7, ""), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_false(exists(step_file(f, 7, ".tmp")));
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

/* A save over step 7 that was cut off between its two renames, and after them. */
static void test_cut_off_between_renames(void **state) {
    fixture *f = *state;
    content c = few_new(1), changed = few_new(2);
    error e = {0};
    save_well(f, &changed, 7, 2);
    assert_int_equal(rename(step_file(f, 7, ""), step_file(f, 7, ".tmp")), 0);
    save_well(f, &c, 6, 2);
    save_well(f, &c, 7, 2);
    assert_int_equal(rename(step_file(f, 7, ""), step_file(f, 7, ".replaced")), 0);
    for (int again = 0; again < 2; again++) { /* nothing was lost, and once is enough */
        divert(f);
        assert_int_equal(commit_mend(f->path, &e), 0);
        restore(f);
        assert_int_equal(strstr(f->captured, "step-00000007 is back") != NULL, !again);
        assert_holds(f, 7, &c);
        assert_false(exists(step_file(f, 7, ".replaced")));
    }
    assert_int_equal(rename(step_file(f, 7, ""), step_file(f, 7, ".replaced")), 0);
    save_well(f, &changed, 7, 2); /* which takes another name, or none, for what is in its way */
    assert_int_equal(unlink(step_file(f, 7, ".replaced/shard-00001.h5")), 0);
    divert(f);
    assert_int_equal(commit_mend(f->path, &e), 0);
    restore(f);
    assert_non_null(strstr(f->captured, "step-00000007.replaced, which a save replaced"));
    assert_holds(f, 7, &changed);
    assert_false(exists(step_file(f, 7, ".replaced")));

    assert_int_equal(mkdir(step_file(f, 6, ".replaced"), 0777), 0); /* what is not ours stays */
    spill(step_file(f, 6, ".replaced/notes.txt"), "mine", 4);
    assert_int_equal(commit_mend(f->path, &e), 0);
    assert_true(exists(step_file(f, 6, ".replaced/notes.txt")));
    assert_holds(f, 6, &c);

    assert_int_equal(rename(step_file(f, 7, ""), step_file(f, 7, ".replaced")), 0);
    save_well(f, &c, 7, 2);
    assert_int_equal(unlink(step_file(f, 7, "manifest.json")), 0); /* no checkpoint: the other is the last */
    assert_int_equal(commit_mend(f->path, &e), 0);
    assert_true(exists(step_file(f, 7, ".replaced/manifest.json")));
    content_free(&c);
    content_free(&changed);
}

/* The same where step-7.replaced is taken: by what an earlier save put there and could not remove. */
static void test_cut_off_beside_a_leftover(void **state) {
    fixture *f = *state;
    content old = few_new(1), c = few_new(2), changed = few_new(3);
    error e = {0};
    save_well(f, &old, 7, 2);
    spill(step_file(f, 7, "notes.txt"), "mine", 4);
    save_well(f, &c, 7, 2);
    assert_true(exists(step_file(f, 7, ".replaced/notes.txt")));
    assert_int_equal(rename(step_file(f, 7, ""), step_file(f, 7, ".replaced-2")), 0);
    divert(f);
    assert_int_equal(commit_mend(f->path, &e), 0);
    restore(f);
    assert_non_null(strstr(f->captured, "step-00000007 is back"));
    assert_holds(f, 7, &c);
    assert_true(exists(step_file(f, 7, ".replaced/notes.txt")));

    /* a whole one, which could not be removed at all, is older than the last */
    assert_int_equal(unlink(step_file(f, 7, ".replaced/notes.txt")), 0);
    assert_int_equal(rmdir(step_file(f, 7, ".replaced")), 0);
    assert_int_equal(rename(step_file(f, 7, ""), step_file(f, 7, ".replaced-2")), 0);
    save_well(f, &old, 7, 2);
    assert_int_equal(rename(step_file(f, 7, ""), step_file(f, 7, ".replaced")), 0);
    save_well(f, &changed, 7, 2);
    assert_int_equal(rename(step_file(f, 7, ""), step_file(f, 7, ".replaced-10")), 0);
    assert_int_equal(mkdir(step_file(f, 7, ".replaced-1"), 0777), 0); /* no name of ours */
    divert(f);
    assert_int_equal(commit_mend(f->path, &e), 0);
    restore(f);
    assert_holds(f, 7, &changed);
    assert_false(exists(step_file(f, 7, ".replaced")));
    assert_false(exists(step_file(f, 7, ".replaced-2")));
    assert_false(exists(step_file(f, 7, ".replaced-10")));
    assert_int_equal(rmdir(step_file(f, 7, ".replaced-1")), 0);

    /* the rest of a removal is no checkpoint */
    assert_int_equal(rename(step_file(f, 7, ""), step_file(f, 7, ".replaced")), 0);
    assert_int_equal(unlink(step_file(f, 7, ".replaced/manifest.json")), 0);
    assert_int_equal(commit_mend(f->path, &e), 0);
    assert_false(exists(step_file(f, 7, "")));
    content_free(&old);
    content_free(&c);
    content_free(&changed);
}

/* A run that begins anew after step 4: what is newer gets another name, also when something has that. */
static void test_set_aside(void **state) {
    fixture *f = *state;
    content c = few_new(1), other = few_new(2);
    error e = {0};
    char absent[4200];
    for (int again = 0; again < 2; again++) {
        for (int64_t step = 3; step <= 6; step++) save_well(f, &c, step, 2);
        divert(f);
        synced_forget();
        assert_int_equal(commit_set_aside(f->path, 4, &e), 0);
        restore(f);
        assert_true(synced(f->path)); /* or a power loss brings back what the run does not go on from */
        const char *first = strstr(f->captured, "step-00000006 is now "),
                   *second = strstr(f->captured, "step-00000005 is now ");
        assert_true(first && second && first < second); /* cut off, it leaves what came before */
        assert_false(exists(step_file(f, 5, "")) || exists(step_file(f, 6, "")));
        assert_true(exists(step_file(f, 5, again ? ".aside-2/manifest.json" : ".aside/manifest.json")));
        assert_holds(f, 3, &c);
        assert_holds(f, 4, &c);
    }
    int64_t n, bytes;
    struct stat s;
    assert_int_equal(rename(step_file(f, 6, ".aside"), step_file(f, 6, ".damaged-2")), 0);
    assert_int_equal(stat(step_file(f, 5, ".aside/shard-00000.h5"), &s), 0);
    assert_int_equal(commit_kept_aside(f->path, &n, &bytes, &e), 0);
    assert_int_equal(n, 4); /* of steps 5 and 6, twice */
    assert_true(bytes > 4 * s.st_size);
    save_well(f, &other, 5, 2); /* its step comes round again */
    assert_holds(f, 5, &other);
    assert_true(exists(step_file(f, 5, ".aside/manifest.json")));
    snprintf(absent, sizeof absent, "%s/absent", f->path);
    assert_int_equal(commit_set_aside(absent, 0, &e), 0);
    assert_int_equal(commit_kept_aside(absent, &n, &bytes, &e), 0);
    assert_true(n == 0 && bytes == 0);
    content_free(&c);
    content_free(&other);
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
        TEST(preflight),
        TEST(retention),
        TEST(retention_of_others),
        TEST(linked_leftover),
        TEST(full_disk),
        TEST(failing_sync),
        TEST(bad_places),
        TEST(same_step_again),
        TEST(leftovers),
        TEST(cut_off_between_renames),
        TEST(cut_off_beside_a_leftover),
        TEST(set_aside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
