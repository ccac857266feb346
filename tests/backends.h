/* The backends that a test of the kernels runs on. */
#ifndef CARACAL_TESTS_BACKENDS_H
#define CARACAL_TESTS_BACKENDS_H

#include <cmocka.h>
#include <string.h>

#include "kernels/kernels.h"
#include "launch/error.h"

/* Opens one; 0 where the processor lacks it, which only AVX-512 may be. */
static inline int backend_open(kernels *k, const char *device, const char *isa, int threads,
                               kernels_dtype dtype) {
    kernels_config c = {.threads = threads, .dtype = dtype};
    error e;
    strcpy(c.device, device);
    strcpy(c.isa, isa);
    if (!kernels_open(k, &c, &e)) return 1;
    assert_string_equal(isa, "avx512");
    return 0;
}

/* Three cmocka tests of a function that takes an open backend. */
#define BACKEND_TESTS(run, threads)                                                                          \
    static void backend_test(const char *device, const char *isa) {                                          \
        kernels k;                                                                                           \
        if (!backend_open(&k, device, isa, threads, DTYPE_FLOAT32)) return;                                  \
        run(&k);                                                                                             \
        kernels_close(&k);                                                                                   \
    }                                                                                                        \
    static void test_ref(void **state) {                                                                     \
        (void)state;                                                                                         \
        backend_test("ref", "auto");                                                                         \
    }                                                                                                        \
    static void test_avx2(void **state) {                                                                    \
        (void)state;                                                                                         \
        backend_test("cpu", "avx2");                                                                         \
    }                                                                                                        \
    static void test_avx512(void **state) {                                                                  \
        (void)state;                                                                                         \
        backend_test("cpu", "avx512");                                                                       \
    }                                                                                                        \
    static const struct CMUnitTest backend_tests[] = {                                                       \
        cmocka_unit_test(test_ref), cmocka_unit_test(test_avx2), cmocka_unit_test(test_avx512)}

#endif
