/* The report: right on empty, crashed and resumed runs, self-contained, well-formed, and its numbers are the
 * log's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train/report.h"
#include "train/run_data.h"
#include "train/status.h"
#include "train/svg.h"

typedef struct run {
    char directory[64];
} run;

static int setup(void **state) {
    run *r = calloc(1, sizeof *r);
    strcpy(r->directory, "/tmp/caracal-report-XXXXXX");
    *state = r;
    return mkdtemp(r->directory) ? 0 : -1;
}

static int teardown(void **state) {
    run *r = *state;
    char path[512];
    DIR *d = opendir(r->directory);
    for (struct dirent *f; (f = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", r->directory, f->d_name);
        if (f->d_name[0] != '.') unlink(path);
    }
    closedir(d);
    rmdir(r->directory);
    free(r);
    return 0;
}

static FILE *open_in(const run *r, const char *name, const char *mode) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", r->directory, name);
    return fopen(path, mode);
}

static char *read_in(const run *r, const char *name) {
    FILE *f = open_in(r, name, "rb");
    if (!f) return NULL;
    char *text = calloc(1, 1 << 20);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    assert_true(n < (1 << 20) - 1);
    fclose(f);
    return text;
}

/* A line of metrics whose loss is 9 - step / 100, with three layers. */
static void write_step(FILE *f, int step) {
    double x = 9 - step / 100.0;
    fprintf(f,
            "{\"step\": %d, \"tokens\": %d, \"lm_loss\": %.17g, \"grad_norm\": %g, \"lr\": 0.001, "
            "\"ffn_experts_mean\": [3.9, 4.0, 4.1], \"expert_load_max_over_mean\": [%g, 2.0, 1.25], "
            "\"router_similarity\": [0.1, 0.2, 0.3], \"router_grad_ratio\": [0.01, 0.02, 0.03], "
            "\"layer_output_max\": [1, %d, 2], "
            "\"bias_min\": -0.01, \"bias_max\": 0.02}\n",
            step, step * 1000, x, x / 10, 1 + 1.0 / step, step == 7 ? 777 : 3);
}

static void write_steps(const run *r, int first, int last) {
    FILE *f = open_in(r, "metrics.jsonl", "ab");
    for (int step = first; step <= last; step++) write_step(f, step);
    fclose(f);
}

static void append(const run *r, const char *name, const char *text) {
    FILE *f = open_in(r, name, "ab");
    fputs(text, f);
    fclose(f);
}

static char *page_of(const run *r, const report_marks *marks) {
    error e = {0};
    if (report_write(r->directory, marks, &e)) fail_msg("%s", e.text);
    char *page = read_in(r, "report.html");
    assert_non_null(page);
    return page;
}

/* Every element that opens closes, in order. */
static void assert_well_formed(const char *text) {
    char stack[64][16];
    int depth = 0;
    for (const char *p = strchr(text, '<'); p; p = strchr(p + 1, '<')) {
        int closes = p[1] == '/';
        char name[16] = "";
        sscanf(p + 1 + closes, "%15[a-z0-9]", name);
        const char *end = strchr(p, '>');
        assert_non_null(end);
        if (p[1] == '!' || end[-1] == '/' || !strcmp(name, "meta")) continue;
        if (closes) {
            assert_true(depth > 0);
            assert_string_equal(stack[--depth], name);
        } else {
            assert_true(depth < 64);
            strcpy(stack[depth++], name);
        }
    }
    assert_int_equal(depth, 0);
}

static void assert_sound(const char *page) {
    assert_well_formed(page);
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "src="));
    assert_null(strstr(page, "url("));
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "inf"));
    for (const char *p = page; (p = strstr(p, "http")); p++)
        assert_memory_equal(p, "http://www.w3.org/2000/svg", strlen("http://www.w3.org/2000/svg"));
}

static void an_empty_run_has_a_page(void **state) {
    char *page = page_of(*state, NULL);
    assert_sound(page);
    assert_non_null(strstr(page, "No step yet"));
    assert_null(strstr(page, "<svg"));
    assert_null(read_in(*state, "loss.svg"));
    free(page);
}

