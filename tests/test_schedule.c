/* Learning rates step by step, against values worked by hand: the ends of warm-up, plateau and fall are where
 * mistakes of one step would be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "optim/optimizer.h"

static void assert_rates(const optim_config *c, int64_t first, int64_t n, const double *wanted) {
    for (int64_t i = 0; i < n; i++) {
        double lr = optimizer_learning_rate(c, first + i);
        if (!(fabs(lr - wanted[i]) <= 1e-12)) fail_msg("step %d: %.17g", (int)(first + i), lr);
    }
}

static void constant(void **unused) {
    (void)unused;
    optim_config c = {.lr = 0.4, .schedule = LR_CONSTANT, .warmup_steps = 4, .min_lr_ratio = 0.1};
    assert_rates(&c, 0, 6, (const double[]){0.1, 0.2, 0.3, 0.4, 0.4, 0.4});
    assert_rates(&c, 1000000, 1, (const double[]){0.4});
    c.warmup_steps = 0;
    assert_rates(&c, 0, 2, (const double[]){0.4, 0.4});
}

/* From 0.4 at step 2 to 0.1 * 0.4 at step 6, and no further. */
static void cosine(void **unused) {
    (void)unused;
    optim_config c = {
        .lr = 0.4, .schedule = LR_COSINE, .schedule_steps = 6, .warmup_steps = 2, .min_lr_ratio = 0.1};
    double quarter = 0.36 * 0.5 * (1 + sqrt(0.5));
    assert_rates(&c, 0, 9,
                 (const double[]){0.2, 0.4, 0.4, 0.04 + quarter, 0.22, 0.4 - quarter, 0.04, 0.04, 0.04});
    c.warmup_steps = 0; /* its first step has the whole rate */
    assert_rates(&c, 0, 1, (const double[]){0.4});
}

/* Three steps up, a plateau, and a line down that begins at step 8 - 3 and would reach the end at step 8. */
static void warm_up_stable_decay(void **unused) {
    (void)unused;
    optim_config c = {.lr = 0.3,
                      .schedule = LR_WSD,
                      .schedule_steps = 8,
                      .warmup_steps = 3,
                      .decay_steps = 3,
                      .min_lr_ratio = 0.5};
    assert_rates(&c, 0, 10,
                 (const double[]){0.1, 0.2, 0.3, 0.3, 0.3, 0.15 + 0.15 * 0.75, 0.15 + 0.15 * 0.5,
                                  0.15 + 0.15 * 0.25, 0.15, 0.15});
    c.decay_steps = 0; /* held to the end of the schedule */
    assert_rates(&c, 7, 2, (const double[]){0.3, 0.15});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constant),
        cmocka_unit_test(cosine),
        cmocka_unit_test(warm_up_stable_decay),
    };
    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
