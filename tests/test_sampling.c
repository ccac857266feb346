/* Sampling: frequencies against the probabilities, the nucleus' edge, and one seed, one text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "train/sampling.h"

enum { N = 5, DRAWS = 200000 };
/* probabilities 1/16, 1/2, 1/8, 1/16, 1/4 at temperature 1 */
static void logits_of(real *logits) {
    static const double p[N] = {0.0625, 0.5, 0.125, 0.0625, 0.25};
    for (int i = 0; i < N; i++) logits[i] = (real)(3 + log(p[i]));
}

static void expect(double temperature, double top_p, const double *want) {
    real logits[N];
    sampling_token scratch[N];
    sampling c = {temperature, top_p, 7};
    int64_t count[N] = {0};
    logits_of(logits);
    for (uint64_t i = 0; i < DRAWS; i++) count[sampling_choose(&c, logits, N, i % 3, i, scratch)]++;
    for (int i = 0; i < N; i++) {
        double deviation = sqrt(want[i] * (1 - want[i]) / DRAWS);
        assert_true(fabs((double)count[i] / DRAWS - want[i]) <= 5 * deviation);
    }
}

static void frequencies(void **unused) {
    (void)unused;
    expect(1, 1, (const double[N]){0.0625, 0.5, 0.125, 0.0625, 0.25});
    /* at temperature 1/2 the probabilities are squared: /256: 1, 64, 4, 1, 16 of 86 */
    expect(0.5, 1, (const double[N]){1. / 86, 64. / 86, 4. / 86, 1. / 86, 16. / 86});
}

static void nucleus(void **unused) {
    (void)unused;
    expect(1, 0.7, (const double[N]){0, 2. / 3, 0, 0, 1. / 3});
    expect(1, 0.9, (const double[N]){1. / 15, 8. / 15, 2. / 15, 0, 4. / 15}); /* of equals the lower id */
    expect(1, 0, (const double[N]){0, 1, 0, 0, 0});
    sampling half = {1, 0.5, 7};
    for (uint64_t i = 0; i < 100; i++) /* of four alike two have the half, and not a third */
        assert_in_range(sampling_choose(&half, (real[]){1, 1, 1, 1}, 4, 0, i, (sampling_token[4]){{0}}), 0,
                        1);
}

static void greedy(void **unused) {
    (void)unused;
    real logits[N] = {1, 3, 2, 3, 0};
    sampling c = {0, 1, 7};
    assert_int_equal(sampling_choose(&c, logits, N, 0, 0, NULL), 1);
}

static void seeds(void **unused) {
    (void)unused;
    real logits[N];
    sampling_token scratch[N];
    sampling a = {1, 1, 7}, b = {1, 1, 8};
    int differs = 0;
    logits_of(logits);
    for (uint64_t i = 0; i < 100; i++) {
        int32_t id = sampling_choose(&a, logits, N, 0, i, scratch);
        assert_int_equal(id, sampling_choose(&a, logits, N, 0, i, scratch));
        differs += id != sampling_choose(&b, logits, N, 0, i, scratch);
        differs += id != sampling_choose(&a, logits, N, 1, i, scratch);
    }
    assert_true(differs > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies),
        cmocka_unit_test(nucleus),
        cmocka_unit_test(greedy),
        cmocka_unit_test(seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