static void a_run_that_is_not_there_is_an_error(void **state) {
    (void)state;
    error e = {0};
    assert_int_equal(report_write("/nonexistent/run", NULL, &e), EXIT_USAGE);
    assert_string_equal(e.text, "/nonexistent/run: is not a run directory");
}

static void a_log_that_cannot_be_read_is_an_error(void **state) {
    const run *r = *state;
    error e = {0};
    char log[128], want[256];
    snprintf(log, sizeof log, "%s/eval.jsonl", r->directory);
    snprintf(want, sizeof want, "%s: cannot be read: Is a directory", log);
    assert_int_equal(mkdir(log, 0777), 0);
    write_steps(r, 1, 5);
    assert_int_equal(report_write(r->directory, NULL, &e), EXIT_IO);
    rmdir(log);
    assert_string_equal(e.text, want);
}

static void a_whole_run_shows_everything(void **state) {
    static const char *const wanted[] = {
        "<dd>120<small>",      "<dd>120k<small>",
        "<dd>7.810<small>",    "<dd>2000<small> tokens/s",
        "<dd>7.900<small>",    "Validation by source",
        "a&lt;b 7.50",         "Gradient norm",
        "Learning rate",       "Load of the busiest expert",
        "Router similarity",   "most 0.3, layer 2",
        "Balance pressure",    "Router bias",
        "unigram entropy 8.5", "validation 7.900",
    };
    const run *r = *state;
    write_steps(r, 1, 120);
    FILE *f = open_in(r, "timing.jsonl", "ab");
    for (int step = 1; step <= 120; step++)
        fprintf(f, "{\"step\": %d, \"tokens_per_second\": 2000, \"step_seconds\": 1}\n", step);
    fclose(f);
    append(r, "eval.jsonl",
           "{\"step\": 60, \"loss\": {\"a<b\": 8, \"c\": 8.5, \"total\": 8.25}}\n"
           "{\"step\": 120, \"loss\": {\"a<b\": 7.5, \"c\": 8.3, \"total\": 7.9}}\n");
    report_marks marks = {.n = 1, .mark = {{"unigram entropy", 8.5}}};
    char *page = page_of(r, &marks), *picture = read_in(r, "loss.svg");
    assert_sound(page);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!strstr(page, wanted[i])) fail_msg("the page does not say \"%s\"", wanted[i]);
    assert_non_null(picture);
    assert_sound(picture);
    assert_memory_equal(picture, "<svg xmlns=", 11);
    assert_non_null(strstr(picture, "<style>"));
    assert_non_null(strstr(picture, "unigram entropy 8.5"));
    assert_non_null(strstr(picture, ">loss (nats per token)<"));
    static const char caption[] = "the mean over 5; validation: the first samples of each source's";
    assert_non_null(strstr(page, caption));
    assert_non_null(strstr(picture, caption));
    assert_null(read_in(r, "report.html.tmp"));
    free(page), free(picture);
}

static void a_peak_is_not_averaged_away(void **state) {
    write_steps(*state, 1, 1000); /* several steps a bin, and the peak is in one of the first */
    char *page = page_of(*state, NULL);
    assert_non_null(strstr(page, "most 777, layer 1"));
    free(page);
}

static void a_short_run_alone(void **state) {
    const run *r = *state;
    write_steps(r, 1, 20);
    FILE *f = open_in(r, "timing.jsonl", "ab");
    for (int step = 1; step <= 20; step++)
        fprintf(f, "{\"step\": %d, \"comm_exposed_seconds\": 0, \"step_seconds\": 0.5}\n", step);
    fclose(f);
    char *page = page_of(r, NULL), *waiting = strstr(page, "Waiting for other ranks");
    assert_sound(page);
    assert_non_null(strstr(page, "<dd>10<small> s<"));
    assert_non_null(waiting);
    assert_null(strstr(waiting, ">-"));                 /* no tick below zero */
    assert_non_null(strstr(page, "repeat(auto-fill,")); /* one or two figures are not wider than three */
    free(page);
}

