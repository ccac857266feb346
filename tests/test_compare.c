/* Comparing runs: the statistics against values worked by hand and against their promise, and the command on
 * runs that are whole, cut short, without a step, or on different text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "data/utf8.h"
#include "launch/random.h"
#include "tests/scratch.h"
#include "train/compare.h"
#include "train/metrics.h"

static void estimates(void **unused) {
    (void)unused;
    estimate x = estimate_of(4, (const double[]){1, -1, -1, 1}); /* r = -1/4: taken as 0 */
    assert_float_equal(x.mean, 0, 0);
    assert_float_equal(x.high, 1.96 * sqrt(4.0 / 3 / 4), 1e-12);
    x = estimate_of(5,
                    (const double[]){-2, -1, 0, 1, 2}); /* squares 10, lagged 4: r = 0.4, 15/7 independent */
    assert_float_equal(x.high, 1.96 * sqrt(2.5 / (15.0 / 7)), 1e-12);
    /* squares 42, lagged 26.25: r = 0.625, of which 24/13 would be independent; fewer than two are not taken
     */
    x = estimate_of(8, (const double[]){-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5});
    assert_float_equal(x.high, 1.96 * sqrt(6.0 / 2), 1e-12);
    x = estimate_of(2, (const double[]){1, 2});
    assert_float_equal(x.mean, 1.5, 0);
    assert_true(isnan(x.low) && isnan(x.high));
    assert_true(isnan(estimate_of(0, NULL).mean));
}

/* Of 1,000 samples with correlation 0.5 about a true mean of 3, 95% of the intervals hold it. */
static void intervals_hold_what_they_say(void **unused) {
    (void)unused;
    enum { SAMPLES = 1000, N = 60 };
    int held = 0;
    for (uint64_t s = 0; s < SAMPLES; s++) {
        double d[N], noise = 0;
        for (uint64_t i = 0; i < N; i++) {
            double fresh = 0; /* nearly normal */
            for (uint64_t k = 0; k < 12; k++) fresh += random_uniform(4, s, 12 * i + k) - 0.5;
            noise = 0.5 * noise + fresh;
            d[i] = 3 + noise;
        }
        estimate x = estimate_of(N, d);
        held += x.low <= 3 && 3 <= x.high;
    }
    assert_in_range(held, 900, 980);
}

static void differences_pair_steps(void **unused) {
    (void)unused;
    int64_t step_a[] = {1, 2, 3, 5, 6}, step_b[] = {2, 3, 4, 5, 9};
    double loss_a[] = {9, 8, 7, 6, 5}, loss_b[] = {8.5, 7.5, 0, 6.5, 0};
    trace a = {5, 5, step_a, loss_a}, b = {5, 5, step_b, loss_b};
    difference d;
    difference_of(&d, &a, &b);
    assert_int_equal(d.pairs, 3);
    assert_false(d.equal);
    assert_int_equal(d.points, 1);
    assert_float_equal(d.mean[0], 0.5, 1e-12);
    assert_float_equal(d.step[0], 3.5, 0);
    difference_free(&d);
    difference_of(&d, &b, &a);
    assert_true(!d.equal && d.mean[0] == -0.5);
    difference_free(&d);
    a.n = 1;
    difference_of(&d, &a, &b);
    assert_int_equal(d.pairs + d.points, 0);
    assert_true(isnan(d.last.mean) && isnan(d.last.low));
    difference_free(&d);
}

/* However many windows there are, the first point is of the first and the last of the last. */
static void points_reach_both_ends(void **unused) {
    (void)unused;
    enum { STEPS = 1200 };
    int64_t step[STEPS];
    double zero[STEPS] = {0}, value[STEPS];
    for (int i = 0; i < STEPS; i++) value[i] = (double)(step[i] = i + 1);
    trace a = {STEPS, STEPS, step, zero}, b = {STEPS, STEPS, step, value};
    difference d;
    difference_of(&d, &a, &b);
    assert_int_equal(d.window, 100);
    assert_true(d.step[0] == 50.5 && d.step[d.points - 1] == 1150.5);
    assert_float_equal(d.mean[d.points - 1], 1150.5, 1e-9);
    assert_true(d.last.mean == d.mean[d.points - 1]);
    difference_free(&d);
}

