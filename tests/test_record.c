/* Records of a run (train/record.h): what is kept of one when the run goes on after a step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/scratch.h"
#include "train/record.h"

#define LINE(n) "{\"step\":" #n ",\"x\":1}\n"

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
    };
    scratch *s = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        record r;
        error e = {0};
        size_t bytes, kept = strlen(cases[i].kept);
        const char *path = scratch_write(s, "r.jsonl", cases[i].before);
        assert_int_equal(record_open(&r, s->directory, "r.jsonl", cases[i].step, &e), 0);
        json_t *line = json_pack("{s:i}", "step", 100);
        record_line(&r, line);
        json_decref(line);
        assert_int_equal(record_sync(&r, &e), 0);
        record_close(&r);
        char *after = scratch_read(path, &bytes);
        if (bytes < kept || memcmp(after, cases[i].kept, kept)) fail_msg("case %zu: %s", i, after);
        assert_string_equal(after + kept, "{\"step\":100}\n");
        free(after);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_kept, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
