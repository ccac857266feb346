/* Activation arenas: the size announced is the size used and touched; a capacity below the worst case is
 * smaller.  A rank's memory as planned is what it takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "launch/memory.h"
#include "launch/room.h"
#include "tests/scratch.h"
#include "tests/small_model.h"
#include "train/memory_plan.h"

static model_config_all config(double slack, int recompute) {
    model_config_all c = small_model();
    c.model.num_layers = 3;
    c.model.moe_topk = 6; /* far more than are expected */
    c.model.recompute = recompute;
    c.loss.mtp_coef = 0.1;
    c.batch = 2;
    c.seq = 256;
    c.chunks = 2;
    c.slack = slack;
    return c;
}

/* What a process that may have `most` bytes says as it ends for want of memory. */
static void assert_ends(void (*take)(void), rlim_t most, char text[400]) {
    int said[2], status;
    assert_int_equal(pipe(said), 0);
    pid_t child = fork();
    if (!child) {
        setrlimit(RLIMIT_AS, &(struct rlimit){most, most});
        dup2(said[1], STDERR_FILENO);
        take();
        _exit(0);
    }
    close(said[1]);
    memset(text, 0, 400);
    assert_true(read(said[0], text, 399) > 0);
    close(said[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), EXIT_NO_MEMORY);
}

static void take_too_much(void) {
    mem_alloc_pages(mem_left() + ((size_t)8 << 30), "weights");
}
static void take_snapshot(void) {
    arena_create("the snapshot of a checkpoint", 48 << 20);
}

/* A model that is too large for the host is told so; nobody is killed for it. */
static void test_more_than_there_is(void **state) {
    char text[400];
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its own memory is more than the limits below */
#endif
    assert_ends(take_too_much, (rlim_t)1 << 32, text); /* whatever happens */
    assert_non_null(strstr(text, "MiB that are needed for weights"));
    assert_ends(take_snapshot, 1 << 20, text);
    assert_non_null(strstr(text, "out of memory: 48 MiB for the snapshot of a checkpoint"));
    assert_null(strstr(text, "sequences")); /* nor would fewer of these help */
}

static size_t resident(const arena *a) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (a->size + page - 1) / page, n = 0;
    unsigned char *in = malloc(pages);
    assert_int_equal(mincore(a->base, a->size, in), 0);
    for (size_t i = 0; i < pages; i++) n += (in[i] & 1) * page;
    free(in);
    return n;
}

static void test_announced_is_touched(void **state) {
    (void)state;
    model_config_all expected = config(1.5, 0), worst = config(1e9, 0), small = config(1.5, 1);
    comm *world;
    mesh m;
    kernels k;
    error e = {0};
    kernels_config kc = {.device = "ref", .isa = "auto", .threads = 1};
    parallel_config pc = {.expert_replicas = 1, .rank_invariant = 1};
    assert_int_equal(comm_open(&world, 10, &e), 0);
    assert_int_equal(mesh_open(&m, world, &pc, 1, expected.model.n_routed_experts, &e), 0);
    assert_int_equal(kernels_open(&k, &kc, &e), 0);
    size_t bytes = model_activation_bytes(&expected, &k, &m);
    assert_true(bytes < model_activation_bytes(&worst, &k, &m));
    assert_int_equal(model_worst_bytes(&expected, &k, &m), model_activation_bytes(&worst, &k, &m));
    assert_true(model_activation_bytes(&small, &k, &m) < bytes);

    model x;
    model_create(&x, &expected, &k, &m);
    size_t touched = resident(&x.kept) + resident(&x.shared) + resident(&x.sent);
    assert_int_equal(x.kept.used, x.kept.size);
    assert_int_equal(x.shared.used, x.shared.size);
    assert_int_equal(x.sent.used, x.sent.size);
    assert_int_equal(bytes, x.kept.size + x.shared.size + x.sent.size);
    assert_in_range(touched, bytes, bytes + bytes / 20);
    model_destroy(&x);
    kernels_close(&k);
    mesh_close(&m);
    comm_close(world);
}

/* What is said to be there by a tree of files like /proc and /sys: plain, in a container, in a batch job. */
static void assert_room(scratch *s, const char *group, size_t most, size_t left, int in_group) {
    scratch_write(
        s, "proc/meminfo",
        "MemTotal:  1000 kB\nMemFree: 7 kB\nMemAvailable: 600 kB\nSwapTotal: 100 kB\nSwapFree: 50 kB\n");
    scratch_write(s, "proc/self/cgroup", group);
    memory_room room = memory_room_of(s->directory);
    assert_int_equal(room.most, most << 10);
    assert_int_equal(room.left, left << 10);
    assert_int_equal(room.in_group, in_group);
}