/* ---- the command ---- */

static void write_run(scratch *s, const char *name, int steps, double shift, const char *tail) {
    char file[64], *text;
    size_t size;
    mkdir(scratch_path(s, name), 0777);
    for (int timing = 0; timing < 2; timing++) {
        FILE *f = open_memstream(&text, &size);
        for (int i = 1; i <= steps; i++)
            if (timing) fprintf(f, "{\"step\":%d,\"step_seconds\":0.5,\"tokens_per_second\":100}\n", i);
            else
                fprintf(f, "{\"step\":%d,\"tokens\":%d,\"lm_loss\":%.17g,\"ffn_experts_mean\":[4,3]}\n", i,
                        50 * i, 9 - 0.01 * i + shift);
        fputs(tail, f);
        fclose(f);
        snprintf(file, sizeof file, "%s/%s.jsonl", name, timing ? "timing" : "metrics");
        scratch_write_bytes(s, file, text, size);
        free(text);
    }
}

static int compare(scratch *s, const char *first, const char *second) {
    char out[256], word[2][256];
    snprintf(out, sizeof out, "--out=%s/page.html", s->directory);
    snprintf(word[0], sizeof word[0], "%s/%s", s->directory, first);
    snprintf(word[1], sizeof word[1], "%s/%s", s->directory, second);
    return compare_command(4, (char *[]){"compare", word[0], word[1], out, NULL});
}

/* A run that was stopped lies on the one that was not: each point is a mean over as many steps. */
static void equal_losses_look_equal(void **state) {
    scratch *s = *state;
    char word[2][256];
    char *path[] = {word[0], word[1]};
    const char *name[] = {"whole", "part"};
    comparison *c = calloc(1, sizeof *c);
    error e = {0};
    for (int i = 0; i < 2; i++) {
        char file[64], *text;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        for (int step = 1; step <= (i ? 40 : 200); step++)
            fprintf(f, "{\"step\":%d,\"lm_loss\":%d}\n", step, 5 + step % 2);
        fclose(f);
        mkdir(scratch_path(s, name[i]), 0777);
        snprintf(file, sizeof file, "%s/metrics.jsonl", name[i]);
        scratch_write_bytes(s, file, text, size);
        free(text);
        snprintf(word[i], sizeof word[i], "%s/%s", s->directory, name[i]);
    }
    assert_int_equal(comparison_read(c, 2, path, &e), 0);
    for (int b = 0; b < 37; b++) assert_float_equal(c->run[1].smooth[b], c->run[0].smooth[b], 0);
    assert_float_equal(c->run[0].smooth[20], 5 + 3 / 7.0, 1e-12); /* of steps 18 to 24 */
    comparison_free(c);
    free(c);
}

static void three_runs(void **state) {
    scratch *s = *state;
    char out[256], word[3][256];
    snprintf(out, sizeof out, "--out=%s/page.html", s->directory);
    for (int i = 0; i < 3; i++) {
        const char *name[] = {"one", "other", "third"};
        write_run(s, name[i], 40, 0.1 * i, "");
        snprintf(word[i], sizeof word[i], "%s/%s", s->directory, name[i]);
    }
    assert_int_equal(compare_command(5, (char *[]){"compare", word[0], word[1], word[2], out, NULL}), 0);
    char *page = scratch_text(s, "page.html");
    assert_non_null(strstr(page, "<h1>one, other and third</h1>"));
    free(page);
}

/* As a run and what was grown from it: nothing is said of their difference. */
static void no_step_in_common(void **state) {
    scratch *s = *state;
    char out[256], word[3][256];
    snprintf(out, sizeof out, "--out=%s/page.html", s->directory);
    for (int i = 0; i < 3; i++) {
        const char *name[] = {"one", "grown", "third"};
        write_run(s, name[i], i == 1 ? 0 : 40, 0.1, i == 1 ? "{\"step\":41,\"lm_loss\":8}\n" : "");
        snprintf(word[i], sizeof word[i], "%s/%s", s->directory, name[i]);
    }
    assert_int_equal(compare_command(5, (char *[]){"compare", word[0], word[1], word[2], out, NULL}), 0);
    char *page = scratch_text(s, "page.html"), *row = strstr(page, "</i>grown</td>");
    assert_non_null(strstr(page, "as a mean over 10 steps; the band"));
    assert_non_null(strstr(row, "<td>8.0000</td><td></td><td></td>"));
    assert_null(strstr(page, ">grown +"));
    free(page);
}