static void a_cut_last_line_is_left_out(void **state) {
    static const char left_out[] =
        "<p class=\"warning\">metrics.jsonl: its last line is cut off, and left out.</p>\n";
    write_steps(*state, 1, 50);
    char *whole = page_of(*state, NULL);
    append(*state, "metrics.jsonl", "{\"step\": 51, \"tokens\": 51000, \"lo");
    char *cut = page_of(*state, NULL), *said = strstr(cut, left_out);
    assert_non_null(said);
    memmove(said, said + strlen(left_out), strlen(said + strlen(left_out)) + 1);
    assert_string_equal(whole, cut); /* and that is all */
    free(cut);
    /* a run that goes on may just be writing it */
    error e = {0};
    run_status running = {.state = RUN_RUNNING, .at = status_clock(), .every = 9, .patience = 900, .left = 9};
    assert_int_equal(status_write(&running, ((run *)*state)->directory, &e), 0);
    cut = page_of(*state, NULL);
    assert_null(strstr(cut, "cut off"));
    free(whole), free(cut);
}

static void a_resumed_run_counts_the_later_lines(void **state) {
    const run *r = *state;
    write_steps(r, 1, 50);
    char *clean = page_of(r, NULL);
    FILE *f = open_in(r, "metrics.jsonl", "wb");
    for (int step = 1; step <= 30; step++) write_step(f, step);
    for (int step = 31; step <= 40; step++)
        fprintf(f, "{\"step\": %d, \"tokens\": 1, \"lm_loss\": 77}\n", step);
    for (int step = 31; step <= 50; step++) write_step(f, step);
    fclose(f);
    char *resumed = page_of(r, NULL);
    assert_string_equal(clean, resumed);
    free(clean), free(resumed);
}

static void broken_lines_inside_are_told(void **state) {
    write_steps(*state, 1, 20);
    append(*state, "metrics.jsonl",
           "not json\n[1, 2]\n{\"step\": -9223372036854775808}\n{\"step\": 9223372036854775807}\n");
    write_steps(*state, 21, 40);
    char *page = page_of(*state, NULL);
    assert_sound(page);
    assert_non_null(strstr(page, "<p class=\"warning\">metrics.jsonl: 4 damaged lines are left out.</p>"));
    assert_non_null(strstr(page, "<dd>40<small>"));
    free(page);
}

static void values_that_are_not_finite_leave_gaps(void **state) {
    write_steps(*state, 1, 20);
    append(*state, "metrics.jsonl",
           "{\"step\": 21, \"tokens\": 21000, \"lm_loss\": null, \"grad_norm\": null, "
           "\"router_similarity\": [null, 0.2, 0.3]}\n");
    write_steps(*state, 22, 40);
    char *page = page_of(*state, NULL);
    assert_sound(page);
    free(page);
}

static void a_run_without_a_finite_loss_has_a_page(void **state) {
    append(*state, "metrics.jsonl", "{\"step\": 1, \"tokens\": 1000, \"lm_loss\": null}\n");
    append(*state, "eval.jsonl", "{\"step\": 1, \"loss\": {\"c\": null, \"total\": null}}\n");
    char *page = page_of(*state, NULL);
    assert_sound(page);
    free(page);
}

static void a_single_step_has_a_page(void **state) {
    write_steps(*state, 1, 1);
    char *page = page_of(*state, NULL);
    assert_sound(page);
    assert_non_null(strstr(page, "<dd>8.990<small>"));
    free(page);
}

