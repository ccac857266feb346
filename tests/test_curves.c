/* `caracal curves`: means and deviations over seeds worked by hand, a grown run's FLOPs, what a table says,
 * and words that say nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "launch/options.h"
#include "tests/scratch.h"
#include "train/curves.h"
#include "train/metrics.h"

/* Steps first..last of 50 tokens; the loss falls by 0.01 a step, the layers have 4 and 3 FFN experts, then 4
 * and 4. */
static void write_run(scratch *s, const char *name, int first, int last, double shift) {
    char file[64], *text;
    size_t size;
    mkdir(scratch_path(s, name), 0777);
    FILE *f = open_memstream(&text, &size);
    for (int i = first; i <= last; i++)
        fprintf(f, "{\"step\":%d,\"tokens\":%d,\"lm_loss\":%.17g,\"none\":0,\"ffn_experts_mean\":[4,%d]}\n",
                i, 50 * i, 9 - 0.01 * i + shift, i > 10 ? 4 : 3);
    fclose(f);
    snprintf(file, sizeof file, "%s/metrics.jsonl", name);
    scratch_write_bytes(s, file, text, size);
    free(text);
    snprintf(file, sizeof file, "%s/eval.jsonl", name);
    char eval[64];
    snprintf(eval, sizeof eval, "{\"step\":%d,\"loss\":{\"total\":%.17g}}\n", last, 5 + shift);
    scratch_write(s, file, eval);
}

static void write_config(scratch *s, const char *name, const char *path) {
    config c;
    error e;
    if (config_load(&c, path, 0, NULL, &e) || config_save(&c, scratch_path(s, name), &e))
        fail_msg("%s", e.text);
    config_free(&c);
}

static void spreads(void **unused) {
    (void)unused;
    double mean, deviation;
    curves_spread(3, (const double[]){1, 2, 6}, &mean, &deviation);
    assert_float_equal(mean, 3, 1e-15);
    assert_float_equal(deviation, sqrt(7), 1e-15);
    curves_spread(1, (const double[]){4}, &mean, &deviation);
    assert_float_equal(mean, 4, 0);
    assert_true(isnan(deviation));
}

static void a_grown_run_adds_up_what_both_cost(void **state) {
    scratch *s = *state;
    char word[256];
    error e = {0};
    write_run(s, "small", 1, 10, 0);
    write_run(s, "large", 11, 20, 0);
    write_config(s, "small", "configs/nano-14.yaml");
    write_config(s, "large", "configs/nano.yaml");

    curves x = {.keys = 1, .key = {"lm_loss"}, .label = {"loss"}, .smooth = 1};
    snprintf(word, sizeof word, "grown=%s/small+%s/large", s->directory, s->directory);
    assert_int_equal(curves_arm(&x, word, &e), 0);
    const arm_run *r = &x.arm[0].run[0];
    assert_int_equal(r->points, 20);
    assert_float_equal(r->axis[OVER_STEPS][19], 20, 0);
    assert_float_equal(r->axis[OVER_TOKENS][19], 1000, 0);
    double small = metrics_flops(&r->part[0].c, 50), large = metrics_flops(&r->part[1].c, 50);
    assert_true(large > 1.5 * small);
    for (int i = 1; i <= 20; i++) {
        double spent = i <= 10 ? small * i : small * 10 + large * (i - 10);
        assert_float_equal(r->axis[OVER_FLOPS][i - 1], spent, 1e-9 * spent);
    }
    write_run(s, "small", 1, 1000, 0); /* in bins: its end is not the middle of its last one */
    write_run(s, "large", 1001, 1010, 0);
    assert_int_equal(curves_arm(&x, word, &e), 0);
    r = &x.arm[1].run[0];
    assert_float_equal(r->axis[OVER_FLOPS][r->points - 1], small * 1000 + large * 10, 1e-9 * small * 1000);
    curves_free(&x);
}

