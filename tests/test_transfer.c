/* Hyperparameter transfer: Table 1's factors, in the weights of a real model and in the size of its first
 * step; and what the numbers of an initial weight are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "launch/error.h"
#include "launch/memory.h"
#include "launch/random.h"
#include "model/init.h"
#include "optim/optimizer.h"
#include "tests/small_model.h"

enum { WIDTH = 96, PROXY = 24 }; /* s = 4 */

static model_config_all target(void) {
    model_config_all c = small_model();
    c.model.hidden_size = WIDTH;
    c.loss.mtp_coef = 0.3;
    return c;
}

typedef struct subject {
    kernels k;
    comm *world;
    mesh ranks;
    model m;
    gradients g;
    optimizer o;
} subject;

static void subject_open(subject *s) {
    error e;
    const model_config_all c = target();
    const parallel_config p = {.expert_replicas = 1};
    const optim_config o = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-16};
    kernels_config kc = {.device = "ref", .isa = "auto", .threads = 1};
    assert_int_equal(comm_open(&s->world, 60, &e), 0);
    assert_int_equal(mesh_open(&s->ranks, s->world, &p, 1, c.model.n_routed_experts, &e), 0);
    assert_int_equal(kernels_open(&s->k, &kc, &e), 0);
    model_create(&s->m, &c, &s->k, &s->ranks);
    gradients_create(&s->g, &s->m.p, &s->k, &s->ranks);
    optimizer_create(&s->o, &o, &s->m.p, s->m.weights, &s->g, &s->k, &s->ranks);
}

static void subject_close(subject *s) {
    optimizer_destroy(&s->o);
    gradients_destroy(&s->g);
    model_destroy(&s->m);
    kernels_close(&s->k);
    mesh_close(&s->ranks);
    comm_close(s->world);
}

static double deviation(const piece *q) {
    double sum = 0;
    for (int64_t i = 0; i < q->count; i++) sum += (double)q->weight[i] * (double)q->weight[i];
    return sqrt(sum / (double)q->count);
}

/* Table 1 for s = 4, and the proxy's deviations, by what a tensor's published name says it is. */
typedef struct expectation {
    double std, lr;
} expectation;

static expectation expected_of(const char *name) {
    if (strstr(name, "norm")) return (expectation){1, 1}; /* ones, whatever the width */
    if (!strcmp(name, "model.embed_tokens.weight")) return (expectation){1, 1};
    if (!strcmp(name, "lm_head.weight")) return (expectation){0.3 / 2, 0.25};
    return (expectation){0.1 / 2, 0.25};
}

static void table_1(void **unused) {
    (void)unused;
    const transfer_config c = {.proxy_width = PROXY};
    const init_config proxy = {.embedding_std = 1, .hidden_std = 0.1, .unembedding_std = 0.3};
    init_config init = transfer_init(&c, WIDTH, &proxy);
    int scaled = 0, kept = 0;
    subject s;
    subject_open(&s);
    init_weights(&s.m.p, &init, 3, &s.k, s.m.weights, 1);
    optimizer_transfer(&s.o, &c, WIDTH);
    for (int64_t i = 0; i < s.o.pieces; i++) {
        const piece *q = &s.o.piece[i];
        expectation x = expected_of(s.m.p.param[q->param].name);
        assert_float_equal(deviation(q) / x.std, 1, 0.12); /* of a few hundred elements */
        for (int64_t j = 0; j < q->count; j++) q->gradient[j] = 1, q->weight[j] = 0;
        *(x.lr < 1 ? &scaled : &kept) += 1;
    }
    assert_true(scaled > 50 && kept > 10);
    optimizer_update(&s.o, 1e-3, 1); /* Adam's first step is as long as its learning rate */
    for (int64_t i = 0; i < s.o.pieces; i++) {
        const piece *q = &s.o.piece[i];
        double step = -(double)q->weight[0] / 1e-3;
        assert_float_equal(step / expected_of(s.m.p.param[q->param].name).lr, 1, 1e-5);
    }
    subject_close(&s);
}

static void no_proxy_changes_nothing(void **unused) {
    (void)unused;
    const transfer_config none = {0}, same = {.proxy_width = WIDTH};
    for (int group = 0; group < PARAM_GROUPS; group++) {
        assert_true(transfer_of(&none, WIDTH, (enum param_group)group).lr == 1);
        assert_true(transfer_of(&same, WIDTH, (enum param_group)group).variance == 1);
    }
}

/* A weight's numbers are a function of seed, name and place: Box-Muller on the uniforms of these, and ones in
 * norms.  Of each bucket the experts that one of two ranks has, and tensors of an odd number of elements. */
static void numbers_of_a_weight(void **unused) {
    (void)unused;
    const double pi = 3.14159265358979323846,
                 std[PARAM_GROUPS] = {[GROUP_EMBEDDING] = 1, [GROUP_HIDDEN] = 0.1, [GROUP_UNEMBEDDING] = 0.3};
    const init_config init = {.embedding_std = 1, .hidden_std = 0.1, .unembedding_std = 0.3};
    model_config c = small_model().model;
    kernels k;
    params p;
    int odd = 0, elsewhere = 0;
    c.hidden_size = 31;
    c.vocab_size = 299;
    kernels_ref(&k, 1);
    params_create(&p, &c, 1, 2, 1);
    real *weights = mem_alloc((size_t)p.weights * sizeof *weights, "test");
    for (uint64_t seed = 3; seed < 5; seed++) {
        init_weights(&p, &init, seed, &k, weights, 1);
        for (int64_t n = 0; n < p.n; n++) {
            const param *q = &p.param[n];
            elsewhere += q->offset < 0;
            odd += q->offset >= 0 && q->group != GROUP_NORM && q->count % 2;
            for (int64_t i = 0; q->offset >= 0 && i < q->count; i++) {
                uint64_t pair = (uint64_t)i / 2 * 2, stream = random_stream(q->name);
                double turn = 2 * pi * random_uniform(seed, stream, pair + 1);
                double wanted =
                    sqrt(-2 * log(random_uniform(seed, stream, pair))) * (i % 2 ? sin : cos)(turn);
                wanted = q->group == GROUP_NORM ? 1 : std[q->group] * wanted;
                double w = (double)params_weight(&p, weights, q)[i];
                if (!(fabs(w - wanted) < 1e-6)) fail_msg("%s[%d]: %g, wanted %g", q->name, (int)i, w, wanted);
            }
        }
    }
    assert_true(odd && elsewhere);
    mem_free(weights);
    params_free(&p);
    kernels_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(table_1), cmocka_unit_test(no_proxy_changes_nothing),
                                       cmocka_unit_test(numbers_of_a_weight)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
