/* The config: every kind of mistake has its message, what is written reads back, and the digest sees what
 * decides numbers and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/config_text.h"
#include "train/config_table.h"

static const char good[] = "run: {dir: runs/x}\n"
                           "model:\n"
                           "  vocab_size: 512\n"
                           "  hidden_size: 64\n"
                           "  num_layers: 2\n"
                           "  num_attention_heads: 2\n"
                           "  q_lora_rank: 32\n"
                           "  kv_lora_rank: 16\n"
                           "  qk_nope_head_dim: 16\n"
                           "  qk_rope_head_dim: 8\n"
                           "  v_head_dim: 16\n"
                           "  ffn_hidden_size: 128\n"
                           "  expert_ffn_hidden_size: 32\n"
                           "  n_routed_experts: 8\n"
                           "  zero_expert_num: 4\n"
                           "  moe_topk: 3\n"
                           "router: {expected_ffn_experts: 2}\n"
                           "optim: {lr: 1e-3}\n"
                           "train: {steps: 10, seq_len: 32, micro_batches: 4}\n"
                           "data:\n"
                           "  tokenizer: tok.json\n"
                           "  sources:\n"
                           "    - {name: a, train: a.train, valid: a.valid, weight: 2}\n"
                           "    - {name: b, train: b.train}\n";

/* `text` must be refused with exactly this message; FILE stands for the file's path. */
static void expect_refusal(scratch *p, const char *text, const char *override, const char *message) {
    config c;
    error e;
    char want[1024] = "", *out = want;
    for (const char *m = message; *m;) {
        if (!strncmp(m, "FILE", 4)) out += sprintf(out, "%s/c.yaml", p->directory), m += 4;
        else *out++ = *m++;
    }
    *out = 0;
    assert_int_equal(load_text(p, &c, text, override, NULL, &e), EXIT_USAGE);
    assert_string_equal(e.text, want);
    assert_null(c.run_dir); /* nothing half done */
}

static const char *edited(const char *from, const char *to) {
    return edited_text(good, from, to);
}

static void reads_values_and_defaults(void **state) {
    config c;
    error e;
    assert_int_equal(load_text(*state, &c, good, NULL, NULL, &e), 0);
    assert_int_equal(c.model.hidden_size, 64);
    assert_int_equal(c.model.moe_input, MOE_SHORTCUT);
    assert_int_equal(c.model.mla_scale_q_lora, 1);
    assert_true(c.optim.lr == 1e-3 && c.optim.eps == 1e-16 && c.model.latent_norm_eps == 1e-6);
    assert_true(c.wait_timeout == 600);
    assert_int_equal(c.data.sources, 2);
    assert_string_equal(c.data.source[0].valid, "a.valid");
    assert_null(c.data.source[1].valid);
    assert_true(c.data.source[0].weight == 2 && c.data.source[1].weight == 1);
    assert_string_equal(c.run_dir, "runs/x");
    assert_string_equal(c.kernels.device, "cpu");
    assert_int_equal(c.parallel.expert_parallel, 0);
    config_free(&c);
    assert_null(c.data.tokenizer);
}

static void reads_numbers_as_people_write_them(void **state) {
    config c;
    error e;
    assert_int_equal(load_text(*state, &c, good, "--train.steps=2e9", "--wait_timeout=1.5h", &e), 0);
    assert_true(c.train.steps == 2000000000 && c.wait_timeout == 5400);
    config_free(&c);
    assert_int_equal(load_text(*state, &c, good, "--train.steps=4GiB", "--wait_timeout=500ms", &e), 0);
    assert_true(c.train.steps == INT64_C(4) << 30 && c.wait_timeout == 0.5);
    config_free(&c);
    assert_int_equal(
        load_text(*state, &c, good, "--train.seed=9223372036854775807", "--train.steps=1.5k", &e), 0);
    assert_true(c.train.seed == INT64_MAX && c.train.steps == 1500);
    config_free(&c);
    assert_int_equal(
        load_text(*state, &c, good, "--parallel.expert_parallel=auto", "--parallel.threads=2", &e), 0);
    assert_true(c.parallel.expert_parallel == 0 && c.parallel.threads == 2);
    config_free(&c);
    const char *all = edited("moe_topk: 3", "moe_topk: 9"); /* each token may have all FFN experts */
    assert_int_equal(load_text(*state, &c, all, "--router.expected_ffn_experts=8", NULL, &e), 0);
    config_free(&c);
}

