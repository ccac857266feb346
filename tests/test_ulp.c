/* The accuracy of every operation at the nano model's shapes: RMS errors in units of the last place stay
 * where they were measured (docs/numerics.md has more shapes). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/backends.h"
#include "tests/ulp.h"

static void expect_accuracy(const kernels *k) {
    for (int i = 0; i < ulp_cases(); i++) {
        ulp_case d = ulp_describe(i);
        if (d.limit == 0) continue;
        ulp_result exact, got;
        ulp_exact(i, &exact);
        ulp_run(i, k, &got);
        for (int o = 0; o < exact.outputs; o++) {
            ulp_figures f = ulp_compare(&got.out[o], &exact.out[o]);
            if (!(f.scaled_rms <= d.limit))
                fail_msg("%s, %s %s, %s: RMS error of %.3g units at scale, more than %g", k->name,
                         d.operation, d.sizes, exact.out[o].name, f.scaled_rms, d.limit);
        }
        ulp_free(&exact);
        ulp_free(&got);
    }
}

BACKEND_TESTS(expect_accuracy, 2);

int main(void) {
    return cmocka_run_group_tests(backend_tests, NULL, NULL);
}
