/* Activation arenas: the size announced is the size used and touched; a capacity below the worst case is
 * smaller. */
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
#include "tests/small_model.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_more_than_there_is),
                                       cmocka_unit_test(test_announced_is_touched)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