static void two_runs(void **state) {
    scratch *s = *state;
    write_run(s, "one", 100, 0, "");
    write_run(s, "other", 80, -0.25, "{\"step\":81,\"lm_lo"); /* killed while it wrote */
    assert_int_equal(compare(s, "one", "other"), 0);
    char *page = scratch_text(s, "page.html"), *picture = scratch_text(s, "page.svg");
    assert_non_null(strstr(page, "<h1>one and other</h1>"));
    assert_non_null(strstr(page, "<td>-0.2500</td>"));
    assert_non_null(strstr(page, "over 10 steps"));
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "<script"));
    assert_non_null(strstr(picture, "other 7.9"));
    assert_null(strstr(picture, "var("));
    free(page);
    free(picture);
}

/* A run that goes on, whose last steps are not timed yet: its curve over time ends before them. */
static void steps_without_a_time(void **state) {
    scratch *s = *state;
    write_run(s, "one", 30, 0, "");
    write_run(s, "other", 30, 1, "");
    scratch_write(s, "one/timing.jsonl",
                  "{\"step\":1,\"step_seconds\":1}\n{\"step\":2,\"step_seconds\":1}\n");
    assert_int_equal(compare(s, "one", "other"), 0);
    char *page = scratch_text(s, "page.html");
    assert_null(strstr(page, "nan"));
    assert_non_null(strstr(page, ">seconds<"));
    free(page);
}

/* Labels are cut after so many bytes, in the middle of a character: what is left of it is shown as U+FFFD,
 * for a browser refuses a picture that is no UTF-8 throughout.  Nor may any XML hold control characters. */
static void names_that_are_cut(void **state) {
    scratch *s = *state;
    const char *name =
        "\xe6\xa8\xa1\xe5\x9e\x8b\xe8\xae\xad\xe7\xbb\x83\xe5\xae\x9e\xe9\xaa\x8c"; /* six of three bytes */
    write_run(s, "a<\x01\xe6.\xe6\xa8\xa1", 30, 0, "");
    write_run(s, name, 30, 1, "");
    assert_int_equal(compare(s, "a<\x01\xe6.\xe6\xa8\xa1", name), 0);
    for (int picture = 0; picture < 2; picture++) {
        char *text = scratch_text(s, picture ? "page.svg" : "page.html");
        assert_int_equal(utf8_valid_prefix(text, strlen(text)), strlen(text));
        assert_non_null(strstr(text, name));
        assert_non_null(strstr(text, "a&lt;\xef\xbf\xbd\xef\xbf\xbd.\xe6\xa8\xa1 and "));
        assert_non_null(strstr(text, "\xe7\xbb\x83\xe5\xae\x9e\xef\xbf\xbd "));
        assert_null(strchr(text, 1));
        free(text);
    }
}

/* The config of a run: `vocab` and `sources` are what matters here. */
static void write_config(scratch *s, const char *name, int vocab, const char *tokenizer, const char *weight) {
    char file[64], *text;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    fprintf(
        f,
        "run: {dir: x}\n"
        "model: {vocab_size: %d, hidden_size: 64, num_layers: 2, num_attention_heads: 2, q_lora_rank: 32,\n"
        "        kv_lora_rank: 16, qk_nope_head_dim: 16, qk_rope_head_dim: 8, v_head_dim: 16,\n"
        "        ffn_hidden_size: 128, expert_ffn_hidden_size: 32, n_routed_experts: 8,\n"
        "        zero_expert_num: 4, moe_topk: 3}\n"
        "router: {expected_ffn_experts: 2}\n"
        "optim: {lr: 1e-3}\n"
        "train: {steps: 100, seq_len: 16, micro_batches: 4}\n"
        "data: {tokenizer: %s/%s, sources: [{name: a, train: a, weight: %s}]}\n",
        vocab, s->directory, tokenizer, weight);
    fclose(f);
    snprintf(file, sizeof file, "%s/config.yaml", name);
    scratch_write_bytes(s, file, text, size);
    free(text);
}

