/* data.stages: what a stage leaves to the one before, what is written reads back, what a resume may change,
 * and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/config_text.h"
#include "train/console.h"
#include "train/metrics.h"
#include "train/stages.h"

static const char good[] =
    "run: {dir: runs/x}\n"
    "model: {vocab_size: 512, hidden_size: 64, num_layers: 2, num_attention_heads: 2, q_lora_rank: 32,\n"
    "        kv_lora_rank: 16, qk_nope_head_dim: 16, qk_rope_head_dim: 8, v_head_dim: 16,\n"
    "        ffn_hidden_size: 128, expert_ffn_hidden_size: 32, n_routed_experts: 8, zero_expert_num: 4,\n"
    "        moe_topk: 3, rope_theta: 1e6}\n"
    "router: {expected_ffn_experts: 2}\n"
    "optim: {lr: 1e-3}\n"
    "train: {steps: 1000, seq_len: 32, micro_batches: 4, micro_batch_size: 8}\n"
    "data:\n"
    "  tokenizer: tok.json\n"
    "  stages:\n"
    "    - {after: 200, weights: {b: 3, a: 1}, ramp: 50}\n"
    "    - {after: 300, seq_len: 128, rope_theta: 5e6, micro_batch_size: 2}\n"
    "    - {after: 500, micro_batches: 8}\n"
    "  sources:\n"
    "    - {name: a, train: a.train, weight: 2}\n"
    "    - {name: b, train: b.train}\n";

static int load(scratch *s, config *c, const char *text, error *e) {
    return load_text(s, c, text, NULL, NULL, e);
}

static const char *edited(const char *from, const char *to) {
    return edited_text(good, from, to);
}

static void stages_are_completed(void **state) {
    config c;
    error e;
    if (load(*state, &c, good, &e)) fail_msg("%s", e.text);
    assert_int_equal(c.data.stages, 3);
    const data_stage *g = c.data.stage;
    assert_true(g[0].seq_len == 32 && g[0].micro_batches == 4 && g[0].rope_theta == 1e6);
    assert_true(g[0].weight[0] == 1 && g[0].weight[1] == 3 && g[2].weight[1] == 3);
    assert_true(g[1].seq_len == 128 && g[1].rope_theta == 5e6 && g[2].seq_len == 128);
    assert_int_equal(g[0].position, 200 * 32);
    assert_int_equal(g[0].ramp_samples, 50 * 32);
    assert_int_equal(g[1].position, 300 * 32);
    assert_int_equal(g[2].position, 300 * 32 + 200 * 8);
    assert_int_equal(stage_of(&c, 199), 0);
    assert_int_equal(stage_of(&c, 200), 1);
    assert_int_equal(stage_of(&c, 100000), 3);
    assert_true(stages_tokens(&c, 100) == 100 * 1024); /* in the middle of a stage */
    assert_true(stages_tokens(&c, 200) == 200 * 1024 && stages_tokens(&c, 501) == 500 * 1024 + 2048);
    batch_shape most = stages_largest(&c);
    assert_true(most.seq_len == 128 && most.micro_batches == 8 && most.micro_batch_size == 2);
    assert_int_equal(stages_row(&c), 8 * (32 + 2));
    assert_int_equal(stages_most_samples(&c), 4 * 8);
    config_free(&c);
    assert_int_equal(load(*state, &c, edited("after: 300", "after: 250"), &e), 0); /* where a ramp ends */
    config_free(&c);
    assert_int_equal(load(*state, &c, edited("micro_batches: 8}", "micro_batches: 20}"), &e), 0);
    assert_int_equal(stages_most_samples(&c), 20 * 2); /* the last stage's */
    assert_int_equal(stages_check(&c, 4, &e), 0);
    config_free(&c);
    assert_int_equal(load(*state, &c, edited("micro_batches: 8}", "micro_batches: 6}"), &e), 0);
    assert_int_equal(stages_check(&c, 4, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "data.stages: the stage after step 500: "));
    config_free(&c);
    assert_int_equal(load(*state, &c, edited("micro_batch_size: 8", "micro_batch_size: 9"), &e), 0);
    assert_int_equal(stages_largest(&c).micro_batch_size, 3); /* 288 tokens want three rows of 128 */
    double each = metrics_flops_per_token(&c);                /* of stage 0 */
    /* 4 attentions of 2 heads, each of 16 positions on average by 16 + 8 + 16 multiply-adds; thrice */
    assert_true(each - 6 * params_active(&c.model, 2) == 3 * 4 * 2 * 16 * 40 * 2);
    assert_true(metrics_flops(&c, 1e5) == 1e5 * each && metrics_flops(&c, 6e5) > 6e5 * each);
    config_free(&c);
}

/* The time left is that of the FLOPs left, at the speed so far. */
static void time_left(void **test) {
    config c;
    error e;
    if (load(*test, &c, good, &e)) fail_msg("%s", e.text);
    const state s = {.run = &c, .c = c, .step = 400};
    console o = {.since = {comm_clock() - 1e4, 100}, .next = {comm_clock(), 400}};
    double at[3] = {100, 400, 1000};
    for (int i = 0; i < 3; i++) at[i] = metrics_flops(&c, stages_tokens(&c, (int64_t)at[i]));
    assert_float_equal(console_left(&o, &s), 1e4 * (at[2] - at[1]) / (at[1] - at[0]), 100);
    config_free(&c);
}

