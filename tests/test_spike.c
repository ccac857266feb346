/* The spike detector against figures worked by hand; what is left out after a rollback; the checkpoint's copy
 * of it; the order of a batch that is written; and the coefficient that keeps R_g at a target. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "data/indexed.h"
#include "launch/memory.h"
#include "model/balance.h"
#include "tests/scratch.h"
#include "train/spike_batch.h"

static const spike_config four = {SPIKE_WARN, 4, 3, 3, 2};

static void learn(spikes *s, const spike_config *c, double loss, double grad) {
    spike_verdict v = spikes_judge(s, c, loss, grad);
    spikes_learn(s, c, &v, loss, grad);
}

static void near(double x, double want) {
    assert_true(isfinite(x) && fabs(x - want) <= 1e-12 * fabs(want));
}

static void mean_and_deviation(void **unused) {
    (void)unused;
    /* 1, 2, 4, 1 have mean 2 and squares 1 + 0 + 4 + 1 around it */
    const double x[] = {100, 1, 2, 4, 1};
    spikes s = {0};
    for (int i = 0; i < 5; i++) {
        spike_verdict v = {0, INFINITY, INFINITY};
        spikes_learn(&s, &four, &v, x[i], -2 * x[i]);
    }
    double mean, deviation;
    recent_mean(&s.loss, s.seen, &mean, &deviation);
    assert_int_equal(s.seen, 4);
    assert_true(mean == 2);
    near(deviation, sqrt(6.0 / 4));
    spike_verdict v = spikes_judge(&s, &four, 0, 0);
    near(v.loss_limit, 2 + 3 * sqrt(1.5));
    near(v.grad_limit, -4 + 3 * 2 * sqrt(1.5));
}

static spikes quiet(const spike_config *c, int steps) {
    spikes s = {0};
    for (int i = 0; i < steps; i++) learn(&s, c, 2 + 0.01 * (i % 2), 1 + 0.01 * (i % 3));
    assert_int_equal(s.told, 0);
    return s;
}

static void verdicts(void **unused) {
    (void)unused;
    spikes s = quiet(&four, 3);
    assert_false(spikes_judge(&s, &four, 100, 100).spike); /* not enough steps yet */
    s = quiet(&four, 8);
    assert_false(spikes_judge(&s, &four, 2.01, 1.02).spike);
    assert_true(spikes_judge(&s, &four, 2.2, 1).spike);
    assert_true(spikes_judge(&s, &four, 2, 1.2).spike);
    assert_false(spikes_judge(&s, &four, 0.1, 0.1).spike); /* a fall is none */
    spike_config c = four;
    c.grad_factor = 0;
    assert_false(spikes_judge(&s, &c, 2, 1000).spike);
    c.on_spike = SPIKE_OFF;
    assert_false(spikes_judge(&s, &c, 1000, 1000).spike);
    assert_false(spikes_judge(&s, &four, NAN, 1).spike); /* train.on_nonfinite's */
    c.on_spike = SPIKE_ROLLBACK;
    assert_true(spikes_judge(&s, &c, NAN, 1).spike);
    assert_true(spikes_judge(&(spikes){0}, &c, 1, INFINITY).spike);
}

static void a_spike_does_not_hide_the_next(void **unused) {
    (void)unused;
    spikes s = quiet(&four, 8);
    learn(&s, &four, 1000, 1);
    assert_int_equal(s.told, 1);
    assert_true(s.spiking && s.loss.value[3] < 2.1);
    learn(&s, &four, 2, 1000);
    assert_int_equal(s.told, 2);
    assert_true(s.spiking && s.grad.value[3] < 1.1);
    learn(&s, &four, 2, 1);
    assert_false(s.spiking);
    learn(&s, &four, 1000, 1);
    assert_int_equal(s.told, 3);
    for (int i = 0; i < 100; i++) learn(&s, &four, 1000, 1); /* the new level */
    assert_false(s.spiking);
    recent before = s.loss;
    learn(&s, &four, NAN, 1);
    assert_memory_equal(&before, &s.loss, sizeof before);
}

static void stages_begin_anew(void **unused) {
    (void)unused;
    config *c = test_calloc(1, sizeof *c);
    spikes s = quiet(&four, 8);
    c->data.stages = 1;
    c->data.stage[0].after = 8;
    spikes_enter(&s, c, 7);
    assert_int_equal(s.seen, 4);
    spikes_enter(&s, c, 8);
    assert_int_equal(s.seen, 0);
    s = quiet(&four, 8);
    c->loss.mtp_coef = 0.1;
    c->loss.mtp_start = 20;
    spikes_enter(&s, c, 20);
    assert_int_equal(s.seen, 0);
    test_free(c);
}

static void samples_left_out(void **unused) {
    (void)unused;
    spikes s = {0};
    assert_int_equal(spikes_position(&s, 40), 40);
    spikes_add(&s, (rollback){.step = 6, .first = 40, .end = 48});
    spikes_add(&s, (rollback){.step = 6, .first = 48, .end = 56}); /* what came instead leapt too */
    spikes_add(&s, (rollback){.step = 9, .first = 72, .end = 80});
    assert_int_equal(spikes_position(&s, 32), 32);
    assert_int_equal(spikes_position(&s, 40), 56);
    assert_int_equal(spikes_position(&s, 56), 56);
    assert_int_equal(spikes_position(&s, 72), 80);
    assert_int_equal(spikes_rollbacks_of(&s, 6), 2);
    assert_int_equal(spikes_rollbacks_of(&s, 9), 1);
    assert_int_equal(spikes_rollbacks_of(&s, 7), 0);
    spikes_free(&s);
}

