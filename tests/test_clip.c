/* Which gradients a step may take: what clipping leaves of them must have squares that float holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "launch/memory.h"
#include "optim/optimizer.h"
#include "tests/small_model.h"

typedef struct taken {
    double clip;
    real gradient; /* one element's; all others are 0 */
    int finite;
} taken;

static const taken cases[] = {
    {0, 0, 1},        {1, 0, 1}, /* no gradient at all is one, too */
    {0, 1e18f, 1},    {0, 1e20f, 0},    {1, 1e20f, 1},
    {1, 3e38f, 1},    {1e30, 1, 1}, /* a clip that is none */
    {1e30, 1e25f, 0}, {1e18, 1e25f, 1}, {0, INFINITY, 0},
    {1, INFINITY, 0}, {1, NAN, 0},
};

static void test_what_a_step_may_take(void **state) {
    (void)state;
    parallel_config pc = {.expert_replicas = 1, .rank_invariant = 1};
    model_config model = small_model().model;
    comm *world;
    kernels k;
    mesh ranks;
    params p;
    gradients g;
    error e;
    assert_int_equal(comm_open(&world, 10, &e), 0);
    assert_int_equal(mesh_open(&ranks, world, &pc, 1, model.n_routed_experts, &e), 0);
    kernels_ref(&k, 1);
    params_create(&p, &model, 0, 1, 0);
    gradients_create(&g, &p, &k, &ranks);
    real *weights = mem_alloc((size_t)p.weights * sizeof *weights, "test");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const taken *c = &cases[i];
        optim_config oc = {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-16, .clip = c->clip};
        optimizer o;
        optimizer_create(&o, &oc, &p, weights, &g, &k, &ranks);
        *o.piece[1].gradient = c->gradient;
        gradient_figures f = optimizer_gradient(&o);
        if (f.finite != c->finite) fail_msg("clip %g, gradient %g: %d", c->clip, c->gradient, f.finite);
        if (c->finite) assert_true(f.norm == fabs((double)c->gradient));
        if (c->finite) optimizer_update(&o, oc.lr, f.norm);
        assert_true(isfinite(*o.piece[1].v));
        optimizer_destroy(&o);
    }
    mem_free(weights);
    gradients_destroy(&g);
    params_free(&p);
    kernels_close(&k);
    mesh_close(&ranks);
    comm_close(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_a_step_may_take)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