/* The same text, another weight, another vocabulary, a tokenizer of the same and of other bytes elsewhere. */
static void what_losses_do_not_say(void **state) {
    static const struct {
        int vocab;
        const char *tokenizer, *weight;
        int text, tokenizers;
    } cases[] = {{256, "t.json", "1", 0, 0},     {256, "t.json", "2", 1, 0},
                 {512, "t.json", "1", 0, 1},     {256, "copy.json", "1", 0, 0},
                 {256, "other.json", "1", 0, 1}, {256, "absent.json", "1", 0, 1}};
    scratch *s = *state;
    scratch_write_bytes(s, "t.json", "abc", 3);
    scratch_write_bytes(s, "copy.json", "abc", 3);
    scratch_write_bytes(s, "other.json", "abd", 3);
    write_run(s, "one", 20, 0, "");
    write_run(s, "other", 20, 0.5, "");
    write_config(s, "one", 256, "t.json", "1");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_config(s, "other", cases[i].vocab, cases[i].tokenizer, cases[i].weight);
        assert_int_equal(compare(s, "one", "other"), 0);
        char *page = scratch_text(s, "page.html");
        assert_int_equal(strstr(page, "read different text") != NULL, cases[i].text);
        assert_int_equal(strstr(page, "different tokenizers") != NULL, cases[i].tokenizers);
        free(page);
    }
    for (int i = 1; i <= 2; i++) { /* far behind in the list of sources */
        char weight[400];
        snprintf(weight, sizeof weight, "1}, {name: b, train: b%0300d, weight: %d", 0, i);
        write_config(s, i == 1 ? "one" : "other", 256, "t.json", weight);
    }
    assert_int_equal(compare(s, "one", "other"), 0);
    char *page = scratch_text(s, "page.html");
    assert_non_null(strstr(page, "read different text"));
    assert_non_null(strstr(page, "000 2</td></tr>"));
    assert_null(strstr(page, "held-out text differs"));
    free(page);
    write_config(s, "one", 256, "t.json", "1, valid: v");
    write_config(s, "other", 256, "t.json", "1, valid: w");
    assert_int_equal(compare(s, "one", "other"), 0);
    page = scratch_text(s, "page.html");
    assert_null(strstr(page, "read different text"));
    assert_non_null(strstr(page, "held-out text differs"));
    assert_non_null(strstr(page, "<td>data.sources: valid</td><td>v</td><td>w</td>"));
    free(page);
}

/* A grown run's log begins with its own first step, and so does what it cost. */
static void a_log_that_begins_late(void **state) {
    scratch *s = *state;
    char a[256], b[256];
    comparison *c = calloc(1, sizeof *c);
    error e = {0};
    write_run(s, "one", 3, 0, "");
    write_run(s, "grown", 0, 0, "{\"step\":41,\"tokens\":2624,\"lm_loss\":8,\"step_seconds\":0.5}\n");
    write_config(s, "grown", 256, "t.json", "1"); /* 64 tokens a step */
    snprintf(a, sizeof a, "%s/one", s->directory);
    snprintf(b, sizeof b, "%s/grown", s->directory);
    assert_int_equal(comparison_read(c, 2, (char *[]){a, b}, &e), 0);
    const compared_run *x = &c->run[1];
    assert_float_equal(x->seconds[0], 0.5, 1e-9);
    assert_float_equal(x->flops[0], metrics_flops(&x->run.c, 64), 1);
    comparison_free(c);
    free(c);
}

