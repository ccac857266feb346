/* `#pragma omp parallel` on our own threads: who runs, how often, and what each sees of the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST = 9, PIECES = 40 };

static void each_number_once(void **state) {
    (void)state;
    const int sizes[] = {2, 5, 1, MOST, 3, 3, 2};
    for (int round = 0; round < 300; round++) {
        const int size = sizes[round % 7];
        int seen[MOST] = {0}, sized[MOST] = {0};
#pragma omp parallel num_threads(size)
        {
            seen[omp_get_thread_num()]++;
            sized[omp_get_thread_num()] = omp_get_num_threads();
        }
        for (int i = 0; i < MOST; i++) {
            assert_int_equal(seen[i], i < size);
            assert_int_equal(sized[i], i < size ? size : 0);
        }
    }
    assert_int_equal(omp_get_thread_num(), 0);
    assert_int_equal(omp_get_num_threads(), 1);
}

/* What was written before a barrier, or before a region ended, every thread reads after it. */
static void barriers_order(void **state) {
    (void)state;
    int turn[MOST] = {0}, behind = 0;
    for (int round = 1; round <= 200; round++) {
        const int size = 2 + round % (MOST - 1);
#pragma omp parallel num_threads(size) reduction(+ : behind)
        {
            const int me = omp_get_thread_num();
            for (int step = 1; step <= 5; step++) {
                turn[me] = 10 * round + step;
#pragma omp barrier
                for (int i = 0; i < size; i++) behind += turn[i] != 10 * round + step;
#pragma omp barrier
            }
        }
    }
    assert_int_equal(behind, 0);
}

/* Threads that have gone to sleep wake up, be it to begin, at a barrier, or at the end. */
static void sleepers_wake(void **state) {
    (void)state;
    const char *const policies[] = {"active", "PASSIVE"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(setenv("OMP_WAIT_POLICY", policies[i], 1), 0);
        for (int late = 0; late < 6; late++) { /* two threads, then three: the policy is looked at anew */
            int sum = 0;
#pragma omp parallel num_threads(2 + i) reduction(+ : sum)
            {
                if (omp_get_thread_num() == late % 2) usleep(20000);
                sum++;
#pragma omp barrier
                if (omp_get_thread_num() == late / 2 % 2) usleep(20000);
                sum++;
            }
            assert_int_equal(sum, 2 * (2 + i));
            usleep(20000);
        }
    }
    unsetenv("OMP_WAIT_POLICY");
}

/* A team that waits long again and again stops to spin, and begins again: it is the same team. */
static void teams_change_their_minds(void **state) {
    (void)state;
    enum { SLOW = 200, QUICK = 6000 };
    int sum = 0;
    for (int round = 0; round < 2 * (SLOW + QUICK); round++) {
#pragma omp parallel num_threads(3) reduction(+ : sum)
        {
            if (round % (SLOW + QUICK) < SLOW && omp_get_thread_num() == round % 3) usleep(1000);
            sum++;
        }
    }
    assert_int_equal(sum, 3 * 2 * (SLOW + QUICK));
}

/* Loops share out every piece once; a region inside a region has one thread, and a barrier for itself. */
static void regions_inside(void **state) {
    (void)state;
    int done[MOST][PIECES] = {0}, wrong = 0;
#pragma omp parallel for num_threads(4) schedule(static) reduction(+ : wrong)
    for (int i = 0; i < MOST; i++) {
        const int me = omp_get_thread_num();
#pragma omp parallel num_threads(3) reduction(+ : wrong)
        {
            wrong += omp_get_num_threads() != 1 || omp_get_thread_num() != 0;
#pragma omp barrier
#pragma omp for schedule(static, 1)
            for (int j = 0; j < PIECES; j++) done[i][j]++;
        }
        wrong += omp_get_thread_num() != me || omp_get_num_threads() != 4;
    }
    assert_int_equal(wrong, 0);
    for (int i = 0; i < MOST; i++)
        for (int j = 0; j < PIECES; j++) assert_int_equal(done[i][j], 1);
}

static void *regions_of_its_own(void *wrong) {
    for (int round = 0; round < 2000; round++) {
        int sum = 0;
#pragma omp parallel num_threads(3) reduction(+ : sum)
        sum += 1 + omp_get_thread_num();
        *(int *)wrong += sum != 6;
    }
    return NULL;
}

/* Two threads of the program have regions at the same time. */
static void two_callers(void **state) {
    (void)state;
    int wrong[2] = {0};
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, regions_of_its_own, &wrong[1]), 0);
    regions_of_its_own(&wrong[0]);
    pthread_join(other, NULL);
    assert_int_equal(wrong[0] + wrong[1], 0);
}

static int counts; /* of processors */

/* In the place of the C library's, and counts its calls. */
int sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *set) {
    __atomic_fetch_add(&counts, 1, __ATOMIC_RELAXED);
    CPU_ZERO_S(bytes, set);
    return syscall(SYS_sched_getaffinity, process, bytes, set) < 0 ? -1 : 0;
}

/* The system may take processors away from a process and give it others, and threads that are more than these
 * must not spin: they are counted again, now and then. */
static void processors_are_counted_again(void **state) {
    (void)state;
    int sum = 0;
    counts = 0;
    for (int round = 0; round < 5000; round++) {
#pragma omp parallel num_threads(2) reduction(+ : sum)
        sum++;
    }
    assert_int_equal(sum, 10000);
    assert_in_range(counts, 2, 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_number_once),
        cmocka_unit_test(barriers_order),
        cmocka_unit_test(sleepers_wake),
        cmocka_unit_test(regions_inside),
        cmocka_unit_test(two_callers),
        cmocka_unit_test(teams_change_their_minds),
        cmocka_unit_test(processors_are_counted_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
