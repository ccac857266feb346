/* What of a run is not there or damaged is told: by `caracal report`, by `caracal compare`, and in their
 * pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/scratch.h"
#include "train/compare.h"
#include "train/report.h"

static const char good[] =
    "run: {dir: x}\n"
    "model: {vocab_size: 256, hidden_size: 64, num_layers: 2, num_attention_heads: 2, q_lora_rank: 32,\n"
    "        kv_lora_rank: 16, qk_nope_head_dim: 16, qk_rope_head_dim: 8, v_head_dim: 16,\n"
    "        ffn_hidden_size: 128, expert_ffn_hidden_size: 32, n_routed_experts: 8,\n"
    "        zero_expert_num: 4, moe_topk: 3}\n"
    "router: {expected_ffn_experts: 2}\n"
    "optim: {lr: 1e-3}\n"
    "train: {steps: 100, seq_len: 16, micro_batches: 4, eval_every: 10}\n"
    "data: {tokenizer: t.json, sources: [{name: a, train: a, valid: b}]}\n";

#define NO_CONFIG "config.yaml is not there: what was trained, and what it cost in FLOPs, is left out\n"
#define LINE      "{\"step\": 1, \"step_seconds\": 1, \"lm_loss\": 5, \"loss\": 5, \"tokens\": 64}\n"

static void note_gap(void *to, const char *text) {
    char *all = to;
    snprintf(all + strlen(all), 4096 - strlen(all), "%s\n", text);
}

/* Of the run in the scratch directory, a line each. */
static void assert_gaps(const scratch *s, const char *expected) {
    run_data r;
    error e = {0};
    char all[4096] = "";
    int lines = 0;
    assert_int_equal(run_read(&r, s->directory, NULL, &e), 0);
    int told = run_gaps(&r, note_gap, all);
    for (const char *p = all; (p = strchr(p, '\n')); p++) lines++;
    assert_string_equal(all, expected);
    assert_int_equal(lines, told);
    run_free(&r);
}

static void files_that_are_not_there(void **state) {
    scratch *s = *state;
    assert_gaps(s, NO_CONFIG);
    scratch_write(s, "config.yaml", good);
    assert_gaps(s, "");
    scratch_write(s, "metrics.jsonl", LINE);
    assert_gaps(s, "timing.jsonl is not there: speeds are left out\n");
    scratch_write(s, "timing.jsonl", LINE);
    assert_gaps(s, ""); /* no validation is due */
    scratch_write(s, "metrics.jsonl", "{\"step\": 10, \"loss\": 5}\n");
    assert_gaps(s, "eval.jsonl is not there: held-out losses are left out\n");
    unlink(scratch_path(s, "metrics.jsonl"));
    assert_gaps(s, "metrics.jsonl is not there: losses are left out\n");
}

static void files_that_are_damaged(void **state) {
    scratch *s = *state;
    scratch_write(s, "config.yaml", "run: {dir: x}\nmodel: {vocab_sise: 1}\n");
    scratch_write(s, "metrics.jsonl", LINE "{\"step\": 2, \"loss\": 5\n" LINE "\n");
    scratch_write(s, "timing.jsonl", LINE "{\"step\": 2, \"lo");
    run_data r;
    error e = {0};
    char all[4096] = "";
    assert_int_equal(run_read(&r, s->directory, NULL, &e), 0);
    run_gaps(&r, note_gap, all);
    run_free(&r);
    assert_memory_equal(all, "config.yaml cannot be used: config.yaml:2", 41); /* without the directory */
    assert_non_null(strstr(all, "vocab_sise"));
    assert_non_null(strstr(all, "\nmetrics.jsonl: 2 damaged lines are left out\n"));
    assert_non_null(strstr(all, "\ntiming.jsonl: its last line is cut off, and left out\n"));
    scratch_write(s, "config.yaml", good);
    scratch_write(s, "metrics.jsonl", LINE "{\"step\": 2, \"loss\": }\n"); /* which only a parser sees */
    scratch_write(s, "timing.jsonl", LINE);
    assert_gaps(s, "metrics.jsonl: 1 damaged line is left out\n");
}

/* Runs a command; what it says on stderr, to be freed. */
static char *said(scratch *s, int (*command)(int, char **), int argc, char **argv) {
    int to = open(scratch_path(s, "said"), O_WRONLY | O_CREAT | O_TRUNC, 0666), was = dup(STDERR_FILENO);
    dup2(to, STDERR_FILENO);
    int code = command(argc, argv);
    dup2(was, STDERR_FILENO);
    close(to), close(was);
    assert_int_equal(code, 0);
    size_t bytes;
    return scratch_read(scratch_path(s, "said"), &bytes);
}

static void commands_and_pages_tell(void **state) {
    scratch *s = *state;
    char one[256], other[256], out[256];
    mkdir(scratch_path(s, "one"), 0777);
    mkdir(scratch_path(s, "other"), 0777);
    scratch_write(s, "one/metrics.jsonl", LINE);
    scratch_write(s, "one/timing.jsonl", LINE);
    scratch_write(s, "one/config.yaml", good);
    scratch_write(s, "other/metrics.jsonl", LINE "x\n");
    scratch_write(s, "other/timing.jsonl", LINE);
    snprintf(one, sizeof one, "%s/one", s->directory);
    snprintf(other, sizeof other, "%s/other", s->directory);
    snprintf(out, sizeof out, "--out=%s/page.html", s->directory);

    char *text = said(s, report_command, 2, (char *[]){"report", one, NULL});
    assert_string_equal(text, "");
    free(text);
    text = said(s, report_command, 2, (char *[]){"report", other, NULL});
    char *page = scratch_text(s, "other/report.html");
    assert_non_null(strstr(text, "/other: config.yaml is not there: "));
    assert_non_null(strstr(text, "/other: metrics.jsonl: 1 damaged line is left out\n"));
    assert_non_null(strstr(page, "<p class=\"warning\">metrics.jsonl: 1 damaged line is left out.</p>"));
    free(text), free(page);

    text = said(s, compare_command, 4, (char *[]){"compare", one, other, out, NULL});
    page = scratch_text(s, "page.html");
    assert_null(strstr(text, "/one: "));
    assert_non_null(strstr(text, "/other: config.yaml is not there: "));
    assert_non_null(
        strstr(page, "<p class=\"warning\">other: metrics.jsonl: 1 damaged line is left out.</p>"));
    assert_non_null(
        strstr(page, "Whether these runs read the same text with the same tokenizer is not known"));
    free(text), free(page);
}

int main(void) {
#define CASE(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        CASE(files_that_are_not_there),
        CASE(files_that_are_damaged),
        CASE(commands_and_pages_tell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