static void overrides_win_and_reach_sources(void **state) {
    config c;
    error e;
    assert_int_equal(
        load_text(*state, &c, good, "--model.moe_input=sequential", "--data.sources.b.weight=0.5", &e), 0);
    assert_int_equal(c.model.moe_input, MOE_SEQUENTIAL);
    assert_true(c.data.source[1].weight == 0.5);
    config_free(&c);
    assert_int_equal(load_text(*state, &c, good, "--run.dir=/a b", "--run.dir=/c", &e), 0);
    assert_string_equal(c.run_dir, "/c");
    config_free(&c);
}

static void names_unknown_keys(void **state) {
    expect_refusal(*state, edited("hidden_size: 64", "hiden_size: 64"), NULL,
                   "FILE:4: unknown key model.hiden_size; did you mean model.hidden_size?");
    expect_refusal(*state, edited("optim: {lr: 1e-3}", "optim: {lr: 1e-3}\nrooter: {lb_groups: 2}"), NULL,
                   "FILE:19: unknown key rooter; `caracal train --help` lists the keys");
    expect_refusal(*state, good, "--router.moe_topk=3",
                   "command line: unknown key router.moe_topk; did you mean model.moe_topk?");
    expect_refusal(*state, good, "--nonsense=3",
                   "command line: unknown key nonsense; `caracal train --help` lists the keys");
    expect_refusal(*state, edited("valid: a.valid", "vald: a.valid"), NULL,
                   "FILE:23: unknown key data.sources: vald; did you mean data.sources: valid?");
}

static void names_what_is_missing_or_double(void **state) {
    expect_refusal(*state, edited("  moe_topk: 3\n", ""), NULL,
                   "FILE: model.moe_topk is missing; it must be an integer, at least 1 and at most 4096");
    expect_refusal(*state, edited("  moe_topk: 3\n", "  moe_topk: 3\n  moe_topk: 3\n"), NULL,
                   "FILE:17: model.moe_topk is said twice, first in line 16");
    expect_refusal(*state,
                   edited("optim: {lr: 1e-3}", "optim: {lr: 1e-3}\nrouter: {expected_ffn_experts: 1}"), NULL,
                   "FILE:19: router.expected_ffn_experts is said twice, first in line 17");
    expect_refusal(
        *state, edited("moe_topk: 3", "moe_topk:"), NULL,
        "FILE:16: model.moe_topk has no value; it must be an integer, at least 1 and at most 4096");
    expect_refusal(*state, edited("name: b, ", ""), NULL, "FILE:24: data.sources: an entry has no name");
    expect_refusal(*state, edited("name: b", "name: a"), NULL,
                   "FILE:24: data.sources: two entries are named a");
    expect_refusal(*state, "", NULL, "FILE: is empty; a config is YAML, as in configs/nano.yaml");
}

