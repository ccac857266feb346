/* The report of a run that goes on: what it says at the start, on the way, at each kind of end, and when the
 * run is killed without a word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/scratch.h"
#include "train/live.h"
#include "train/report.h"

static void assert_says(scratch *s, const char *first, const char *second, int goes_on) {
    char *page = scratch_text(s, "report.html");
    if (!strstr(page, first) || !strstr(page, second))
        fail_msg("the page does not say \"%s\" and \"%s\"", first, second);
    assert_int_equal(strstr(page, "class=\"status running\"") != NULL, goes_on);
    const char *script = strstr(page, "<script>");
    assert_non_null(script);
    assert_null(strstr(script + 1, "<script"));
    assert_null(strstr(page, "src="));
    assert_null(strstr(page, "http-equiv"));
    assert_null(strstr(page, "inf"));
    assert_null(strstr(page, "\"nan"));
    free(page);
}

static void add_steps(scratch *s, int first, int last) {
    for (int timing = 0; timing < 2; timing++) {
        FILE *f = fopen(scratch_path(s, timing ? "timing.jsonl" : "metrics.jsonl"), "ab");
        for (int i = first; i <= last; i++)
            if (timing) fprintf(f, "{\"step\":%d,\"step_seconds\":1}\n", i);
            else fprintf(f, "{\"step\":%d,\"tokens\":%d,\"lm_loss\":5.5}\n", i, 10 * i);
        fclose(f);
    }
}

static void a_run_from_start_to_end(void **state) {
    scratch *s = *state;
    add_steps(s, 1, 0); /* the logs are there, and empty */
    live *l = live_open(s->directory, 0, 40);
    assert_non_null(l);
    assert_says(s, "<b class=\"live\">Starting</b><b class=\"gone\">Crashed, or still starting</b>",
                "step 0 of 40; ", 1);
    add_steps(s, 1, 1);
    live_step(l, 1, 39);
    assert_says(s, "<b class=\"live\">Running</b><b class=\"gone\">Crashed, or stuck</b>",
                "step 1 of 40<i class=\"live\">, ETA 39s</i>; ", 1);
    add_steps(s, 2, 30);
    live_step(l, 30, 10); /* too soon for another page */
    assert_says(s, "step 1 of 40", "width:2.5%", 1);
    add_steps(s, 31, 40);
    assert_int_equal(live_close(l, 40, RUN_FINISHED, NULL), 0);
    assert_says(s, "class=\"status finished\"", "<dd>400<small>", 0);
    assert_says(s, "<b>Finished</b>", "step 40 of 40; ", 0);
    free(scratch_text(s, "loss.svg"));

    /* the same page again, by the command */
    error e = {0};
    assert_int_equal(report_write(s->directory, NULL, &e), 0);
    assert_says(s, "<b>Finished</b>", "step 40 of 40; ", 0);
}

static void a_run_that_is_resumed(void **state) {
    scratch *s = *state;
    add_steps(s, 1, 7);
    live *l = live_open(s->directory, 7, 9);
    assert_says(s, "step 7 of 9; ", "<dd>70<small>", 1);
    assert_int_equal(live_close(l, 7, RUN_STOPPED, "By a signal; go on."), 0);
    assert_says(s, "<b>Stopped</b>", "<p>By a signal; go on.</p>", 0);
    l = live_open(s->directory, 7, 9);
    assert_int_equal(live_close(l, 8, RUN_FAILED, "step 8: loss <nan>"), 0);
    assert_says(s, "<b>Failed</b><span>step 8 of 9; ", "<p>step 8: loss &lt;nan&gt;</p>", 0);
}

/* What it said last was that it was running. */
static void a_run_that_was_killed(void **state) {
    scratch *s = *state;
    error e = {0};
    run_status last = {.state = RUN_RUNNING,
                       .step = 5,
                       .steps = 9,
                       .at = status_clock() - 100,
                       .every = 5,
                       .patience = 200,
                       .left = 60};
    add_steps(s, 1, 5);
    assert_int_equal(status_write(&last, s->directory, &e), 0);
    assert_int_equal(report_write(s->directory, NULL, &e), 0);
    assert_says(s, "class=\"status running\"", "ETA 1m00s", 1);
    last.patience = 90;
    assert_int_equal(status_write(&last, s->directory, &e), 0);
    assert_int_equal(report_write(s->directory, NULL, &e), 0);
    assert_says(s, "class=\"status lost\"", "last sign of life", 0);
}

static void a_status_is_read_back(void **state) {
    scratch *s = *state;
    error e = {0};
    run_status in = {.state = RUN_FAILED, .step = 5, .steps = 9, .at = 1.75e9, .why = "\"so\""}, out;
    assert_int_equal(status_write(&in, s->directory, &e), 0);
    status_read(&out, s->directory);
    assert_true(out.state == in.state && out.step == 5 && out.steps == 9 && out.at == in.at);
    assert_string_equal(out.why, in.why);
    strcpy(in.why, "caf\xc3"); /* cut inside a character */
    assert_int_equal(status_write(&in, s->directory, &e), 0);
    status_read(&out, s->directory);
    assert_string_equal(out.why, "caf");
    static const char *const unreadable[] = {"",
                                             "{",
                                             "[1]",
                                             "{\"state\": \"running\"}",
                                             "{\"state\": \"running\", \"at\": 5}",
                                             "{\"state\": \"away\", \"at\": 5}",
                                             "{\"state\": 3, \"at\": \"x\"}"};
    for (size_t i = 0; i < sizeof unreadable / sizeof *unreadable; i++) {
        scratch_write_bytes(s, "status.json", unreadable[i], strlen(unreadable[i]));
        status_read(&out, s->directory);
        assert_int_equal(out.state, RUN_UNKNOWN);
    }
}

/* A directory that is gone stops nothing. */
static void a_disk_that_does_not_take_it(void **state) {
    scratch *s = *state;
    assert_null(live_open(scratch_path(s, "absent"), 0, 9));
    live_step(NULL, 1, 8);
    assert_int_not_equal(live_close(NULL, 1, RUN_FINISHED, NULL), 0);
    live *l = live_open(s->directory, 0, 9);
    scratch_empty(s);
    assert_int_equal(rmdir(s->directory), 0);
    live_step(l, 1, 8);
    assert_int_equal(live_close(l, 2, RUN_FINISHED, NULL), EXIT_IO);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(a_run_from_start_to_end), CASE(a_run_that_is_resumed),        CASE(a_run_that_was_killed),
        CASE(a_status_is_read_back),   CASE(a_disk_that_does_not_take_it),
    };
    return cmocka_run_group_tests_name("live", tests, NULL, NULL);
}