/* The same of a log that is there and of one that is read while it grows. */
static void series_gather_bins(void **state) {
    const run *r = *state;
    error e = {0};
    run_data grown, once;
    assert_int_equal(run_read(&grown, r->directory, "lm_loss", &e), 0);
    assert_true(grown.metrics.rows == 0 && grown.metrics.bins == 0);
    run_free(&grown);
    write_steps(r, 1, 1);
    assert_int_equal(run_read(&grown, r->directory, "lm_loss", &e), 0);
    for (int step = 2; step <= 1000; step += 37) {
        write_steps(r, step, step + 36);
        run_update(&grown);
        assert_true(grown.metrics.rows == step + 36 && grown.metrics.bins <= SERIES_BINS);
    }
    append(r, "metrics.jsonl", "{\"step\": 1001, \"lm_loss\": 7"); /* half a line is none yet */
    run_update(&grown);
    assert_int_equal(grown.metrics.last, 1000);
    assert_int_equal(run_read(&once, r->directory, NULL, &e), 0);
    const series *s = &grown.metrics;
    const column *loss = series_find(s, "lm_loss"), *similarity = series_find(s, "router_similarity");
    assert_null(series_find(s, "hidden_max"));
    assert_null(series_find(s, "absent"));
    assert_true(s->rows == 1000 && s->first == 1 && s->last == 1000 && s->per == 4 && s->bins == 250);
    assert_true(loss->width == 1 && similarity->width == 3);
    assert_true(loss->last == -1);
    for (int64_t b = 0; b < s->bins; b++) {
        assert_true(fabs(s->step[b] - (2.5 + 4 * (double)b)) < 1e-9);
        assert_true(fabs(loss->mean[b] - (9 - s->step[b] / 100)) < 1e-9); /* it is linear in the step */
        assert_true(fabs(loss->mean[b] - series_find(&once.metrics, "lm_loss")->mean[b]) < 1e-12);
        assert_true(fabs(loss->high[b] - loss->mean[b] - 0.015) < 1e-9);
        assert_true(fabs(loss->mean[b] - loss->low[b] - 0.015) < 1e-9);
        assert_true(fabs(similarity->mean[b * 3 + 2] - 0.3) < 1e-15);
    }
    assert_true(s->trace.n == 1000 && s->trace.step[999] == 1000 && s->trace.value[0] == 8.99);
    append(r, "metrics.jsonl", "}\n"); /* a bin of one step */
    run_update(&grown);
    assert_true(s->step[250] == 1001);
    append(r, "metrics.jsonl", "{\"step\": 1001, \"lm_loss\": 5}\n{\"step\": 1002, \"lm_loss\": 9}\n");
    run_update(&grown); /* what was read already does not count twice */
    assert_true(s->rows == 1002 && s->step[250] == 1001.5 && loss->mean[250] == 8);
    run_free(&grown);
    run_free(&once);
}

/* A run that went back to a checkpoint while its report was followed: other steps lie where the last ones
 * lay. */
static void a_log_that_is_cut_is_read_anew(void **state) {
    const run *r = *state;
    char path[128];
    error e = {0};
    run_data followed;
    snprintf(path, sizeof path, "%s/metrics.jsonl", r->directory);
    write_steps(r, 1, 60);
    assert_int_equal(run_read(&followed, r->directory, NULL, &e), 0);
    for (int to = 45; to <= 90; to += 45) { /* shorter than it was, then longer */
        assert_int_equal(truncate(path, 0), 0);
        write_steps(r, 1, 40);
        FILE *f = open_in(r, "metrics.jsonl", "ab");
        for (int step = 41; step <= to; step++) fprintf(f, "{\"step\":%d,\"lm_loss\":3}\n", step);
        fclose(f);
        run_update(&followed);
        const column *loss = series_find(&followed.metrics, "lm_loss");
        assert_true(followed.metrics.rows == to && followed.metrics.last == to);
        assert_true(loss->mean[39] == 8.6 && loss->mean[40] == 3 && loss->last == 3);
    }
    run_free(&followed);
}

