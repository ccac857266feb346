/* Activation arenas: the size announced is the size used and touched; a capacity below the worst case is
 * smaller.  A rank's memory as planned is what it takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "launch/memory.h"
#include "optim/gradients.h"
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

/* A model that is too large for the host is told so; nobody is killed for it. */
static void test_more_than_there_is(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its own memory is more than the limit below */
#endif
    int said[2], status;
    char text[400] = "";
    assert_int_equal(pipe(said), 0);
    pid_t child = fork();
    if (!child) {
        setrlimit(RLIMIT_AS, &(struct rlimit){(rlim_t)1 << 32, (rlim_t)1 << 32}); /* whatever happens */
        dup2(said[1], STDERR_FILENO);
        mem_alloc_pages(mem_left() + ((size_t)8 << 30), "weights");
        _exit(0);
    }
    close(said[1]);
    assert_true(read(said[0], text, sizeof text - 1) > 0);
    close(said[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), EXIT_NO_MEMORY);
    assert_non_null(strstr(text, "MiB that are needed for weights"));
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

/* What `caracal plan` says and a device is asked for is what a run takes, but for what begins on a cache
 * line.
 */
static void test_planned_is_taken(void **state) {
    (void)state;
    model_config_all c = config(1.5, 0);
    for (int accumulates = 0; accumulates < 2; accumulates++) {
        comm *world;
        mesh m;
        kernels k;
        model x;
        gradients g;
        error e = {0};
        kernels_config kc = {.device = "cpu", .isa = "avx2", .threads = 1, .dtype = DTYPE_BF16};
        parallel_config pc = {.expert_replicas = 1, .rank_invariant = !accumulates};
        assert_int_equal(comm_open(&world, 10, &e), 0);
        assert_int_equal(mesh_open(&m, world, &pc, 2, c.model.n_routed_experts, &e), 0);
        assert_int_equal(kernels_open(&k, &kc, &e), 0);
        memory_plan plan = memory_planned(&c, &k, &m, 1), alone = memory_planned(&c, &k, &m, 0);
        model_create(&x, &c, &k, &m);
        gradients_create(&g, &x.p, &k, &m);
        double weights = 4 * (double)x.p.weights, slack = 0.02 * weights;
        assert_float_equal(plan.dense + plan.experts, weights, slack);
        assert_float_equal(plan.moments, 8 * (double)g.owned_count, slack);
        assert_float_equal(plan.gradients + plan.moving, (double)gradients_bytes(&g), slack);
        assert_float_equal(plan.activations, (double)(x.kept.size + x.shared.size + x.sent.size), 0);
        assert_float_equal(plan.own, weights, 0); /* a bf16 copy of each weight in both forms */
        assert_float_equal(plan.all - alone.all, plan.moments + plan.gradients + plan.moving, 1);
        gradients_destroy(&g);
        model_destroy(&x);
        kernels_close(&k);
        mesh_close(&m);
        comm_close(world);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_more_than_there_is),
                                       cmocka_unit_test(test_announced_is_touched),
                                       cmocka_unit_test(test_planned_is_taken)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
