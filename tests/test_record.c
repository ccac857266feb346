/* Records of a run (train/record.h): what is kept of one when the run goes on after a step, and what of its
 * lines when the disk loses them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sys/stat.h>

#include "launch/files.h"
#include "tests/scratch.h"
#include "train/record.h"

#define LINE(n) "{\"step\":" #n ",\"x\":1}\n"

static void add(record *r, int step) {
    json_t *line = json_pack("{s:i}", "step", step);
    record_line(r, line);
    json_decref(line);
}

static void what_is_kept(void **state) {
    static const struct {
        const char *before;
        int64_t step;
        const char *kept;
    } cases[] = {
        {"", 7, ""},
        {LINE(1) LINE(2) LINE(3), 0, ""},
        {LINE(1) LINE(2) LINE(3), 2, LINE(1) LINE(2)},
        {LINE(1) LINE(2) LINE(3), 9, LINE(1) LINE(2) LINE(3)},
        {LINE(3) LINE(6) LINE(9), 8, LINE(3) LINE(6)},
        {LINE(1) LINE(2) "{\"step\":3,\"x", 9, LINE(1) LINE(2)},
        /* a damaged line takes none of the others along */
        {LINE(1) "{\"step\":2,\"x#:1}\n" LINE(3) LINE(4), 3, LINE(1) "{\"step\":2,\"x#:1}\n" LINE(3)},
        {"#\n" LINE(2) LINE(3), 2, "#\n" LINE(2)},
        {"#\n" LINE(2) LINE(3), 1, ""},
        /* what a power loss left of lines that were cut before is not the run's */
        {LINE(1) LINE(2) "p\":1}\n" LINE(2) LINE(3), 2, LINE(1) LINE(2)},
        {LINE(1) LINE(4) "p\":1}\n" LINE(3) LINE(4) LINE(9), 6, LINE(1) LINE(4)},
        /* nor do good ones go because one before them has a bit too many in its step */
        {LINE(1) LINE(18) LINE(3) LINE(4) LINE(5), 4, LINE(1) LINE(18) LINE(3) LINE(4)},
    };
    scratch *s = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        record r;
        error e = {0};
        size_t bytes, kept = strlen(cases[i].kept);
        const char *path = scratch_write(s, "r.jsonl", cases[i].before);
        assert_int_equal(record_open(&r, s->directory, "r.jsonl", cases[i].step, &e), 0);
        add(&r, 100);
        assert_int_equal(record_sync(&r, &e), 0);
        record_close(&r);
        char *after = scratch_read(path, &bytes);
        if (bytes < kept || memcmp(after, cases[i].kept, kept)) fail_msg("case %zu: %s", i, after);
        assert_string_equal(after + kept, "{\"step\":100}\n");
        free(after);
    }
}

static void what_is_no_file(void **state) {
    scratch *s = *state;
    record r;
    error e = {0};
    assert_int_equal(mkfifo(scratch_path(s, "r.jsonl"), 0666), 0); /* nobody reads from it */
    assert_int_equal(record_open(&r, s->directory, "r.jsonl", 0, &e), EXIT_IO);
    assert_non_null(strstr(e.text, "/r.jsonl: cannot be read: not a regular file"));
}

/* The C library's, but for one call of which the disk has kept `kept` bytes. */
static int fails;
static off_t kept;
int fsync(int fd) {
    if (!fails) return fdatasync(fd);
    assert_int_equal(ftruncate(fd, kept), 0);
    errno = EIO;
    return -1;
}

/* After a sync that failed, what was written since the last good one may be gone, whatever a later one says.
 */
static void what_cannot_be_written_leaves_nothing(void **state) {
    scratch *s = *state;
    char *path = scratch_path(s, "taken");
    error e = {0};
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(write_file(path, "x", 1, &e), EXIT_IO);
    assert_int_equal(scratch_files(s), 1);
}

static void what_a_failing_disk_loses(void **state) {
    scratch *s = *state;
    record r;
    error e = {0};
    assert_int_equal(record_open(&r, s->directory, "r.jsonl", 0, &e), 0);
    add(&r, 1);
    assert_int_equal(record_sync(&r, &e), 0);
    add(&r, 2);
    add(&r, 3);
    kept = strlen("{\"step\":1}\n{\"st");
    fails = 1;
    assert_int_equal(record_sync(&r, &e), EXIT_IO);
    fails = 0;
    e = (error){0};
    add(&r, 4);
    assert_int_equal(record_sync(&r, &e), 0);
    record_close(&r);
    char *text = scratch_text(s, "r.jsonl");
    assert_string_equal(text, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4}\n");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_kept, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(what_is_no_file, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_written_leaves_nothing, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test_setup_teardown(what_a_failing_disk_loses, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