static void refuses_wrong_types_and_ranges(void **state) {
    expect_refusal(*state, edited("lr: 1e-3", "lr: fast"), NULL,
                   "FILE:18: optim.lr = fast: must be a number, above 0");
    expect_refusal(*state, edited("lr: 1e-3", "lr: nan"), NULL,
                   "FILE:18: optim.lr = nan: must be a number, above 0");
    expect_refusal(*state, edited("lr: 1e-3", "lr: 1e999"), NULL,
                   "FILE:18: optim.lr = 1e999: must be a number, above 0");
    expect_refusal(*state, edited("lr: 1e-3", "lr: [1, 2]"), NULL,
                   "FILE:18: optim.lr = (a list or mapping): must be a number, above 0");
    expect_refusal(*state, edited("steps: 10", "steps: 10.5"), NULL,
                   "FILE:19: train.steps = 10.5: must be an integer, at least 1");
    expect_refusal(*state, edited("steps: 10", "steps: 99999999999999999999"), NULL,
                   "FILE:19: train.steps = 99999999999999999999: must be an integer, at least 1");
    expect_refusal(
        *state, good, "--optim.warmup_steps=9223372036854775807",
        "command line: optim.warmup_steps = 9223372036854775807: must be an integer, at least 0 and at "
        "most 1e+10");
    /* what a config.yaml would not give back */
    expect_refusal(
        *state, good, "--run.dir=runs/caf\xE9",
        "command line: run.dir = runs/caf\xE9: must be a text in UTF-8 without control characters");
    expect_refusal(
        *state, good, "--run.dir=a\xE2\x80\xA8z",
        "command line: run.dir = a\xE2\x80\xA8z: must be a text in UTF-8 without control characters");
    expect_refusal(*state, good, "--train.steps=0",
                   "command line: train.steps = 0: must be an integer, at least 1");
    expect_refusal(*state, good, "--optim.beta2=1",
                   "command line: optim.beta2 = 1: must be a number, at least 0 and below 1");
    expect_refusal(
        *state, good, "--wait_timeout=10 minutes",
        "command line: wait_timeout = 10 minutes: must be a time such as 90s, 10m or 2h, at least 0.1 and "
        "at most 1000000");
    expect_refusal(*state, good, "--model.document_mask=yes",
                   "command line: model.document_mask = yes: must be true or false");
    expect_refusal(*state, good, "--model.moe_input=short",
                   "command line: model.moe_input = short: must be shortcut or sequential");
    expect_refusal(*state, good, "--device=gpu",
                   "command line: device = gpu: must be ref, cpu, cuda, check:cpu, check:ref or check:cuda");
    expect_refusal(
        *state, good, "--parallel.threads=many",
        "command line: parallel.threads = many: must be auto or an integer, at least 0 and at most 4096");
    expect_refusal(
        *state, good, "--data.sources.c.weight=1",
        "command line: data.sources.c.weight: no such source; write data.sources.NAME.weight, .train or "
        ".valid");
    expect_refusal(*state, good, "train.steps=3", "command line: train.steps=3: must be --section.key=value");
    expect_refusal(*state, edited("optim: {lr: 1e-3}", "optim: 3"), NULL,
                   "FILE:18: optim is a section: its keys stand below it, indented");
    expect_refusal(*state, "model: {a: 1\n", NULL, "FILE:2: not YAML: did not find expected ',' or '}'");
    expect_refusal(
        *state, "model:\n\ta: 1\n", NULL,
        "FILE:2: not YAML: found character that cannot start any token; a tab? only spaces indent");
}

static void refuses_impossible_combinations(void **state) {
    expect_refusal(
        *state, edited("moe_topk: 3", "moe_topk: 13"), NULL,
        "FILE:16: model.moe_topk = 13: must be at most model.n_routed_experts + model.zero_expert_num = 12");
    expect_refusal(
        *state, good, "--router.expected_ffn_experts=3",
        "command line: router.expected_ffn_experts = 3: must be below model.moe_topk = 3 when there are "
        "identity experts");
    expect_refusal(
        *state, good, "--model.zero_expert_num=0",
        "FILE:17: router.expected_ffn_experts = 2: must be model.moe_topk = 3 when model.zero_expert_num is "
        "0");
    expect_refusal(*state, edited("moe_topk: 3", "moe_topk: 9"), "--router.expected_ffn_experts=8.5",
                   "command line: router.expected_ffn_experts = 8.5: must be at most "
                   "model.n_routed_experts = 8");
    expect_refusal(
        *state, edited("expected_ffn_experts: 2", "expected_ffn_experts: 2, controller: sign"),
        "--router.bias_budget_gain=2",
        "FILE:17: router.controller = sign: has no gains: leave router.bias_kp, bias_ki, bias_kd and "
        "bias_budget_gain alone");
    expect_refusal(*state, good, "--router.lb_groups=3",
                   "command line: router.lb_groups = 3: must divide model.n_routed_experts = 8");
    expect_refusal(*state, edited("expected_ffn_experts: 2", "expected_ffn_experts: 2, lb_alpha: 0"),
                   "--router.grad_ratio_target=0.1",
                   "command line: router.grad_ratio_target = 0.1: moves router.lb_alpha by factors, which "
                   "leave 0 as it is");
    expect_refusal(*state, good, "--model.qk_rope_head_dim=7",
                   "command line: model.qk_rope_head_dim = 7: must be even: RoPE turns pairs");
    expect_refusal(
        *state, good, "--optim.schedule=cosine",
        "FILE: optim.schedule_steps = 0 (the default): must be at least 1: optim.warmup_steps = 0 and the "
        "fall after it");
    expect_refusal(
        *state, edited("lr: 1e-3", "lr: 1e-3, schedule: wsd, schedule_steps: 9, warmup_steps: 5"),
        "--optim.decay_steps=5",
        "FILE:18: optim.schedule_steps = 9: must be at least 10: optim.warmup_steps = 5 and the fall after "
        "it");
    expect_refusal(*state, good, "--checkpoint.keep_every=3",
                   "command line: checkpoint.keep_every = 3: must be a multiple of checkpoint.every = 0");
    expect_refusal(
        *state, edited("micro_batches: 4", "micro_batches: 4, micro_batch_size: 1048576"),
        "--train.seq_len=1k",
        "FILE:19: train.micro_batch_size = 1048576: times train.seq_len times model.moe_topk must be at "
        "most 2147483647");
}

