/* Which gradients a step may take: what clipping leaves of them must have squares that float holds; and what
 * a step does to an MTP head that waits. */
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

/* An MTP head that waits is neither moved nor decayed, and its first step is Adam's first: as long as the
 * learning rate, whatever the others' number of steps. */
static void test_a_head_that_waits(void **state) {
    (void)state;
    const optim_config oc = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-16, .weight_decay = 0.1};
    parallel_config pc = {.expert_replicas = 1, .rank_invariant = 1};
    model_config model = small_model().model;
    comm *world;
    kernels k;
    mesh ranks;
    params p;
    gradients g;
    optimizer o;
    error e;
    assert_int_equal(comm_open(&world, 10, &e), 0);
    assert_int_equal(mesh_open(&ranks, world, &pc, 1, model.n_routed_experts, &e), 0);
    kernels_ref(&k, 1);
    params_create(&p, &model, 1, 1, 0);
    gradients_create(&g, &p, &k, &ranks);
    real *weights = mem_alloc((size_t)p.weights * sizeof *weights, "test");
    optimizer_create(&o, &oc, &p, weights, &g, &k, &ranks);
    for (int64_t i = 0; i < o.pieces; i++) *o.piece[i].weight = *o.piece[i].gradient = 1;
    for (int step = 1; step <= 4; step++) {
        o.mtp_waits = step < 4;
        optimizer_update(&o, oc.lr, optimizer_gradient(&o).norm);
        for (int64_t i = 0; i < o.pieces; i++) {
            const param *q = &p.param[o.piece[i].param];
            double decay = q->group == GROUP_NORM ? 1 : 1 - oc.lr * oc.weight_decay, wanted = 1;
            int steps = q->bucket != bucket_mtp(&p) ? step : step == 4;
            for (int n = 0; n < steps; n++) wanted = wanted * decay - oc.lr;
            if (!(fabs((double)*o.piece[i].weight - wanted) < 1e-6))
                fail_msg("%s after %d steps: %g, wanted %g", q->name, step, (double)*o.piece[i].weight,
                         wanted);
        }
    }
    optimizer_destroy(&o);
    mem_free(weights);
    gradients_destroy(&g);
    params_free(&p);
    kernels_close(&k);
    mesh_close(&ranks);
    comm_close(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_a_step_may_take),
                                       cmocka_unit_test(test_a_head_that_waits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
