/* The bias controller against its formula worked by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/bias.h"

/* K = 2, N = 2, Z = 1, K_e = 1, 8 tokens: e_i = 1/4 - count_i / 16, exact in binary. */
enum { N = 2, E = 3, TOKENS = 8 };
static const model_config model = {.n_routed_experts = N, .zero_expert_num = 1, .moe_topk = 2};

typedef struct fixture {
    double e1[N], e2[N];
    int64_t waiting[N];
    bias_history h;
    real bias[E];
    int64_t step;
} fixture;

static void begin(fixture *f) {
    *f = (fixture){0};
    f->h = (bias_history){f->e1, f->e2, f->waiting, 0};
}

static void step(fixture *f, const router_config *c, int64_t first, int64_t second) {
    int64_t count[E] = {first, second, 2 * TOKENS - first - second};
    bias_step(&model, c, f->step++, count, TOKENS, &f->h, f->bias);
}

static router_config gains(double kp, double ki, double kd) {
    return (router_config){.expected_ffn_experts = 1,
                           .bias_rate = 0.5,
                           .bias_kp = kp,
                           .bias_ki = ki,
                           .bias_kd = kd,
                           .bias_budget_gain = 1,
                           .bias_update_interval = 1};
}

static void is(fixture *f, double first, double second) {
    assert_true((double)f->bias[0] == first);
    assert_true((double)f->bias[1] == second);
    assert_true(f->bias[2] == 0); /* identity experts' */
}

static void the_reports_rule(void **unused) {
    (void)unused;
    fixture f;
    router_config c = gains(0, 1, 0);
    begin(&f);
    step(&f, &c, 8, 0); /* e = -1/4, 1/4 */
    is(&f, -0.125, 0.125);
    step(&f, &c, 4, 4); /* on budget: nothing moves */
    is(&f, -0.125, 0.125);
    step(&f, &c, 0, 8);
    is(&f, 0, 0);
}

static void all_three_gains(void **unused) {
    (void)unused;
    fixture f;
    router_config c = gains(2, 1, 4);
    begin(&f);
    step(&f, &c, 8, 4); /* e = -1/4, 0; move = (2 + 1 + 4) e */
    is(&f, 0.5 * 7 * -0.25, 0);
    step(&f, &c, 4, 2); /* e = 0, 1/8: kp (e - e') + ki e + kd (e - 2 e' + e'') */
    is(&f, 0.5 * (7 * -0.25 + 2 * 0.25 + 4 * 0.5), 0.5 * 7 * 0.125);
    step(&f, &c, 4, 4); /* e = 0, 0 */
    is(&f, 0.5 * (7 * -0.25 + 2 * 0.25 + 4 * 0.5 + 4 * -0.25),
       0.5 * (7 * 0.125 + 2 * -0.125 + 4 * -2 * 0.125));
}

static void a_move_for_several_steps(void **unused) {
    (void)unused;
    fixture f;
    router_config c = gains(0, 1, 0);
    c.bias_update_interval = 2;
    begin(&f);
    step(&f, &c, 8, 0);
    is(&f, 0, 0);
    step(&f, &c, 4, 8); /* 12 and 8 of 16 tokens: e = 1/4 - 12/32, 0 */
    is(&f, 0.5 * -0.125, 0);
}

static void the_rate_decays_to_nothing(void **unused) {
    (void)unused;
    fixture f;
    router_config c = gains(0, 1, 0);
    c.bias_decay_steps = 2;
    begin(&f);
    step(&f, &c, 8, 0); /* the full rate */
    step(&f, &c, 8, 0); /* half of it */
    assert_float_equal(f.bias[0], -0.125 - 0.0625, 1e-7);
    real held = f.bias[0];
    step(&f, &c, 8, 0);
    assert_float_equal(f.bias[0], held, 1e-7);
    step(&f, &c, 8, 0); /* and beyond the end */
    assert_float_equal(f.bias[0], held, 1e-7);
}

/* What the moves of all experts have in common counts eight times, what sets them apart once. */
static void a_gain_for_the_budget(void **unused) {
    (void)unused;
    fixture f;
    router_config c = gains(0, 1, 0);
    c.bias_budget_gain = 8;
    begin(&f);
    step(&f, &c, 8, 4); /* e = -1/4, 0: -1/8 in common, and -1/8, 1/8 apart */
    is(&f, 0.5 * (8 * -0.125 - 0.125), 0.5 * (8 * -0.125 + 0.125));
    begin(&f);
    step(&f, &c, 8, 0); /* e = -1/4, 1/4: the budget is kept, so the gain does nothing */
    is(&f, -0.125, 0.125);
    begin(&f);
    c.bias_kp = 2;
    step(&f, &c, 2, 2); /* e = 1/8 in both */
    is(&f, 0.5 * 8 * 3 * 0.125, 0.5 * 8 * 3 * 0.125);
    step(&f, &c, 4, 4); /* e = 0: the proportional part goes */
    is(&f, 0.5 * 8 * 0.125, 0.5 * 8 * 0.125);
}

/* However long a bias has stood at its bound, it leaves with the first error of the other sign. */
static void a_clamped_bias_winds_nothing_up(void **unused) {
    (void)unused;
    fixture f;
    router_config c = gains(0, 1, 0);
    c.bias_clamp = 0.25;
    begin(&f);
    for (int i = 0; i < 100; i++) step(&f, &c, 8, 0);
    is(&f, -0.25, 0.25);
    step(&f, &c, 0, 8);
    is(&f, -0.125, 0.125);
}

static void the_sign_rule(void **unused) {
    (void)unused;
    fixture f;
    router_config c = gains(0, 1, 0);
    c.controller = CONTROLLER_SIGN;
    begin(&f);
    step(&f, &c, 5, 0); /* a small error moves as far as a large one */
    is(&f, -0.5, 0.5);
    step(&f, &c, 4, 4);
    is(&f, -0.5, 0.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reports_rule),
        cmocka_unit_test(all_three_gains),
        cmocka_unit_test(a_move_for_several_steps),
        cmocka_unit_test(a_gain_for_the_budget),
        cmocka_unit_test(the_rate_decays_to_nothing),
        cmocka_unit_test(a_clamped_bias_winds_nothing_up),
        cmocka_unit_test(the_sign_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