static void smoothing_keeps_constants_gaps_and_the_start(void **state) {
    (void)state;
    double y[9] = {8, 6, 4, 4, NAN, 4, 4, 4, 7}, out[9];
    series_smooth(9, out, y, 2);
    assert_true(out[0] == 8 && out[1] == 6 && out[3] == 4.5);
    assert_true(isnan(out[4]));
    assert_true(out[6] == 4.75 && out[8] == 5);
    double x[6] = {3, NAN, 1, 2, INFINITY, 4};
    assert_true(series_quantile(6, x, 0) == 1);
    assert_true(series_quantile(4, x, 1) == 4);
    assert_true(series_quantile(4, x, 0.6) == 3 && series_quantile(4, x, 0.4) == 2); /* the nearest */
    assert_true(isnan(series_quantile(1, (double[]){NAN}, 0.5)));
}

static void numbers_read_well(void **state) {
    (void)state;
    static const struct {
        double x;
        const char *text;
    } cases[] = {
        {0, "0"},           {0.1, "0.1"},     {0.001, "0.001"}, {2e-5, "2e-5"},     {-3.25e-12, "-3.25e-12"},
        {2000, "2000"},     {12500, "12.5k"}, {1e4, "10k"},     {9999.9999, "10k"}, {6.14e5, "614k"},
        {5.607e11, "561G"}, {-2.5e6, "-2.5M"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        number_text(cases[i].x, 3, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void the_command_checks_its_arguments(void **state) {
    run *r = *state;
    char program[] = "report", mark[] = "--mark=bigram:4.5", bad[] = "--mark=bigram";
    write_steps(r, 1, 5);
    assert_int_equal(report_command(1, (char *[]){program}), EXIT_USAGE);
    assert_int_equal(report_command(3, (char *[]){program, r->directory, bad}), EXIT_USAGE);
    assert_int_equal(report_command(3, (char *[]){program, r->directory, mark}), 0);
    char *page = read_in(r, "report.html");
    assert_non_null(strstr(page, "bigram 4.5"));
    free(page);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* Of more validations than there is room for, each that is kept is whole, and the latest is one of them. */
static void many_validations_are_thinned_out(void **state) {
    const run *r = *state;
    run_data d;
    error e;
    FILE *f = open_in(r, "eval.jsonl", "wb");
    for (int i = 1; i <= 3 * EVAL_ROWS; i++)
        fprintf(f, "{\"step\":%d,\"loss\":{\"a\":%d,\"total\":%d},\"bits_per_byte\":{\"total\":%d}}\n",
                10 * i, i, i + 1, i + 2);
    fclose(f);
    assert_int_equal(run_read(&d, r->directory, NULL, &e), 0);
    const evaluations *v = &d.eval;
    assert_true(v->rows > EVAL_ROWS / 2 && v->rows <= EVAL_ROWS && v->total == 1);
    assert_true(v->step[v->rows - 1] == 30 * EVAL_ROWS);
    for (int64_t i = 0; i < v->rows; i++) {
        double x = v->step[i] / 10;
        assert_true(v->loss[0][i] == x && v->loss[1][i] == x + 1 && v->bits[i] == x + 2);
        assert_true(i == 0 || v->step[i] > v->step[i - 1]);
    }
    run_free(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(an_empty_run_has_a_page),
        CASE(a_run_that_is_not_there_is_an_error),
        CASE(a_log_that_cannot_be_read_is_an_error),
        CASE(a_whole_run_shows_everything),
        CASE(a_peak_is_not_averaged_away),
        CASE(a_short_run_alone),
        CASE(a_cut_last_line_is_left_out),
        CASE(a_resumed_run_counts_the_later_lines),
        CASE(broken_lines_inside_are_told),
        CASE(values_that_are_not_finite_leave_gaps),
        CASE(a_run_without_a_finite_loss_has_a_page),
        CASE(a_single_step_has_a_page),
        CASE(series_gather_bins),
        CASE(a_log_that_is_cut_is_read_anew),
        CASE(many_validations_are_thinned_out),
        CASE(smoothing_keeps_constants_gaps_and_the_start),
        CASE(numbers_read_well),
        CASE(the_command_checks_its_arguments),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
