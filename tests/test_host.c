/* How many cores a rank's threads are for, however its launcher bound it, on processors of several threads
 * and in containers. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "launch/host.h"
#include "tests/scratch.h"

enum { MOST = 8 };

/* Each rank may run on `width` processors, from `stride` times its number on. */
static void assert_processors(int expected, int ranks, int stride, int width) {
    cpu_set_t allowed[MOST];
    for (int r = 0; r < ranks; r++) {
        CPU_ZERO(&allowed[r]);
        for (int i = 0; i < width; i++) CPU_SET((size_t)(stride * r + i), &allowed[r]);
    }
    for (int r = 0; r < ranks; r++) assert_int_equal(host_cores_of(allowed, ranks, r), expected);
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
    for (int r = 0; r < 4; r++) assert_int_equal(host_cores_of(allowed, 4, r), 4);
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
    mine = host_one_of_each_core("", &mine);
    const int cores = CPU_COUNT(&mine), quota = host_quota("");
    assert_int_equal(host_cores(host), cores < quota ? cores : quota > 1 ? quota : 1);
    host_name_rank(world, host, text);
    assert_string_equal(text, "rank 0");
    comm_free(host);
    comm_close(world);
}

/* A file and the directories above it. */
static void put(scratch *s, const char *path, const char *text) {
    char directory[256];
    for (size_t i = 0; path[i]; i++) {
        snprintf(directory, sizeof directory, "%.*s", (int)i, path);
        if (path[i] == '/') mkdir(scratch_path(s, directory), 0777);
    }
    scratch_write(s, path, text);
}

/* Of the processors whose bits are set. */
static void assert_cores(scratch *s, unsigned processors, unsigned cores) {
    cpu_set_t some;
    CPU_ZERO(&some);
    for (unsigned i = 0; i < 32; i++)
        if (processors >> i & 1) CPU_SET(i, &some);
    some = host_one_of_each_core(s->directory, &some);
    for (unsigned i = 0; i < 32; i++) assert_int_equal(!!CPU_ISSET(i, &some), cores >> i & 1);
}

static void a_core_has_several_processors(void **state) {
    scratch *s = *state;
    static const char *const siblings[] = {"0,4\n", "1,5\n", "2-3\n", "2-3\n", "0,4\n", "1,5\n"};
    assert_cores(s, 0x3f, 0x3f); /* nobody says */
    for (int i = 0; i < 6; i++) {
        char path[128];
        snprintf(path, sizeof path, "sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i);
        put(s, path, siblings[i]);
    }
    assert_cores(s, 0x3f, 0x07);
    assert_cores(s, 0x30, 0x03); /* two ranks on two threads of a core see that they share it */
    assert_cores(s, 0x08, 0x04);
    put(s, "sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "?\n");
    assert_cores(s, 0x01, 0x01);
    assert_cores(s, 0, 0);
}

static void assert_quota(scratch *s, const char *groups, int expected) {
    put(s, "proc/self/cgroup", groups);
    assert_int_equal(host_quota(s->directory), expected);
}

static void a_container_has_its_share(void **state) {
    scratch *s = *state;
    assert_int_equal(host_quota(s->directory), INT_MAX);
    assert_quota(s, "0::/job/step\n", INT_MAX);
    put(s, "sys/fs/cgroup/job/step/cpu.max", "max 100000\n");
    assert_quota(s, "0::/job/step\n", INT_MAX);
    put(s, "sys/fs/cgroup/job/cpu.max", "250000 100000\n"); /* the step is part of it */
    assert_quota(s, "0::/job/step\n", 2);
    put(s, "sys/fs/cgroup/job/step/cpu.max", "50000 100000\n");
    assert_quota(s, "0::/job/step\n", 0);
    assert_quota(s, "0::/elsewhere\n", INT_MAX);
    put(s, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "-1\n");
    put(s, "sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n");
    assert_quota(s, "4:cpu,cpuacct:/job\n", INT_MAX);
    put(s, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "400000\n");
    assert_quota(s, "5:cpuset:/job\n4:cpuacct,cpu:/job\n", 4);
    assert_quota(s, "5:cpuset:/job\n", INT_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bound_rank_has_its_own),
        cmocka_unit_test(unbound_ranks_share_the_host),
        cmocka_unit_test(ranks_share_a_socket),
        cmocka_unit_test(a_process_alone),
        cmocka_unit_test_setup_teardown(a_core_has_several_processors, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_container_has_its_share, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