/* Runs the command, its stdout going to a file, which is returned. */
static char *said(scratch *s, int argc, char **argv) {
    fflush(stdout);
    int keep = dup(1), out = open(scratch_path(s, "said"), O_CREAT | O_TRUNC | O_WRONLY, 0666);
    dup2(out, 1);
    int code = curves_command(argc, argv);
    fflush(stdout);
    dup2(keep, 1);
    close(keep);
    close(out);
    assert_int_equal(code, 0);
    return scratch_read(scratch_path(s, "said"), NULL);
}

/* A run of so many steps, the word [256] that makes it an arm, and where the picture goes, out [256]. */
static void one_run(scratch *s, const char *arm, const char *run, int steps, char *word, char *out) {
    write_run(s, run, 1, steps, 0);
    snprintf(word, 256, "%s=%s/%s", arm, s->directory, run);
    snprintf(out, 256, "--out=%s/x.svg", s->directory);
}

static void seeds_are_paired(void **state) {
    scratch *s = *state;
    char one[256], other[256], out[256];
    write_run(s, "a1", 1, 20, 0);
    write_run(s, "a2", 1, 20, 0.2);
    write_run(s, "b1", 1, 20, 0.1);
    write_run(s, "b2", 1, 20, 0.4);
    snprintf(one, sizeof one, "one=%s/a1,%s/a2", s->directory, s->directory);
    snprintf(other, sizeof other, "other=%s/b1,%s/b2", s->directory, s->directory);
    snprintf(out, sizeof out, "--out=%s/x.svg", s->directory);
    char *table = said(s, 6, (char *[]){"curves", one, other, out, "--smooth=2", "--title=A & B", NULL});
    assert_non_null(strstr(table, "| one | 2 | 5.100 \302\261 0.141 | - | 8.905 \302\261 0.141 |"));
    assert_non_null(
        strstr(table, "| other | 2 | 5.250 \302\261 0.212 | +0.150 \302\261 0.071 | 9.055 \302\261 0.212 |"));
    free(table);
    char *picture = scratch_read(scratch_path(s, "x.svg"), NULL);
    assert_non_null(strstr(picture, "A &amp; B"));
    assert_non_null(strstr(picture, "class=\"b1\""));
    assert_non_null(strstr(picture, "; bands: the sample deviation over an arm's runs.<"));
    assert_null(strstr(picture, "nan"));
    assert_null(strstr(picture, "var("));
    free(picture);
}

static void with_seed(scratch *s, const char *name, double shift, int64_t seed) {
    config c;
    error e;
    write_run(s, name, 1, 20, shift);
    if (config_load(&c, "configs/nano.yaml", 0, NULL, &e)) fail_msg("%s", e.text);
    c.train.seed = seed;
    if (config_save(&c, scratch_path(s, name), &e)) fail_msg("%s", e.text);
    config_free(&c);
}

/* In whatever order an arm's runs are named; of a seed that the first arm has not, nothing is said. */
static void a_seed_meets_its_own(void **state) {
    scratch *s = *state;
    char one[256], other[256], third[256], out[256];
    with_seed(s, "a1", 0, 1);
    with_seed(s, "a2", 0.2, 2);
    with_seed(s, "b1", 0.1, 1);
    with_seed(s, "b2", 0.4, 2);
    with_seed(s, "b3", 0.4, 3);
    snprintf(one, sizeof one, "one=%s/a1,%s/a2", s->directory, s->directory);
    snprintf(other, sizeof other, "other=%s/b2,%s/b1", s->directory, s->directory);
    snprintf(third, sizeof third, "third=%s/b1,%s/b3", s->directory, s->directory);
    snprintf(out, sizeof out, "--out=%s/x.svg", s->directory);
    char *table = said(s, 5, (char *[]){"curves", one, other, third, out, NULL});
    assert_non_null(strstr(table, "| other | 2 | 5.250 \302\261 0.212 | +0.150 \302\261 0.071 |"));
    assert_non_null(strstr(table, "| third | 2 | 5.250 \302\261 0.212 | - |"));
    free(table);
}