/* Runs of one name are told apart; equal ones are called equal. */
static void twins(void **state) {
    scratch *s = *state;
    char a[256], b[256], *page;
    mkdir(scratch_path(s, "a"), 0777);
    mkdir(scratch_path(s, "b"), 0777);
    write_run(s, "a/run", 30, 0, "");
    write_run(s, "b/run", 30, 0, "");
    assert_int_equal(compare(s, "a/run", "b/run"), 0);
    page = scratch_text(s, "page.html");
    assert_non_null(strstr(page, "<h1>a/run and b/run</h1>"));
    free(page);
    comparison *c = calloc(1, sizeof *c);
    error e = {0};
    snprintf(a, sizeof a, "%s/a/run", s->directory);
    snprintf(b, sizeof b, "%s/b/run/", s->directory);
    assert_int_equal(comparison_read(c, 2, (char *[]){a, b}, &e), 0);
    assert_true(c->run[1].to_first.equal && c->run[1].to_first.pairs == 30);
    for (int i = 0; i < 30; i++) /* half a second a step */
        assert_float_equal(c->run[0].seconds[i], 0.5 * (i + 1), 1e-9);
    comparison_free(c);
    *c = (comparison){0};
    snprintf(b, sizeof b, "%s/b/../a/run/", s->directory);
    assert_int_equal(comparison_read(c, 2, (char *[]){a, b}, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "are the same run: there is nothing to compare"));
    comparison_free(c);
    free(c);
}

static void what_cannot_be_compared(void **state) {
    scratch *s = *state;
    char one[256], other[256], out[256];
    write_run(s, "one", 3, 0, "");
    write_run(s, "other", 3, 1, "");
    write_run(s, "new", 0, 0, "");
    mkdir(scratch_path(s, "empty"), 0777);
    assert_int_equal(compare(s, "one", "new"), EXIT_USAGE);
    assert_int_equal(compare(s, "one", "absent"), EXIT_USAGE);
    assert_int_equal(compare(s, "one", "empty"), EXIT_USAGE);
    assert_int_equal(compare(s, "one", "one"), EXIT_USAGE);
    assert_int_equal(compare_command(2, (char *[]){"compare", "one", NULL}), EXIT_USAGE);
    snprintf(one, sizeof one, "%s/one", s->directory);
    snprintf(other, sizeof other, "%s/other", s->directory);
    snprintf(out, sizeof out, "--out=%s/absent/page.html", s->directory);
    assert_int_equal(compare_command(4, (char *[]){"compare", one, other, out, NULL}), EXIT_USAGE);
    snprintf(out, sizeof out, "--out=%s/empty", s->directory);
    assert_int_equal(compare_command(4, (char *[]){"compare", one, other, out, NULL}), EXIT_USAGE);
    assert_int_not_equal(access(scratch_path(s, "page.html"), F_OK), 0);
}

static void a_picture_elsewhere(void **state) {
    scratch *s = *state;
    char word[4][256];
    write_run(s, "one", 30, 0, "");
    write_run(s, "other", 30, 1, "");
    snprintf(word[0], sizeof word[0], "%s/one", s->directory);
    snprintf(word[1], sizeof word[1], "%s/other", s->directory);
    snprintf(word[2], sizeof word[2], "--out=%s/page.html", s->directory);
    snprintf(word[3], sizeof word[3], "--picture=%s/figure.svg", s->directory);
    assert_int_equal(compare_command(5, (char *[]){"compare", word[0], word[1], word[2], word[3], NULL}), 0);
    char *picture = scratch_text(s, "figure.svg");
    assert_non_null(strstr(picture, "Loss minus that of one"));
    assert_non_null(strstr(picture, ">loss (nats per token)<"));
    free(picture);
    assert_int_not_equal(access(scratch_path(s, "page.svg"), F_OK), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(estimates),
        cmocka_unit_test(intervals_hold_what_they_say),
        cmocka_unit_test(differences_pair_steps),
        cmocka_unit_test(points_reach_both_ends),
        cmocka_unit_test_setup_teardown(three_runs, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(equal_losses_look_equal, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(no_step_in_common, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(two_runs, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(steps_without_a_time, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(names_that_are_cut, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(what_losses_do_not_say, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_log_that_begins_late, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(twins, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_compared, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_picture_elsewhere, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
