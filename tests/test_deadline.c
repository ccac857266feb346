/* --exit-after: the boundary at which a run stops, with a clock that the test turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "train/deadline.h"

/* Plays steps of the given length until the deadline is reached; returns when the save after that ends. */
static double play(deadline *d, double now, double step, double save, int64_t *steps) {
    for (*steps = 0; !deadline_reached(d, now, 0); ++*steps) {
        now += step;
        deadline_step(d, step);
    }
    return now + save;
}

static void test_last_moment(void **state) {
    (void)state;
    int64_t steps;
    deadline d = {.at = 100, .save = 5};
    assert_true(play(&d, 0, 10, 5, &steps) <= 100);
    assert_int_equal(steps, 9); /* 9 steps end at 90, the save at 95; a tenth would end at 105 */
    deadline exact = {.at = 100, .save = 10};
    assert_true(play(&exact, 0, 10, 10, &steps) == 100);
    assert_int_equal(steps, 9); /* to the second */
}

static void test_first_step(void **state) {
    (void)state;
    int64_t steps;
    deadline d = {.at = 1, .save = 1000};
    play(&d, 50, 10, 0, &steps);
    assert_int_equal(steps, 1); /* late already, but no start is for nothing */
}

static void test_longest_recent_step(void **state) {
    (void)state;
    deadline d = {.at = 100};
    deadline_step(&d, 30);
    deadline_step(&d, 1);
    assert_true(deadline_reached(&d, 75, 0)); /* the next one may be as long as the first */
    for (int i = 0; i < DEADLINE_STEPS; i++) deadline_step(&d, 1);
    assert_false(deadline_reached(&d, 75, 0)); /* that was long ago */
    assert_false(deadline_reached(&d, 99, 0));
    assert_true(deadline_reached(&d, 99.5, 0));
}

static void test_validation(void **state) {
    (void)state;
    deadline d = {.at = 100, .validation = 20, .save = 5};
    deadline_step(&d, 10);
    assert_false(deadline_reached(&d, 80, 0));
    assert_true(deadline_reached(&d, 80, 1));
    assert_false(deadline_reached(&d, 65, 1));
}

/* A save under way keeps the next one waiting. */
static void test_save_under_way(void **state) {
    (void)state;
    deadline d = {.at = 100, .save = 20, .saved = 85};
    deadline_step(&d, 1);
    assert_true(deadline_reached(&d, 66, 0));
    d.saved = 75;
    assert_false(deadline_reached(&d, 66, 0));
    d.saved = 0;
    assert_false(deadline_reached(&d, 79, 0));
    assert_true(deadline_reached(&d, 79.5, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last_moment),         cmocka_unit_test(test_first_step),
        cmocka_unit_test(test_longest_recent_step), cmocka_unit_test(test_validation),
        cmocka_unit_test(test_save_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
