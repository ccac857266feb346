/* Paths in the config.yaml that a run leaves, which is read from elsewhere than the run was started. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "launch/memory.h"
#include "tests/scratch.h"
#include "train/config_table.h"

static void assert_found(scratch *s, const char *file, const char *run_dir, const char *tokenizer,
                         const char *wanted) {
    config c = {.run_dir = mem_string(run_dir), .data.tokenizer = mem_string(tokenizer)};
    config_find_paths(&c, scratch_path(s, file));
    assert_string_equal(c.data.tokenizer, wanted);
    mem_free(c.run_dir);
    mem_free(c.data.tokenizer);
}

static void seen_from_where_the_run_was_started(void **state) {
    static const char *const directories[] = {"there", "there/runs", "there/runs/x", "here"};
    scratch *s = *state;
    char from[4096], *real = realpath(s->directory, NULL), wanted[4200];
    assert_non_null(getcwd(from, sizeof from));
    for (int i = 0; i < 4; i++) assert_int_equal(mkdir(scratch_path(s, directories[i]), 0777), 0);
    scratch_write(s, "there/t.json", "");
    scratch_write(s, "there/both.json", "");
    scratch_write(s, "here/both.json", "");
    assert_int_equal(chdir(scratch_path(s, "here")), 0);
    snprintf(wanted, sizeof wanted, "%s/there/t.json", real);
    assert_found(s, "there/runs/x/config.yaml", "runs/x", "t.json", wanted);
    assert_found(s, "there/runs/x/config.yaml", "./runs/x/", "t.json", wanted);
    assert_found(s, "there/runs/x/config.yaml", "runs/x", "both.json", "both.json"); /* here it is */
    assert_found(s, "there/runs/x/config.yaml", "runs/x", "absent.json", "absent.json");
    assert_found(s, "there/runs/x/config.yaml", "runs/y", "t.json", "t.json"); /* no run's own */
    assert_found(s, "there/runs/x/config.yaml", "/runs/x", "t.json", "t.json");
    assert_int_equal(chdir(from), 0);
    free(real);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(seen_from_where_the_run_was_started, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests_name("paths", tests, NULL, NULL);
}
