/* Which gradients a step may take: what clipping leaves of them must have squares that float holds; what a
 * step does to an MTP head that waits; and what a guard sees of it all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

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

/* What an optimizer works on, of one rank. */
typedef struct rank_alone {
    comm *world;
    kernels k;
    mesh ranks;
    params p;
    gradients g;
    real *weights;
} rank_alone;

static void open_alone(rank_alone *x, int mtp) {
    parallel_config pc = {.expert_replicas = 1, .rank_invariant = 1};
    model_config model = small_model().model;
    model.hidden_size = model.expert_ffn_hidden_size = 64; /* experts' matrices are whole blocks */
    model.vocab_size = 1100; /* more of an embedding than is updated at a time */
    error e;
    assert_int_equal(comm_open(&x->world, 10, &e), 0);
    assert_int_equal(mesh_open(&x->ranks, x->world, &pc, 1, model.n_routed_experts, &e), 0);
    kernels_ref(&x->k, 1);
    params_create(&x->p, &model, mtp, 1, 0);
    gradients_create(&x->g, &x->p, &x->k, &x->ranks);
    x->weights = mem_alloc((size_t)x->p.weights * sizeof *x->weights, "test");
}

static void close_alone(rank_alone *x) {
    mem_free(x->weights);
    gradients_destroy(&x->g);
    params_free(&x->p);
    kernels_close(&x->k);
    mesh_close(&x->ranks);
    comm_close(x->world);
}

static void test_what_a_step_may_take(void **state) {
    (void)state;
    rank_alone x;
    open_alone(&x, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const taken *c = &cases[i];
        optim_config oc = {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-16, .clip = c->clip};
        optimizer o;
        optimizer_create(&o, &oc, &x.p, x.weights, &x.g, &x.k, &x.ranks);
        *o.piece[1].gradient = c->gradient;
        gradient_figures f = optimizer_gradient(&o);
        if (f.finite != c->finite) fail_msg("clip %g, gradient %g: %d", c->clip, c->gradient, f.finite);
        if (c->finite) assert_true(f.norm == fabs((double)c->gradient));
        if (c->finite) optimizer_update(&o, oc.lr, f.norm);
        assert_true(isfinite(*o.piece[1].v));
        optimizer_destroy(&o);
    }
    close_alone(&x);
}

/* An MTP head that waits is neither moved nor decayed, and its first step is Adam's first: as long as the
 * learning rate, whatever the others' number of steps. */
static void test_a_head_that_waits(void **state) {
    (void)state;
    const optim_config oc = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-16, .weight_decay = 0.1};
    optimizer o;
    rank_alone x;
    open_alone(&x, 1);
    optimizer_create(&o, &oc, &x.p, x.weights, &x.g, &x.k, &x.ranks);
    for (int64_t i = 0; i < o.pieces; i++) *o.piece[i].weight = *o.piece[i].gradient = 1;
    for (int step = 1; step <= 4; step++) {
        o.mtp_waits = step < 4;
        gradient_figures f = optimizer_gradient(&o);
        assert_true(f.rms_min > 0); /* of those that move */
        optimizer_update(&o, oc.lr, f.norm);
        for (int64_t i = 0; i < o.pieces; i++) {
            const param *q = &x.p.param[o.piece[i].param];
            double decay = q->group == GROUP_NORM ? 1 : 1 - oc.lr * oc.weight_decay, wanted = 1;
            int steps = q->bucket != bucket_mtp(&x.p) ? step : step == 4;
            for (int n = 0; n < steps; n++) wanted = wanted * decay - oc.lr;
            if (!(fabs((double)*o.piece[i].weight - wanted) < 1e-6))
                fail_msg("%s after %d steps: %g, wanted %g", q->name, step, (double)*o.piece[i].weight,
                         wanted);
        }
    }
    optimizer_destroy(&o);
    close_alone(&x);
}

/* How often a device was waited for, and was given an update. */
static struct {
    kernels k;
    int waits, updates;
} counted;

static void to_host(kernel_context *ctx, void *host, const void *device, size_t bytes) {
    counted.waits++;
    counted.k.to_host(ctx, host, device, bytes);
}

static void adamw(kernel_context *ctx, int64_t n, adamw_step s, real *p, real *m, real *v, const real *g) {
    counted.updates++;
    counted.k.adamw(ctx, n, s, p, m, v, g);
}

/* A guard that notes moments in every other step finds nothing after any, not in a head that waits either,
 * and then what has changed.  A device is waited for once for all pieces' weights, and once for either
 * moment, and updates the twelve matrices of a layer's experts at a time; its weights are those of the host.
 */
static void test_what_is_guarded(void **state) {
    (void)state;
    const optim_config oc = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-16, .weight_decay = 0.1};
    real *on_host = NULL;
    for (int device = 0; device < 2; device++) {
        optimizer o;
        guard g;
        rank_alone x;
        open_alone(&x, 1);
        counted.k = x.k;
        if (device) x.k.host_memory = 0, x.k.to_host = to_host, x.k.adamw = adamw;
        optimizer_create(&o, &oc, &x.p, x.weights, &x.g, &x.k, &x.ranks);
        for (int64_t i = 0; i < x.g.owned_count; i++) x.g.owned[i] = 1 + (real)(i % 7);
        guard_create(&g, &x.p, &x.k);
        o.guard = &g;
        optimizer_guard_note(&o);
        for (int step = 1; step <= 5; step++) {
            o.mtp_waits = step < 4;
            g.note_moments = step % 2;
            double norm = optimizer_gradient(&o).norm;
            counted.waits = counted.updates = 0;
            optimizer_update(&o, oc.lr, norm);
            int64_t left = o.mtp_waits ? x.p.bucket[bucket_mtp(&x.p)].params : 0;
            assert_int_equal(counted.waits, device ? 4 : 0); /* to verify or to note, moments as well */
            assert_int_equal(counted.updates, device ? o.pieces - left - 2 * (12 - 1) : 0);
            g.moments_noted = g.note_moments;
            optimizer_guard_verify(&o);
            if (g.found.code) fail_msg("step %d: %s", step, g.found.text);
        }
        size_t bytes = (size_t)x.p.weights * sizeof *x.weights;
        if (device) assert_memory_equal(x.weights, on_host, bytes);
        else on_host = memcpy(mem_alloc(bytes, "test"), x.weights, bytes);
        const piece *last = &o.piece[o.pieces - 1];
        last->v[last->count - 1] += 1;
        optimizer_guard_verify(&o);
        assert_int_equal(g.found.code, EXIT_SDC);
        guard_destroy(&g);
        optimizer_destroy(&o);
        close_alone(&x);
    }
    mem_free(on_host);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_a_step_may_take),
                                       cmocka_unit_test(test_a_head_that_waits),
                                       cmocka_unit_test(test_what_is_guarded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
