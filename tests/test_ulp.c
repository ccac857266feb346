/* The accuracy of every operation at the nano model's shapes: RMS errors in units of the last place stay
 * where they were measured (docs/numerics.md has more shapes). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "kernels/kernels.h"
#include "launch/error.h"
#include "tests/ulp.h"

static void expect_accuracy(const char *device, const char *isa) {
    kernels_config c = {.threads = 2};
    kernels k;
    error e;
    strcpy(c.device, device);
    strcpy(c.isa, isa);
    if (kernels_open(&k, &c, &e)) {
        assert_string_equal(isa, "avx512"); /* a processor without it */
        return;
    }
    for (int i = 0; i < ulp_cases(); i++) {
        ulp_case d = ulp_describe(i);
        if (d.limit == 0) continue;
        ulp_result exact, got;
        ulp_exact(i, &exact);
        ulp_run(i, &k, &got);
        for (int o = 0; o < exact.outputs; o++) {
            ulp_figures f = ulp_compare(&got.out[o], &exact.out[o]);
            if (!(f.scaled_rms <= d.limit))
                fail_msg("%s, %s %s, %s: RMS error of %.3g units at scale, more than %g", k.name, d.operation,
                         d.sizes, exact.out[o].name, f.scaled_rms, d.limit);
        }
        ulp_free(&exact);
        ulp_free(&got);
    }
    kernels_close(&k);
}

static void test_ref(void **state) {
    (void)state;
    expect_accuracy("ref", "auto");
}

static void test_avx2(void **state) {
    (void)state;
    expect_accuracy("cpu", "avx2");
}

static void test_avx512(void **state) {
    (void)state;
    expect_accuracy("cpu", "avx512");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ref), cmocka_unit_test(test_avx2),
                                       cmocka_unit_test(test_avx512)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