/* The number at a curve is the table's, a mean over the last steps, although the line ends elsewhere. */
static void a_label_says_what_the_table_says(void **state) {
    scratch *s = *state;
    char one[256], out[256];
    one_run(s, "one", "a", 20, one, out);
    char *table = said(s, 4, (char *[]){"curves", one, out, "--smooth=10", NULL});
    assert_non_null(strstr(table, "| 8.845 |")); /* steps 11 to 20 */
    free(table);
    char *picture = scratch_read(scratch_path(s, "x.svg"), NULL);
    assert_non_null(strstr(picture, ">one 8.845<"));
    assert_non_null(strstr(picture, ">loss (nats per token)<"));
    assert_non_null(strstr(picture, ">A point is the mean over 11 steps, a number over the last 10.<"));
    free(picture);
}

static void layers_and_phases(void **state) {
    scratch *s = *state;
    char word[256], out[256];
    one_run(s, "pid", "a", 20, word, out);
    char *table = said(s, 8,
                       (char *[]){"curves", word, out, "--lines=layers", "--key=ffn_experts_mean=experts",
                                  "--rule=K_e=4", "--mark=change=10", "--smooth=5", NULL});
    assert_non_null(strstr(table, "| pid | 6 to 10 | 3.000 | 3.500 | 4.000 | 25.0% | 1 of 2 |"));
    assert_non_null(strstr(table, "| pid | 16 to 20 | 4.000 | 4.000 | 4.000 | 0.0% | 2 of 2 |"));
    free(table);
    /* fewer steps than a mean is over, and a mark behind them all */
    table = said(s, 8,
                 (char *[]){"curves", word, out, "--lines=layers", "--key=ffn_experts_mean=experts",
                            "--rule=K_e=4", "--mark=change=90", "--smooth=50", NULL});
    assert_non_null(strstr(table, "| pid | 41 to 90 | - | - | - | - | 0 of 2 |"));
    assert_non_null(strstr(table, "| pid | 1 to 20 | 3.500 | 3.750 | 4.000 | 12.5% | 1 of 2 |"));
    free(table);
}

/* Of a run that is too long for a point each step, an end is the mean over as many steps all the same. */
static void a_long_run(void **state) {
    scratch *s = *state;
    char word[256], out[256];
    one_run(s, "long", "long", 1000, word, out);
    char *table = said(s, 4, (char *[]){"curves", word, out, "--smooth=20", NULL});
    assert_non_null(strstr(table, "| -0.905 |")); /* steps 981 to 1000 */
    free(table);
    table = said(s, 5, (char *[]){"curves", word, out, "--smooth=20", "--lines=layers", NULL});
    assert_non_null(strstr(table, "| long | 981 to 1000 | -0.905 |"));
    free(table);
}

/* The picture that a command draws. */
static char *drawn(scratch *s, int argc, char **argv) {
    free(said(s, argc, argv));
    return scratch_read(scratch_path(s, "x.svg"), NULL);
}

static void a_picture_without_a_point(void **state) {
    scratch *s = *state;
    char word[256], out[256];
    one_run(s, "a", "a", 20, word, out);
    char *picture = drawn(s, 4, (char *[]){"curves", word, out, "--from=100", NULL});
    assert_null(strstr(picture, "nan"));
    assert_null(strstr(picture, "inf"));
    free(picture);
}

/* Not by colour alone: an arm beyond the colours is drawn thicker, and each label begins with its line. */
static void arms_differ_by_their_lines(void **state) {
    enum { NAMES = 7 };
    scratch *s = *state;
    char word[NAMES][256], out[256], *argv[NAMES + 3] = {"curves"};
    for (int i = 0; i < NAMES; i++) {
        char name[8];
        snprintf(name, sizeof name, "arm%d", i);
        one_run(s, name, "a", 20, argv[i + 1] = word[i], out);
    }
    argv[NAMES + 1] = out;
    char *picture = drawn(s, NAMES + 2, argv);
    assert_non_null(strstr(picture, "path.c1{stroke-dasharray:8 5}"));
    assert_non_null(strstr(picture, "h22\"/><text class=\"label c1\""));
    assert_non_null(strstr(picture, "h22\"/><text class=\"label c0 thick\""));
    free(picture);
}