static void a_checkpoint_has_every_bit(void **unused) {
    (void)unused;
    spikes s = quiet(&four, 9), t = {0};
    learn(&s, &four, 1.0 / 3, 0.1);
    learn(&s, &four, 50, 0.1);
    for (int i = 0; i < 20; i++)
        spikes_add(&s, (rollback){i, 8 * i, 8 * i + 8, 1.0 / (3 + i), INFINITY, 0.1 * i, 1e-300});
    spikes_add(&t, (rollback){.step = 1}); /* goes */
    for (int twice = 0; twice < 2; twice++) {
        json_t *j = spikes_to_json(&s);
        char *text = json_dumps(j, 0);
        json_decref(j);
        j = json_loads(text, 0, NULL);
        spikes_from_json(&t, j);
        json_decref(j);
        free(text);
        assert_true(t.seen == s.seen && t.told == s.told && t.spiking == s.spiking && t.spiking);
        assert_memory_equal(t.loss.value, s.loss.value, 4 * sizeof *s.loss.value);
        assert_memory_equal(t.grad.value, s.grad.value, 4 * sizeof *s.grad.value);
        assert_int_equal(t.rollbacks, 20);
        assert_memory_equal(t.rollback, s.rollback, 20 * sizeof *s.rollback);
    }
    spikes_from_json(&t, NULL); /* a checkpoint from before there was any of this */
    assert_true(t.seen == 0 && t.rollbacks == 0);
    spikes_free(&s);
    spikes_free(&t);
}

static void what_is_no_number_comes_first(void **state) {
    scratch *s = *state;
    session *x = test_calloc(1, sizeof *x);
    double loss[] = {1, NAN, 3, NAN};
    const int32_t ids[100] = {0};
    char *prefix = scratch_path(s, "text"), *path;
    error e = {0};
    indexed_writer w;
    assert_int_equal(indexed_create(&w, prefix, "", 300, &e), 0);
    indexed_add(&w, ids, 100);
    if (indexed_finish(&w, &e) || indexed_commit(&w, &e)) fail_msg("%s", e.text);
    x->c.run_dir = s->directory;
    x->c.data.sources = 1;
    x->c.data.source[0] = (data_source){.name = prefix, .train = prefix, .weight = 1};
    x->s.c.train = (train_config){.micro_batches = 2, .micro_batch_size = 2, .seq_len = 8};
    x->s.position = 4;
    x->s.sample_loss = loss;
    assert_int_equal(comm_open(&x->world, 10, &e), 0);
    assert_int_equal(tokenizer_open(&x->tokenizer, "tests/golden/tokenizer/tokenizer.json", &e), 0);
    assert_int_equal(loader_open(&x->train, &x->c.data, 0, 8, 300, 1, &e), 0);
    step_result r = {.spike = {1, INFINITY, INFINITY}};
    if (spike_batch_write(x, &r, 0, &path, &e)) fail_msg("%s", e.text);
    char *text = scratch_read(path, NULL), *at = text;
    static const char *const order[] = {"sample 1 ", "sample 3 ", "sample 2 ", "sample 0 "};
    for (int i = 0; i < 4; i++) {
        at = strstr(at, order[i]);
        assert_non_null(at);
    }
    free(text);
    mem_free(path);
    loader_close(x->train);
    tokenizer_close(x->tokenizer);
    comm_close(x->world);
    test_free(x);
}

static void alpha_finds_its_target(void **unused) {
    (void)unused;
    router_config c = {.lb_alpha = 1e-3, .grad_ratio_target = 0.1};
    near(balance_step(&c, 0.2), 1e-3 * pow(0.5, 0.1));
    assert_true(balance_step(&c, 1e9) == 0.5e-3 && balance_step(&c, 1e-9) == 2e-3);
    assert_true(balance_step(&c, 0) == 1e-3 && balance_step(&c, NAN) == 1e-3 &&
                balance_step(&c, INFINITY) == 1e-3);
    for (int step = 0; step < 200; step++) c.lb_alpha = balance_step(&c, 700 * c.lb_alpha);
    assert_float_equal(700 * c.lb_alpha, 0.1, 1e-6);
    for (int step = 0; step < 200; step++) c.lb_alpha = balance_step(&c, 1e-3 * c.lb_alpha);
    assert_true(c.lb_alpha == 1); /* no balance loss weighs more than the language's */
    c = (router_config){.lb_alpha = 1e-3};
    assert_true(balance_step(&c, 5) == 1e-3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mean_and_deviation),
        cmocka_unit_test(verdicts),
        cmocka_unit_test(a_spike_does_not_hide_the_next),
        cmocka_unit_test(stages_begin_anew),
        cmocka_unit_test(samples_left_out),
        cmocka_unit_test(a_checkpoint_has_every_bit),
        cmocka_unit_test_setup_teardown(what_is_no_number_comes_first, scratch_setup, scratch_teardown),
        cmocka_unit_test(alpha_finds_its_target),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
