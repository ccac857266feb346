/* Config files that would keep the reader waiting, or busy: they are refused at once.  And one that a run
 * writes, as others read it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "tests/config_text.h"

static void names_a_file_that_cannot_be_read(void **state) {
    config c;
    error e = {0};
    assert_int_equal(config_load(&c, "/nonexistent/c.yaml", 0, NULL, &e), EXIT_USAGE);
    assert_string_equal(e.text, "/nonexistent/c.yaml: cannot be read: No such file or directory");
    assert_int_equal(config_load(&c, "/", 0, NULL, &e), EXIT_USAGE);
    assert_string_equal(e.text, "/: cannot be read: Is a directory");
    char *pipe = scratch_path(*state, "pipe.yaml"); /* nobody writes into it */
    assert_int_equal(mkfifo(pipe, 0666), 0);
    assert_int_equal(config_load(&c, pipe, 0, NULL, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "/pipe.yaml: cannot be read: not a regular file"));
}

static void expect(scratch *s, const char *text, const char *words) {
    config c;
    error e;
    assert_int_equal(load_text(s, &c, text, NULL, NULL, &e), EXIT_USAGE);
    if (!strstr(e.text, words)) fail_msg("%s", e.text);
}

static void how_deep_it_may_be_nested(void **state) {
    expect(*state, "model: [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]\n", "c.yaml:1: model is a section");
    expect(*state, "model: [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]\n", "c.yaml:1: is nested deeper than 16 levels");
    expect(*state, "model:\n- - - - - - - - - - - - - - - - 1\n",
           "c.yaml:2: is nested deeper than 16 levels");
}

/* Validations call all sources together so: its own loss would be written over. */
static void a_source_called_total(void **state) {
    expect(*state, "data:\n  sources:\n    - {name: total, train: t}\n",
           "c.yaml:3: data.sources: total is what validations call all sources together; another name is "
           "wanted");
}

static void how_many_tensors_a_model_may_have(void **state) {
    (void)state;
    config c;
    error e = {0};
    char most[] = "--model.num_layers=14364", more[] = "--model.num_layers=14365", *keys[] = {most, more};
    if (config_load(&c, "configs/nano.yaml", 1, keys, &e)) fail_msg("%s", e.text);
    config_free(&c);
    assert_int_equal(config_load(&c, "configs/nano.yaml", 1, keys + 1, &e), EXIT_USAGE);
    assert_string_equal(
        e.text, "command line: model.num_layers = 14365: must be at most 14364 with model.n_routed_experts "
                "= 16: a model has at most 1048576 tensors, and a layer 73");
}

/* Of a section that comes twice other readers of YAML see one half, or nothing. */
static void each_section_stands_once(void **state) {
    config c;
    error e = {0};
    const char *section[32];
    int n = 0;
    if (config_load(&c, "configs/nano.yaml", 0, NULL, &e)) fail_msg("%s", e.text);
    assert_int_equal(config_save(&c, ((scratch *)*state)->directory, &e), 0);
    config_free(&c);
    char *text = scratch_text(*state, "config.yaml");
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (*line == ' ') continue;
        for (int i = 0; i < n; i++) assert_string_not_equal(line, section[i]);
        assert_true(n < 32);
        section[n++] = line;
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_a_file_that_cannot_be_read, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(how_deep_it_may_be_nested, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_source_called_total, scratch_setup, scratch_teardown),
        cmocka_unit_test(how_many_tensors_a_model_may_have),
        cmocka_unit_test_setup_teardown(each_section_stands_once, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests_name("config files", tests, NULL, NULL);
}
