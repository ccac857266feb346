/* Work that threads balance: every unit is taken once, by its owner from the front and by others from the
 * back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <omp.h>

#include "kernels/cpu/claims.h"
#include "launch/memory.h"

enum { UNITS = 20000, THREADS = 3, ROUNDS = 20 };

static void one_thread_takes_from_both_ends(void **unused) {
    (void)unused;
    claims c;
    claims_open(&c, 3);
    assert_int_equal(claims_first(&c), 0);
    assert_int_equal(claims_last(&c), 2);
    assert_int_equal(claims_first(&c), 1);
    assert_int_equal(claims_first(&c), -1);
    assert_int_equal(claims_last(&c), -1);
    claims_open(&c, 1);
    assert_int_equal(claims_last(&c), 0);
    assert_int_equal(claims_first(&c), -1);
    claims_open(&c, 0);
    assert_int_equal(claims_first(&c), -1);
    assert_int_equal(claims_last(&c), -1);
}

/* Units are written without any other word between the threads. */
static void threads_take_each_unit_once(void **unused) {
    (void)unused;
    unsigned char *taken = mem_alloc(UNITS, "marks");
    claims c;
    for (int round = 1; round <= ROUNDS; round++) {
        claims_open(&c, UNITS);
#pragma omp parallel num_threads(THREADS)
        {
            const int owner = omp_get_thread_num() == 0;
            for (int64_t i; (i = owner ? claims_first(&c) : claims_last(&c)) >= 0;) taken[i]++;
        }
        for (int i = 0; i < UNITS; i++) assert_int_equal(taken[i], round);
    }
    mem_free(taken);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_takes_from_both_ends),
        cmocka_unit_test(threads_take_each_unit_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