static void test_room(void **state) {
    scratch *s = *state;
    const char *const directories[] = {"proc",
                                       "proc/self",
                                       "sys",
                                       "sys/fs",
                                       "sys/fs/cgroup",
                                       "sys/fs/cgroup/job",
                                       "sys/fs/cgroup/job/step",
                                       "sys/fs/cgroup/memory",
                                       "sys/fs/cgroup/memory/job"};
    memory_room none = memory_room_of(s->directory);
    assert_true(none.most == SIZE_MAX && none.left == SIZE_MAX && !none.in_group);
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
        assert_int_equal(mkdir(scratch_path(s, directories[i]), 0777), 0);
    assert_room(s, "", 1100, 650, 0);
    assert_room(s, "0::/job/step\n", 1100, 650, 0); /* without limits */
    scratch_write(s, "sys/fs/cgroup/job/step/memory.max", "max\n");
    scratch_write(s, "sys/fs/cgroup/job/memory.max", "409600\n"); /* the step is part of it */
    scratch_write(s, "sys/fs/cgroup/job/memory.current", "307200\n");
    scratch_write(s, "sys/fs/cgroup/job/memory.stat",
                  "anon 1\nfile 204800\ninactive_file 102400\nactive_file 102400\n");
    assert_room(s, "0::/job/step\n", 500, 350, 1); /* 400 - 300 + 200, and what may be swapped */
    assert_room(s, "1:name=systemd:/x\n0::/job\n", 500, 350, 1);
    assert_room(s, "0::/elsewhere\n", 1100, 650, 0);
    scratch_write(s, "sys/fs/cgroup/memory.max", "204800\n"); /* a container sees its own group as the root */
    assert_room(s, "0::/elsewhere\n", 300, 250, 1);
    unlink(scratch_path(s, "sys/fs/cgroup/memory.max"));
    scratch_write(s, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    scratch_write(s, "sys/fs/cgroup/memory/memory.usage_in_bytes", "512000\n");
    assert_room(s, "4:cpu:/job\n3:cpu,memory:/job\n0::/elsewhere\n", 1100, 650, 0);
    scratch_write(s, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", "614400\n");
    scratch_write(s, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", "614400\n");
    scratch_write(s, "sys/fs/cgroup/memory/job/memory.stat", "total_inactive_file 1024\n");
    assert_room(s, "3:memory:/job\n", 700, 51, 1);
    assert_room(s, "3:mem:/job\n2:memory2:/job\n", 1100, 650, 0); /* of others */
}

/* What `caracal plan` says and a device is asked for is what a run takes, to the byte, and never more than
 * the worst case. */
static void assert_taken(const model_config_all *c, int dtype, int rank_invariant) {
    comm *world;
    mesh m;
    kernels k;
    model x;
    gradients g;
    error e = {0};
    kernels_config kc = {.device = "cpu", .isa = "avx2", .threads = 1, .dtype = dtype};
    parallel_config pc = {.expert_replicas = 2, .rank_invariant = rank_invariant};
    assert_int_equal(comm_open(&world, 10, &e), 0);
    assert_int_equal(mesh_open(&m, world, &pc, 2, c->model.n_routed_experts, &e), 0);
    assert_int_equal(kernels_open(&k, &kc, &e), 0);
    memory_plan plan = memory_planned(c, &k, &m, 1, 0), alone = memory_planned(c, &k, &m, 0, 0);
    model_create(&x, c, &k, &m);
    gradients_create(&g, &x.p, &k, &m);
    memory_plan taken = memory_taken(&x, &g, plan.own);
    assert_memory_equal(&plan, &taken, sizeof plan);
    assert_true(plan.dense + plan.experts == (double)(x.p.weights * 4));
    assert_true(plan.moments == (double)(g.owned_count * 8));
    assert_true(plan.activations == (double)(x.kept.size + x.shared.size + x.sent.size));
    assert_true(plan.activations <= (double)model_worst_bytes(c, &k, &m));
    /* a bf16 copy of each weight in both forms */
    assert_true(plan.own == (dtype == DTYPE_BF16 ? plan.dense + plan.experts : 0));
    assert_true(plan.all - alone.all == plan.moments + plan.gradients + plan.moving);
    gradients_destroy(&g);
    model_destroy(&x);
    kernels_close(&k);
    mesh_close(&m);
    comm_close(world);
}

static void test_planned_is_taken(void **state) {
    (void)state;
    for (int i = 0; i < 16; i++) {
        model_config_all c = config(i & 1 ? 1.5 : 3, i >> 1 & 1);
        if (i >> 2 & 1) c.loss.mtp_coef = 0;
        c.model.moe_topk = i & 1 ? 6 : 3; /* with 3 the worst case is near */
        assert_taken(&c, i & 1 ? DTYPE_BF16 : DTYPE_FLOAT32, i >> 3);
    }
}

/* Room for the rows of one round may take more than room for all that can come: then it is that. */
static void test_no_more_than_the_worst_case(void **state) {
    (void)state;
    kernels k;
    error e = {0};
    kernels_config kc = {.device = "ref", .isa = "auto", .threads = 1};
    parallel_config pc = {.expert_replicas = 1, .rank_invariant = 1};
    int settled = 0;
    assert_int_equal(kernels_open(&k, &kc, &e), 0);
    for (int ranks = 1; ranks <= 4; ranks *= 2)
        for (int step = 1; step <= 40; step++) {
            mesh m;
            model_config_all c = config(0.1 * step, step % 2);
            assert_int_equal(mesh_plan(&m, ranks, &pc, 4, c.model.n_routed_experts, &e), 0);
            model_config_all room = model_room(&c, &k, &m);
            size_t bytes = model_activation_bytes(&c, &k, &m), worst = model_worst_bytes(&c, &k, &m);
            assert_in_range(bytes, 1, worst);
            assert_int_equal(model_activation_bytes(&room, &k, &m), bytes);
            settled += room.slack > c.slack && model_exchange_shape(&c, &m).max_rounds > 1;
        }
    assert_in_range(settled, 1, 60); /* and mostly it is not */
    kernels_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_more_than_there_is),
        cmocka_unit_test_setup_teardown(test_room, scratch_setup, scratch_teardown),
        cmocka_unit_test(test_announced_is_touched), cmocka_unit_test(test_planned_is_taken),
        cmocka_unit_test(test_no_more_than_the_worst_case)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
