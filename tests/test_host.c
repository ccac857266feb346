/* How many processors a rank's threads are for, however its launcher bound it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "launch/host.h"

enum { MOST = 8 };

/* Each rank may run on `width` processors, from `stride` times its number on. */
static void assert_processors(int expected, int ranks, int stride, int width) {
    cpu_set_t allowed[MOST];
    for (int r = 0; r < ranks; r++) {
        CPU_ZERO(&allowed[r]);
        for (int i = 0; i < width; i++) CPU_SET((size_t)(stride * r + i), &allowed[r]);
    }
    for (int r = 0; r < ranks; r++) assert_int_equal(host_processors_of(allowed, ranks, r), expected);
}

static void a_bound_rank_has_its_own(void **unused) {
    (void)unused;
    assert_processors(8, 4, 8, 8); /* --map-by slot:PE=8 --bind-to core */
    assert_processors(1, 4, 1, 1);
    assert_processors(16, 1, 0, 16);
}

static void unbound_ranks_share_the_host(void **unused) {
    (void)unused;
    assert_processors(4, 4, 0, 16);
    assert_processors(1, 8, 0, 2); /* more ranks than processors */
    assert_processors(1, 2, 0, 0); /* a host that does not say */
}

/* Four ranks over two sockets of 8 processors: mpirun's own choice. */
static void ranks_share_a_socket(void **unused) {
    (void)unused;
    cpu_set_t allowed[4];
    for (int r = 0; r < 4; r++) {
        CPU_ZERO(&allowed[r]);
        for (int i = 0; i < 8; i++) CPU_SET((size_t)(8 * (r % 2) + i), &allowed[r]);
    }
    for (int r = 0; r < 4; r++) assert_int_equal(host_processors_of(allowed, 4, r), 4);
}

static void a_process_alone(void **unused) {
    (void)unused;
    comm *world, *host;
    error e = {0};
    cpu_set_t mine;
    char text[HOST_TEXT];
    assert_int_equal(comm_open(&world, 30, &e), 0);
    host = comm_host(world);
    assert_int_equal(comm_size(host), 1);
    assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
    assert_int_equal(host_processors(host), CPU_COUNT(&mine));
    host_name_rank(world, host, text);
    assert_string_equal(text, "rank 0");
    comm_free(host);
    comm_close(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bound_rank_has_its_own),
        cmocka_unit_test(unbound_ranks_share_the_host),
        cmocka_unit_test(ranks_share_a_socket),
        cmocka_unit_test(a_process_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