static void what_is_written_reads_back(void **state) {
    config c, again;
    error e;
    char *text = NULL, hex[33], hex_again[33];
    size_t size;
    if (load(*state, &c, good, &e)) fail_msg("%s", e.text);
    FILE *out = open_memstream(&text, &size);
    assert_int_equal(config_write(&c, out), 0);
    fclose(out);
    if (load(*state, &again, text, &e)) fail_msg("%s", e.text);
    config_digest(&c, hex);
    config_digest(&again, hex_again);
    assert_string_equal(hex, hex_again);
    assert_memory_equal(c.data.stage, again.data.stage, sizeof c.data.stage);
    free(text);
    config_free(&c);
    config_free(&again);
}

/* A resume may change stages that have not begun, and no others. */
static void stages_to_come_may_change(void **state) {
    config c;
    error e;
    if (load(*state, &c, good, &e)) fail_msg("%s", e.text);
    json_t *before = config_deciding(&c);
    config_free(&c);
    if (load(*state, &c, edited("after: 300, seq_len: 128", "after: 400, seq_len: 64"), &e))
        fail_msg("%s", e.text);
    assert_int_equal(config_compare(&c, before, 300, &e), 0);
    assert_int_equal(config_compare(&c, before, 301, &e), EXIT_USAGE);
    assert_string_equal(e.text,
                        "this config gives other numbers than the checkpoint's: data.stages after 300 is no "
                        "longer there");
    assert_int_equal(config_compare(&c, before, 401, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "data.stages after 400 is ramp 0, seq_len 64, rope_theta 5e+06, "
                                   "micro_batches 4, micro_batch_size 2, a 1, b 3, was not there"));
    config_free(&c);
    json_decref(before);
}

static void what_is_refused(void **state) {
    static const struct {
        const char *from, *to, *message; /* after the file's name */
    } bad[] = {
        {"after: 300", "after: 200",
         ":13: data.stages: after = 200: stages stand in order, and the one "
         "before has after = 200"},
        {"after: 300", "after: 249",
         ":13: data.stages: after = 249: overlaps the stage before, which has "
         "after = 200 and ramp = 50"},
        {"{b: 3, a: 1}", "{b: 0, a: 0}", ":12: data.stages: weights: their sum is 0; it must be above 0"},
        {"{b: 3, a: 1}", "{b: 3}",
         ":12: data.stages: weights: source a has none; every source needs one (0: "
         "none of it)"},
        {"{b: 3, a: 1}", "{b: 3, d: 1}", ":12: data.stages: weights: there is no source d in data.sources"},
        {"{b: 3, a: 1}", "{b: -3, a: 1}", ":12: data.stages: weights: b = -3: must be a number, at least 0"},
        {"{b: 3, a: 1}", "{b: 3, a: 1, b: 1}",
         ":12: data.stages: weights: b is said twice, first in line 12"},
        {"{b: 3, a: 1}", "3", ":12: data.stages: weights must be a mapping {source: weight, ...}"},
        {"weights: {b: 3, a: 1}, ", "",
         ":12: data.stages: ramp = 50: moves weights, and there are none here"},
        {"seq_len: 128", "seq_len: 0",
         ":13: data.stages: seq_len = 0: must be an integer, at least 1 and at "
         "most 1048576"},
        {"rope_theta: 5e6", "rope_theta: 0.5",
         ":13: data.stages: rope_theta = 0.5: must be a number, at least 1"},
        {"seq_len: 128", "sequence: 8",
         ":13: unknown key data.stages: sequence; `caracal train --help` lists "
         "the keys"},
        {"seq_len: 128", "seq_len: 1048576, micro_batches: 1, micro_batch_size: 64, ramp: 0, after: 7",
         ":13: data.stages: after is said twice, first in line 13"},
        {"seq_len: 128, rope_theta: 5e6, micro_batch_size: 2", "seq_len: 1048576, micro_batch_size: 1024",
         ":13: data.stages: micro_batch_size = 1024: times seq_len = 1048576 times model.moe_topk must be at "
         "most 2147483647"},
        {"after: 500, ", "", ":14: data.stages: an entry has no after: the steps done before it begins"},
        {"after: 500", "after: 9000000000000000000", ":14: data.stages: is beyond sample 2^53 of the run"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        config c;
        error e;
        assert_int_equal(load(*state, &c, edited(bad[i].from, bad[i].to), &e), EXIT_USAGE);
        const char *after_name = strstr(e.text, "c.yaml");
        assert_non_null(after_name);
        assert_string_equal(after_name + strlen("c.yaml"), bad[i].message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_are_completed),
        cmocka_unit_test(time_left),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(stages_to_come_may_change),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests_name("stages", tests, scratch_setup, scratch_teardown);
}