static void every_preset_loads(void **state) {
    (void)state;
    static const char *const presets[] = {"nano", "nano-14", "bench", "proxy-768", "longcat-flash"};
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        char path[64];
        config c;
        error e = {0};
        snprintf(path, sizeof path, "configs/%s.yaml", presets[i]);
        if (config_load(&c, path, 0, NULL, &e)) fail_msg("%s", e.text);
        config_free(&c);
    }
}

/* What config_write gives, as text. */
static char *written(const config *c) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    assert_int_equal(config_write(c, out), 0);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void what_is_written_reads_back(void **state) {
    config c, again;
    error e;
    assert_int_equal(
        load_text(*state, &c, good, "--run.dir=it's: #1 \"new\"", "--optim.lr=0.1234567890123456789", &e), 0);
    char *text = written(&c);
    if (load_text(*state, &again, text, NULL, NULL, &e)) fail_msg("%s", e.text);
    assert_string_equal(again.run_dir, "it's: #1 \"new\"");
    assert_true(again.optim.lr == c.optim.lr);
    assert_memory_equal(&again.model, &c.model, sizeof c.model);
    assert_memory_equal(&again.router, &c.router, sizeof c.router);
    assert_memory_equal(&again.train, &c.train, sizeof c.train);
    assert_memory_equal(&again.kernels, &c.kernels, sizeof c.kernels);
    char *text_again = written(&again), hex[33], hex_again[33];
    assert_string_equal(text, text_again);
    config_digest(&c, hex);
    config_digest(&again, hex_again);
    assert_string_equal(hex, hex_again);
    free(text), free(text_again);
    config_free(&c), config_free(&again);
}

static void digest_sees_what_decides_numbers(void **state) {
    static const char *const deciding[] = {
        "--optim.lr=2e-3",
        "--train.seed=2",
        "--model.moe_input=sequential",
        "--train.seq_len=64",
        "--init.hidden_std=0.1",
        "--router.bias_rate=1e-2",
        "--parallel.expert_replicas=2",
        "--loss.hidden_z_coef=1e-3",
        "--train.micro_batches=8",
        "--data.sources.a.weight=3",
        "--model.document_mask=true",
        "--parallel.rank_invariant=false",
    };
    static const char *const free_keys[] = {
        "--train.steps=99",
        "--run.dir=elsewhere",
        "--device=ref",
        "--parallel.threads=2",
        "--checkpoint.every=7",
        "--train.log_every=3",
        "--isa=avx2",
        "--parallel.expert_parallel=2",
        "--data.tokenizer=/t.json",
        "--data.sources.a.train=/a",
        "--model.recompute=true",
        "--metrics.digest_every=1",
        "--sdc.interval=1",
        "--sdc.on_corruption=warn",
        "--optim.lr=0.001",
        "--train.on_nonfinite=skip",
        "--parallel.chunks=5",
        "--parallel.overlap=false",
    };
    config c;
    error e;
    char base[33], hex[33];
    assert_int_equal(load_text(*state, &c, good, NULL, NULL, &e), 0);
    config_digest(&c, base);
    assert_int_equal(strlen(base), 32);
    json_t *before = config_deciding(&c);
    config_free(&c);
    for (size_t i = 0; i < sizeof deciding / sizeof *deciding; i++) {
        if (load_text(*state, &c, good, deciding[i], NULL, &e)) fail_msg("%s", e.text);
        config_digest(&c, hex);
        if (!strcmp(hex, base)) fail_msg("the digest does not see %s", deciding[i]);
        assert_int_equal(config_compare(&c, before, 0, &e), EXIT_USAGE);
        config_free(&c);
    }
    for (size_t i = 0; i < sizeof free_keys / sizeof *free_keys; i++) {
        if (load_text(*state, &c, good, free_keys[i], NULL, &e)) fail_msg("%s", e.text);
        config_digest(&c, hex);
        if (strcmp(hex, base)) fail_msg("the digest should not see %s", free_keys[i]);
        assert_int_equal(config_compare(&c, before, 0, &e), 0);
        config_free(&c);
    }
    json_decref(before);
}

