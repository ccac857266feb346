/* The line that says how far a command is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "launch/progress.h"

static void what_is_left(void **unused) {
    (void)unused;
    char text[96], small[12];
    const progress p = {.what = "writing tokens", .unit = "MB", .all = 412};
    progress_text(text, sizeof text, &p, 0, 3);
    assert_string_equal(text, "writing tokens: 0% of 412 MB");
    progress_text(text, sizeof text, &p, 103, 40);
    assert_string_equal(text, "writing tokens: 25% of 412 MB, ETA 2m00s");
    progress_text(text, sizeof text, &p, 411.9, 40); /* not done before it is done */
    assert_string_equal(text, "writing tokens: 99% of 412 MB, ETA 0s");
    progress_text(text, sizeof text, &p, 500, 40); /* the last of a round of ranks is more than is there */
    assert_string_equal(text, "writing tokens: 100% of 412 MB, ETA 0s");
    progress_text(small, sizeof small, &p, 103, 40);
    assert_string_equal(small, "writing tok");
    progress_text(text, sizeof text, &(progress){.what = "nothing", .unit = "MB"}, 0, 1);
    assert_string_equal(text, "nothing: 100% of 0 MB, ETA 0s");
}

static void durations(void **unused) {
    (void)unused;
    static const struct {
        double seconds;
        const char *text;
    } known[] = {{-1, "0s"}, {0.4, "0s"}, {59.4, "59s"}, {59.6, "1m00s"}, {3599, "59m59s"}, {7620, "2h07m"}};
    char text[32];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_string_equal(progress_duration(text, known[i].seconds), known[i].text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_left), cmocka_unit_test(durations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
