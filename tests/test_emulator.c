/* The emulator that stands for a GPU: what it must find in a kernel, it finds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launch/error.h"
#include "tests/emulate/emulate.h"
#include "tests/emulate/wrong.h"

static void run_in(emulate_order order, wrong_kernel which, float *out) {
    memset(out, 0, WRONG_OUT * sizeof *out);
    emulate_set_order(order, 12345);
    wrong_run(which, out);
    emulate_set_order(EMULATE_FORWARD, 0);
}

/* Whether the bits are the same in every order. */
static int same_in_any_order(wrong_kernel which) {
    float first[WRONG_OUT], other[WRONG_OUT];
    run_in(EMULATE_FORWARD, which, first);
    for (emulate_order order = EMULATE_REVERSED; order <= EMULATE_SHUFFLED; order++) {
        run_in(order, which, other);
        if (memcmp(first, other, sizeof first)) return 0;
    }
    return 1;
}

static void test_right(void **state) {
    (void)state;
    float out[WRONG_OUT];
    run_in(EMULATE_FORWARD, RIGHT, out);
    for (int b = 0; b < 3; b++)
        for (int t = 0; t < 64; t++)
            assert_float_equal(out[b * 64 + t], (float)(63 - t + 63 - (t ^ 1) + b), 0);
    assert_true(same_in_any_order(RIGHT));
}

static void test_races(void **state) {
    (void)state;
    assert_false(same_in_any_order(NO_BARRIER));
    assert_false(same_in_any_order(BLOCKS_RACE));
    assert_false(same_in_any_order(NO_COPY_WAIT));
}

static void test_poison(void **state) {
    (void)state;
    float out[WRONG_OUT];
    run_in(EMULATE_FORWARD, READS_UNWRITTEN, out);
    for (int t = 0; t < 64; t++) assert_true(out[t] != out[t]); /* NaN */
}

/* Runs a kernel in a child, which must end with a message that says why. */
static void expect_end(int code, wrong_kernel which, const char *says) {
    int fd[2], status;
    char text[2000];
    size_t used = 0;
    assert_int_equal(pipe(fd), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        float out[WRONG_OUT];
        dup2(fd[1], STDERR_FILENO);
        run_in(EMULATE_FORWARD, which, out);
        _exit(0);
    }
    close(fd[1]);
    for (ssize_t n; used + 1 < sizeof text && (n = read(fd[0], text + used, sizeof text - 1 - used)) > 0;)
        used += (size_t)n;
    text[used] = 0;
    close(fd[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code || !strstr(text, says))
        fail_msg("kernel %d: status %#x, said \"%s\", not \"%s\"", (int)which, (unsigned)status, text, says);
}

static void expect_fault(wrong_kernel which, const char *says) {
    expect_end(70, which, says);
}

static void test_faults(void **state) {
    (void)state;
    expect_fault(SOME_AT_BARRIER, "has returned, thread");
    expect_fault(SOME_RETURN, "has returned, thread");
    expect_fault(TWO_BARRIERS, "threads diverge");
    expect_fault(HALF_A_WARP, "has returned, thread");
    expect_fault(PARTIAL_MASK, "a collective of lanes 0x1");
    expect_fault(TOO_MANY_THREADS, "2048 threads a block");
    expect_fault(UNASKED_SHARED, "50176 bytes of shared memory");
    expect_fault(OUTSIDE_COPY, "an asynchronous copy");
    expect_fault(NEVER_WAITS, "has not waited for the kernels before this one");
}

/* What a GPU refuses is told before it is asked. */
static void test_refused(void **state) {
    (void)state;
    expect_end(EXIT_USAGE, TOO_MUCH_SHARED, "large_kernel: a block needs 228 KiB of shared memory");
    expect_end(EXIT_USAGE, TOO_MANY_BLOCKS, "large_kernel: 2147483648 x 1 x 1 blocks");
    expect_end(EXIT_USAGE, TOO_MANY_HEADS, "large_kernel: 1 x 65536 x 1 blocks");
}

static void test_conflicts(void **state) {
    (void)state;
    float out[WRONG_OUT];
    emulate_figures_reset();
    run_in(EMULATE_FORWARD, BANKS_APART, out);
    assert_int_equal(emulate_times("ldmatrix"), 3 * 2); /* blocks, warps */
    assert_int_equal(emulate_times("conflict of banks"), 0);
    run_in(EMULATE_FORWARD, BANKS_SHARED, out);
    assert_int_equal(emulate_times("conflict of banks"), 3 * 2 * 4);
}

/* What no emulator runs: where wgmma would read. */
static void test_descriptors(void **state) {
    (void)state;
    assert_true(tiles_are_described());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right),       cmocka_unit_test(test_races),   cmocka_unit_test(test_poison),
        cmocka_unit_test(test_faults),      cmocka_unit_test(test_refused), cmocka_unit_test(test_conflicts),
        cmocka_unit_test(test_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