static void compare_lists_the_keys_that_differ(void **state) {
    config c;
    error e;
    assert_int_equal(load_text(*state, &c, good, NULL, NULL, &e), 0);
    json_t *before = config_deciding(&c);
    config_free(&c);
    json_object_set_new(before, "model.gone", json_string("1"));
    json_object_set_new(before, "loss.mtp_start", json_string("7"));
    json_object_del(before, "model.hidden_size");
    assert_int_equal(load_text(*state, &c, good, "--optim.lr=2e-3", "--data.sources.b.weight=4", &e), 0);
    assert_int_equal(config_compare(&c, before, 0, &e), EXIT_USAGE);
    assert_string_equal(
        e.text, "this config gives other numbers than the checkpoint's: model.hidden_size is 64, was not "
                "there; optim.lr is 0.002, was 0.001; data.sources is a 2, b 4, was a 2, b 1; model.gone "
                "is no longer there; loss.mtp_start is 0, was 7");
    json_decref(before);
    config_free(&c);
}

/* A key that joined the program after a checkpoint was made, or was left out for its default: it has that. */
static void an_absent_key_has_its_default(void **state) {
    config c;
    error e;
    assert_int_equal(load_text(*state, &c, good, NULL, NULL, &e), 0);
    json_t *before = config_deciding(&c);
    config_free(&c);
    json_object_del(before, "model.rms_norm_eps");
    json_object_del(before, "router.bias_budget_gain");
    json_object_del(before, "parallel.rank_invariant");
    json_object_set_new(before, "loss.mtp_start", json_string("0"));
    assert_int_equal(load_text(*state, &c, good, NULL, NULL, &e), 0);
    assert_int_equal(config_compare(&c, before, 0, &e), 0);
    config_free(&c);
    assert_int_equal(load_text(*state, &c, good, "--router.bias_budget_gain=2", NULL, &e), 0);
    assert_int_equal(config_compare(&c, before, 0, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, ": router.bias_budget_gain is 2, was 1"));
    json_decref(before);
    config_free(&c);
}

/* A key that decides numbers, and that a resume would not compare, is a run that is not itself any more. */
static void what_is_free_to_differ(void **state) {
    static const char *const free_keys[] = {
        "run.dir",
        "device",
        "isa",
        "wait_timeout",
        "model.recompute",
        "router.grad_ratio_limit",
        "train.steps",
        "train.log_every",
        "train.eval_every",
        "train.eval_samples",
        "train.on_nonfinite",
        "data.tokenizer", /* a checkpoint has the digest of what it says */
        "parallel.expert_parallel",
        "parallel.chunks",
        "parallel.transport",
        "parallel.overlap",
        "parallel.expert_capacity",
        "parallel.threads",
        "checkpoint.every",
        "checkpoint.keep",
        "checkpoint.keep_every",
        "checkpoint.shards",
        "checkpoint.threads",
        "metrics.digest_every",
        "metrics.tensorboard",
        "spike.on_spike",
        "spike.loss_factor",
        "spike.grad_factor",
        "spike.window",
        "spike.max_rollbacks",
        "sdc.interval",
        "sdc.on_corruption"};
    (void)state;
    for (int k = 0; k < config_key_count; k++) {
        int listed = 0;
        for (size_t i = 0; i < sizeof free_keys / sizeof *free_keys; i++)
            listed += !strcmp(config_keys[k].name, free_keys[i]);
        if (listed != (config_keys[k].decides == KEY_FREE)) fail_msg("%s", config_keys[k].name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_values_and_defaults),
        cmocka_unit_test(reads_numbers_as_people_write_them),
        cmocka_unit_test(overrides_win_and_reach_sources),
        cmocka_unit_test(names_unknown_keys),
        cmocka_unit_test(names_what_is_missing_or_double),
        cmocka_unit_test(refuses_wrong_types_and_ranges),
        cmocka_unit_test(refuses_impossible_combinations),
        cmocka_unit_test(every_preset_loads),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(digest_sees_what_decides_numbers),
        cmocka_unit_test(an_absent_key_has_its_default),
        cmocka_unit_test(compare_lists_the_keys_that_differ),
        cmocka_unit_test(what_is_free_to_differ),
    };
    return cmocka_run_group_tests_name("config", tests, scratch_setup, scratch_teardown);
}
