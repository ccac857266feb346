/* The cuda backend's operations against ref, and against themselves: in whatever order blocks, warps and
 * lanes run, the bits are the same.  On the emulator; in build/cuda on the device, which orders things as it
 * likes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "tests/emulate/block.h"
#include "tests/emulate/emulate.h"
#include "tests/kernel_cases.h"

enum { ROUNDS = 25 }; /* shapes of each operation */

static uint64_t base_seed;

/* Cases whose operations the backend has so far. */
static const char *const ready[] = {"memory", "copy_rows", "rms_norm",      "rope",     "swiglu", "embedding",
                                    "router", "combine",   "cross_entropy", "hidden_z", "adamw"};

static int is_ready(const char *name) {
    for (size_t i = 0; i < sizeof ready / sizeof *ready; i++)
        if (!strcmp(ready[i], name)) return 1;
    return 0;
}

static kernels open_cuda(void) {
    kernels_config c = {.device = "cuda", .isa = "auto", .threads = 1};
    kernels k;
    error e;
    if (kernels_cuda(&k, &c, &e)) fail_msg("%s", e.text);
    return k;
}

static bench new_bench(void) {
    return (bench){.block = block_alloc(BLOCK_BYTES)};
}

static void test_against_ref(void **state) {
    (void)state;
    kernels inner = open_cuda(), k;
    kernels_check(&k, &inner, 2);
    bench b = new_bench();
    for (int c = 0; c < CASES; c++) {
        for (uint64_t round = 0; is_ready(cases[c].name) && round < ROUNDS; round++) {
            begin_case(&b, &k, base_seed + round);
            cases[c].run(&b);
            if (!guards_hold(&b))
                fail_msg("round %d: %s wrote outside its outputs", (int)round, cases[c].name);
        }
    }
    block_free(b.block);
    kernels_close(&k);
}

static void test_same_bits_in_any_order(void **state) {
    (void)state;
    kernels k = open_cuda();
    bench first = new_bench(), b = new_bench();
    for (int c = 0; c < CASES; c++) {
        for (uint64_t round = 0; is_ready(cases[c].name) && round < ROUNDS; round++) {
            begin_case(&first, &k, base_seed + round);
            cases[c].run(&first);
            k.to_host(k.ctx, NULL, NULL, 0); /* waits */
            for (emulate_order order = EMULATE_REVERSED; order <= EMULATE_SHUFFLED; order++) {
                emulate_set_order(order, base_seed + round);
                begin_case(&b, &k, base_seed + round);
                cases[c].run(&b);
                k.to_host(k.ctx, NULL, NULL, 0);
                emulate_set_order(EMULATE_FORWARD, 0);
                if (b.used != first.used || memcmp(b.block, first.block, b.used))
                    fail_msg("round %d: %s depends on the order in which threads run", (int)round,
                             cases[c].name);
            }
        }
    }
    block_free(first.block);
    block_free(b.block);
    kernels_close(&k);
}

int main(void) {
    const char *again = getenv("CARACAL_TEST_SEED");
    if (again) base_seed = strtoull(again, NULL, 0);
    else if (getrandom(&base_seed, sizeof base_seed, 0) != sizeof base_seed) return 1;
    print_message("the same inputs again: CARACAL_TEST_SEED=%#lx\n", (unsigned long)base_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_ref),
        cmocka_unit_test(test_same_bits_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