static void nothing_but_zeros_have_no_tick_below(void **state) {
    scratch *s = *state;
    char word[256], out[256];
    one_run(s, "a", "a", 20, word, out);
    char *picture = drawn(s, 4, (char *[]){"curves", word, out, "--key=none", NULL});
    assert_non_null(strstr(picture, ">0<"));
    assert_null(strstr(picture, ">-"));
    free(picture);
}

/* 500 steps and 1,000 are 250 bins both. */
static void runs_of_an_arm_have_as_many_steps(void **state) {
    scratch *s = *state;
    char word[256];
    error e = {0};
    write_run(s, "short", 1, 500, 0);
    write_run(s, "long", 1, 1000, 0);
    curves x = {.keys = 1, .key = {"lm_loss"}, .label = {"loss"}, .smooth = 1};
    snprintf(word, sizeof word, "arm=%s/short,%s/long", s->directory, s->directory);
    assert_int_equal(curves_arm(&x, word, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "its runs have other steps than one another: "));
    assert_non_null(strstr(e.text, "/long ends with step 1000, "));
    curves_free(&x);
}

static void words_that_say_nothing(void **state) {
    scratch *s = *state;
    char a[256], b[256], uneven[600], twice[900], out[256];
    write_run(s, "a", 1, 20, 0);
    write_run(s, "b", 1, 19, 0);
    snprintf(a, sizeof a, "a=%s/a", s->directory);
    snprintf(b, sizeof b, "b=%s/absent", s->directory);
    snprintf(uneven, sizeof uneven, "c=%s/a,%s/b", s->directory, s->directory);
    snprintf(out, sizeof out, "--out=%s/x.svg", s->directory);
    assert_int_equal(curves_command(3, (char *[]){"curves", s->directory, out, NULL}), EXIT_USAGE);
    assert_int_equal(curves_command(3, (char *[]){"curves", b, out, NULL}), EXIT_USAGE);
    assert_int_equal(curves_command(3, (char *[]){"curves", "a=,", out, NULL}), EXIT_USAGE);
    assert_int_equal(curves_command(3, (char *[]){"curves", "a=+", out, NULL}), EXIT_USAGE);
    assert_int_equal(curves_command(3, (char *[]){"curves", uneven, out, NULL}), EXIT_USAGE);
    assert_int_equal(curves_command(4, (char *[]){"curves", a, out, "--key=no_such_value", NULL}),
                     EXIT_USAGE);
    assert_int_equal(curves_command(4, (char *[]){"curves", a, out, "--rule=K_e", NULL}), EXIT_USAGE);
    assert_int_equal(curves_command(4, (char *[]){"curves", a, out, "--axis=time", NULL}), EXIT_USAGE);
    snprintf(twice, sizeof twice, "a=%s/a,%s/../%s/a", s->directory, s->directory,
             strrchr(s->directory, '/') + 1);
    assert_int_equal(curves_command(3, (char *[]){"curves", twice, out, NULL}), EXIT_USAGE);
    assert_int_equal(
        curves_command(5, (char *[]){"curves", a, out, "--axis=tokens", "--mark=change=10", NULL}),
        EXIT_USAGE);
    write_run(s, "c", 1, 20, 0);
    snprintf(twice, sizeof twice, "a=%s/a,%s/c", s->directory, s->directory);
    assert_int_equal(curves_command(4, (char *[]){"curves", twice, out, "--lines=layers", NULL}), EXIT_USAGE);
    /* a run without a config */
    assert_int_equal(curves_command(4, (char *[]){"curves", a, out, "--axis=flops", NULL}), EXIT_USAGE);
    assert_int_equal(access(scratch_path(s, "x.svg"), F_OK), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spreads),
        cmocka_unit_test_setup_teardown(a_grown_run_adds_up_what_both_cost, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(seeds_are_paired, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_seed_meets_its_own, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_label_says_what_the_table_says, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(layers_and_phases, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_long_run, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_picture_without_a_point, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(arms_differ_by_their_lines, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(nothing_but_zeros_have_no_tick_below, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test_setup_teardown(runs_of_an_arm_have_as_many_steps, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(words_that_say_nothing, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
