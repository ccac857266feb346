/* The time left: at the speed of late, not of the run's beginning. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "launch/comm.h"
#include "launch/progress.h"
#include "train/console.h"

static void the_speed_of_late(void **unused) {
    (void)unused;
    static config c = {
        .model = {.vocab_size = 16, .hidden_size = 4, .num_layers = 1, .num_attention_heads = 1},
        .train = {.steps = 1000, .seq_len = 8, .micro_batches = 2, .micro_batch_size = 1, .eval_every = 50}};
    static state s;
    s = (state){.run = &c, .c = c, .step = 900};
    console o = console_open(0);
    double now = comm_clock();
    o.since.at = now - 90000; /* 800 slow steps, and then one a second */
    o.next = (console_moment){now - 100, 800};
    double left = console_left(&o, &s);
    assert_true(left >= 10000 && left < 11000); /* the whole run's, for the last time */
    left = console_left(&o, &s);
    assert_true(left >= 100 && left < 200);
    o.since.at -= 100; /* no window is over yet */
    left = console_left(&o, &s);
    assert_true(left >= 200 && left < 300);
    console_restart(&o, 500);
    o.since.at -= 400;
    left = console_left(&o, &s);
    assert_true(left >= 100 && left < 200);
}

/* train.steps may be as good as endless. */
static void a_run_without_end(void **unused) {
    (void)unused;
    static config c = {
        .model = {.vocab_size = 16, .hidden_size = 4, .num_layers = 1, .num_attention_heads = 1},
        .train = {.steps = INT64_MAX, .seq_len = 8, .micro_batches = 2, .micro_batch_size = 1}};
    static state s;
    char text[32];
    s = (state){.run = &c, .c = c, .step = 10};
    console o = console_open(0);
    o.since.at -= 10;
    double left = console_left(&o, &s);
    assert_true(left > 9e18 && left < 1e20);
    assert_string_equal(progress_duration(text, left), "277777777777h46m");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_speed_of_late),
                                       cmocka_unit_test(a_run_without_end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
