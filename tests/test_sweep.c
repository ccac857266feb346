/* Sweeps without a run: the points of grids and random searches, results read back, pictures, and the text of
 * the target's config. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/config_text.h"
#include "train/config_edit.h"
#include "train/sweep_target.h"

/* ---- points ---- */

static const char *value(const sweep_space *s, int64_t trial, int axis) {
    static char text[SWEEP_TEXT];
    sweep_value(s, trial, axis, text);
    return text;
}

static void grids(void **unused) {
    (void)unused;
    const char *over[] = {"optim.lr=1e-4:1e-2:log", "init.hidden_std=0.01,0.02,0.050"};
    static const char *const lr[] = {"0.0001", "0.000316228", "0.001", "0.00316228", "0.01"}, *const std[] = {
                                                                                                  "0.01",
                                                                                                  "0.02",
                                                                                                  "0.05"};
    sweep_space s;
    error e;
    assert_int_equal(sweep_space_read(&s, 2, over, 0, 1, &e), 0);
    assert_int_equal(s.trials, 15);
    for (int64_t t = 0; t < 15; t++) {
        assert_string_equal(value(&s, t, 0), lr[t % 5]);
        assert_string_equal(value(&s, t, 1), std[t / 5]);
    }
}

static void ranges(void **unused) {
    (void)unused;
    static const struct {
        const char *over, *points;
    } range[] = {
        {"optim.weight_decay=0:0.2:3", "0, 0.1, 0.2"},
        {"optim.lr=1e-3:8e-3:log:4", "0.001, 0.002, 0.004, 0.008"},
        {"optim.lr=1.23456789e-3:2e-3:2", "0.00123456789, 0.002"}, /* the ends are as they were said */
        {"optim.warmup_steps=1:4:9", "1, 2, 3, 4"},                /* whole numbers, each once */
        {"train.seed=7,8,64k", "7, 8, 64000"},
    };
    sweep_space s;
    error e;
    for (size_t i = 0; i < sizeof range / sizeof *range; i++) {
        assert_int_equal(sweep_space_read(&s, 1, &range[i].over, 0, 1, &e), 0);
        char *text = sweep_axis_text(&s.axis[0]);
        assert_string_equal(text, range[i].points);
        free(text);
    }
}

/* A point is its seed's, its key's and its number's: not that of what else is searched, or how long. */
static void random_points(void **unused) {
    (void)unused;
    const char *over[] = {"optim.lr=1e-4:1e-2:log", "init.hidden_std=0.01:0.05",
                          "optim.warmup_steps=2,4,8,16"};
    enum { N = 2000 };
    sweep_space few, many, other, alone;
    error e;
    assert_int_equal(sweep_space_read(&few, 3, over, 10, 1, &e), 0);
    assert_int_equal(sweep_space_read(&many, 3, over, N, 1, &e), 0);
    assert_int_equal(sweep_space_read(&other, 3, over, N, 2, &e), 0);
    assert_int_equal(sweep_space_read(&alone, 1, over + 1, N, 1, &e), 0);
    int below[3] = {0}, same = 0, both = 0;
    for (int64_t t = 0; t < N; t++) {
        char text[SWEEP_TEXT];
        for (int a = 0; a < 3; a++) {
            sweep_value(&many, t, a, text);
            if (t < few.trials) assert_string_equal(value(&few, t, a), text);
            same += !strcmp(value(&other, t, a), text) && a < 2;
        }
        double lr = strtod(value(&many, t, 0), NULL), std = strtod(value(&many, t, 1), NULL);
        assert_true(lr >= 1e-4 && lr <= 1e-2 && std >= 0.01 && std <= 0.05);
        sweep_value(&many, t, 1, text);
        assert_string_equal(value(&alone, t, 0), text);
        below[0] += lr < 1e-3;
        below[1] += std < 0.03;
        both += (lr < 1e-3) == (std < 0.03); /* half the time, when keys know nothing of one another */
        below[2] += strtod(value(&many, t, 2), NULL) < 6;
    }
    assert_in_range(same, 0, 20);
    /* half lies below the middle: 1,000 of 2,000, with a deviation of 22 */
    for (int i = 0; i < 3; i++) assert_in_range(below[i], 890, 1110);
    assert_in_range(both, 890, 1110);
}

static void refused(void **unused) {
    (void)unused;
    static const struct {
        int64_t trials;
        const char *over, *second, *words;
    } bad[] = {
        {0, NULL, NULL, "nothing to search"},
        {0, "optim.lr", NULL, "must be --over=KEY=VALUE"},
        {0, "optim.lr=", NULL, "must be --over=KEY=VALUE"},
        {0, "=1,2", NULL, "must be --over=KEY=VALUE"},
        {0, "optim.lrr=1,2", NULL, "unknown key optim.lrr; did you mean optim.lr?"},
        {0, "model.moe_input=shortcut,sequential", NULL, "no number (it must be shortcut or sequential)"},
        {0, "run.dir=1,2", NULL, "is no number"},
        {0, "optim.lr=1e-3,,1e-2", NULL, "optim.lr has no value"},
        {0, "optim.lr=1e-3,x", NULL, "optim.lr = x: must be a number, above 0"},
        {0, "optim.lr=1e-3,-1", NULL, "optim.lr = -1: must be a number, above 0"},
        {0, "optim.lr=1e-3,nan", NULL, "optim.lr = nan"},
        {0, "train.seed=1,1.5", NULL, "train.seed = 1.5: must be an integer"},
        {0, "optim.lr=1e-3,0.001", NULL, "has 0.001 twice"},
        {0, "optim.lr=1e-2:1e-3", NULL, "an empty range"},
        {5, "optim.lr=1e-2:1e-2:log", NULL, "an empty range"},
        {0, "optim.weight_decay=0:1:log", NULL, "must begin above 0"},
        {0, "optim.lr=1e-3:1e-2:1", NULL, "from 2 to 200"},
        {0, "optim.lr=1e-3:1e-2:lin", NULL, "must be LOW:HIGH"},
        {0, "optim.lr=1e-3:1e-2:log:5x", NULL, "must be LOW:HIGH"},
        {0, "optim.lr=1e-3:1e-2:log:999", NULL, "from 2 to 200"},
        {0, "optim.lr=1e-3:1e-2:log:5:5", NULL, "must be LOW:HIGH"},
        {0, "optim.lr=:1e-2", NULL, "optim.lr has no value"},
        {0, "optim.lr=1,2", "optim.lr=3,4", "is given twice"},
        {0, "optim.lr=1:2:200", "init.hidden_std=1:2:200", "--trials=N draws some at random"},
    };
    sweep_space s;
    error e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *over[] = {bad[i].over, bad[i].second};
        int n = !!bad[i].over + !!bad[i].second;
        assert_int_equal(sweep_space_read(&s, n, over, bad[i].trials, 1, &e), EXIT_USAGE);
        if (!strstr(e.text, bad[i].words)) fail_msg("%s\nwanted: %s", e.text, bad[i].words);
    }
}

/* ---- the target ---- */

static const char model[] =
    "model: {vocab_size: 512, hidden_size: 48, num_layers: 2, num_attention_heads: 2,\n"
    "  q_lora_rank: 24, kv_lora_rank: 16, qk_nope_head_dim: 16, qk_rope_head_dim: 8,\n"
    "  v_head_dim: 16, ffn_hidden_size: 64, expert_ffn_hidden_size: 32,\n"
    "  n_routed_experts: 8, zero_expert_num: 4, moe_topk: 4}\n"
    "router: {expected_ffn_experts: 2.5}\n"
    "train: {steps: 6, seq_len: 32, micro_batches: 8}\n"
    "data: {tokenizer: t.json}\n";

static config load_proxy(scratch *s, const char *first, const char *second) {
    char text[2048];
    config c;
    error e;
    snprintf(text, sizeof text,
             "%srun: {dir: p}\noptim: {lr: 0.004}\ninit: {hidden_std: 0.03, embedding_std: 0.5}\n", model);
    assert_int_equal(load_text(s, &c, text, first, second, &e), 0);
    return c;
}

static sweep_space searched(void) {
    const char *over[] = {"optim.lr=0.001,0.004", "optim.beta2=0.95,0.99"};
    sweep_space s;
    error e;
    assert_int_equal(sweep_space_read(&s, 2, over, 0, 1, &e), 0);
    return s;
}

/* Whatever shape the target's text has: the same keys, the same comments, the best values. */
static void targets(void **state) {
    scratch *s = *state;
    /* blocks, with values in place, quoted, last without a newline */
    static const char blocks[] =
        "# \xe4\xb8\xad\xe6\x96\x87 first\nrun: {dir: t}\noptim:\n  lr: 1  # old\n  eps: '1e-20' # eps\n"
        "init:\n  hidden_std: \"7\"\ntransfer:\n  proxy_width: 9 # nine";
    static const char *const head[] = {
        blocks,
        /* a section with nothing but comments, others missing */
        "run: {dir: t}\noptim:\n  # lr: 3\n  eps: 1e-20\ninit:\n  # all\n",
        /* flow mappings, empty and not */
        "# \xe4\xb8\xad\nrun: {dir: t}\noptim: {eps: 1e-20}\ninit: {}\ntransfer: {proxy_width: 3}\n",
        /* said in two places, as the reader allows */
        "run:\n  dir: t\noptim:\n    eps: 1e-20\n# between\noptim:\n    lr: 1\n",
        /* no line at all for them */
        "run: {dir: t}",
    };
    sweep_space space = searched();
    config proxy = load_proxy(s, NULL, NULL);
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) {
        char text[2048], edited[PATH_MAX];
        snprintf(text, sizeof text, "%s%s", model, head[i]);
        char *at = strstr(text, "hidden_size: 48");
        memcpy(at, "hidden_size: 96", strlen("hidden_size: 96"));
        char *target = scratch_write(s, "target.yaml", text);
        snprintf(edited, sizeof edited, "%s/new.yaml", s->directory);
        error e = {0};
        config c;
        if (sweep_target_check(target, &proxy, &space, &e)) fail_msg("%s", e.text);
        assert_int_equal(sweep_target_write(target, edited, &proxy, &space, "trial 1", &e), 0);
        assert_int_equal(config_load(&c, edited, 0, NULL, &e), 0);
        assert_float_equal(c.optim.lr, 0.004, 0);
        assert_float_equal(c.optim.beta2, 0.95, 0);
        assert_float_equal(c.init.hidden_std, 0.03, 0);
        assert_float_equal(c.init.embedding_std, 0.5, 0);
        assert_float_equal(c.init.unembedding_std, 0.02, 0);
        assert_int_equal(c.transfer.proxy_width, 48);
        assert_int_equal(c.model.hidden_size, 96);
        assert_string_equal(c.run_dir, "t");
        if (strstr(text, "1e-20")) assert_float_equal(c.optim.eps, 1e-20, 0);
        config_free(&c);
        char *written = scratch_read(edited, NULL);
        const char *comments[] = {"# \xe4\xb8\xad\xe6\x96\x87 first",
                                  "  # old",
                                  " # eps",
                                  " # nine",
                                  "# all",
                                  "# between",
                                  "# lr: 3"};
        for (size_t k = 0; k < sizeof comments / sizeof *comments; k++)
            if (strstr(text, comments[k])) assert_non_null(strstr(written, comments[k]));
        assert_non_null(strstr(written, "# Learning rate and initial deviations: trial 1, 48 wide."));
        free(written);
    }
    config_free(&proxy);
}

static void bad_targets(void **state) {
    scratch *s = *state;
    static const struct {
        const char *from, *to, *words;
        int code;
    } bad[] = {
        {"hidden_size: 48", "hidden_size: 47", "model.hidden_size = 47 is narrower than the proxy's 48", 2},
        {"moe_topk: 4", "moe_topk: 400", "--target: ", 2},
        {"}\n", "}\noptim: &o {eps: 1e-20}\ninit: *o\n", "init.eps", 2},
    };
    sweep_space space = searched();
    config proxy = load_proxy(s, NULL, NULL);
    error e = {0};
    char base[2048];
    snprintf(base, sizeof base, "%srun: {dir: t}\n", model);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *target = scratch_write(s, "bad.yaml", edited_text(base, bad[i].from, bad[i].to));
        assert_int_equal(sweep_target_check(target, &proxy, &space, &e), bad[i].code);
        if (!strstr(e.text, bad[i].words)) fail_msg("%s\nwanted: %s", e.text, bad[i].words);
    }
    const char *width[] = {"model.hidden_size=48,96"};
    sweep_space widths;
    assert_int_equal(sweep_space_read(&widths, 1, width, 0, 1, &e), 0);
    assert_int_equal(sweep_target_check("bad.yaml", &proxy, &widths, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "a target needs one proxy"));

    /* a value that is another's alias: editing one changes both, which is seen, and nothing is written */
    char out[96],
        *aliased = scratch_write(
            s, "alias.yaml", edited_text(base, "}\n", "}\ninit: {hidden_std: &a 1, embedding_std: *a}\n"));
    snprintf(out, sizeof out, "%s/out.yaml", s->directory);
    int files = scratch_files(s);
    assert_int_equal(sweep_target_write(aliased, out, &proxy, &space, "trial 1", &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "alias.yaml"));
    assert_int_equal(scratch_files(s), files);
    /* so is a text whose end says that it is one */
    aliased = scratch_write(s, "alias.yaml", edited_text(base, "run: {dir: t}\n", "run: {dir: t}\n...\n"));
    assert_int_equal(sweep_target_write(aliased, out, &proxy, &space, "trial 1", &e), EXIT_USAGE);
    assert_int_equal(scratch_files(s), files);
    config_free(&proxy);

    /* a proxy that has its own from a narrower one hands on that one's width */
    proxy = load_proxy(s, "--transfer.proxy_width=24", NULL);
    char *target = scratch_write(s, "wide.yaml", base);
    assert_int_equal(sweep_target_write(target, out, &proxy, &space, "trial 1", &e), 0);
    config c;
    assert_int_equal(config_load(&c, out, 0, NULL, &e), 0);
    assert_int_equal(c.transfer.proxy_width, 24);
    config_free(&c);
    config_free(&proxy);
}

/* ---- results and pictures ---- */

static void write_results(scratch *s, const char *name, const char *text) {
    char file[64];
    mkdir(scratch_path(s, name), 0777);
    snprintf(file, sizeof file, "%s/results.jsonl", name);
    scratch_write(s, file, text);
}

static const char good[] =
    "{\"trial\":1,\"values\":{\"optim.lr\":0.001,\"a.b\":1},\"status\":\"done\",\"step\":4,\"train_loss\":5."
    "5,\"held_out_loss\":5.0}\n"
    "{\"trial\":2,\"values\":{\"optim.lr\":0.01,\"a.b\":1},\"status\":\"done\",\"step\":4,\"train_loss\":4.5,"
    "\"held_out_loss\":4.75}\n"
    "{\"trial\":3,\"values\":{\"optim.lr\":0.1,\"a.b\":1},\"status\":\"diverged\",\"step\":2}\n"
    "{\"trial\":4,\"values\":{\"optim.lr\":0.01,\"a.b\":2},\"status\":\"done\",\"step\":4,\"train_loss\":4.0,"
    "\"held_out_loss\":4.75}\n";
/* The first learnt so slowly that its loss would flatten the others', the last diverged. */
static const char slow[] = "{\"trial\":1,\"values\":{\"optim.lr\":0.001},\"train_loss\":9}\n"
                           "{\"trial\":2,\"values\":{\"optim.lr\":0.01},\"train_loss\":4.2}\n"
                           "{\"trial\":3,\"values\":{\"optim.lr\":0.02},\"train_loss\":4}\n"
                           "{\"trial\":4,\"values\":{\"optim.lr\":0.04},\"train_loss\":4.1}\n"
                           "{\"trial\":5,\"values\":{\"optim.lr\":0.1},\"status\":\"diverged\"}\n";

static void results(void **state) {
    scratch *s = *state;
    sweep_results r;
    error e = {0};
    write_results(s, "good", good);
    assert_int_equal(sweep_results_read(&r, scratch_path(s, "good"), &e), 0);
    assert_string_equal(r.name, "good");
    assert_int_equal(r.n, 4);
    assert_int_equal(r.axes, 2);
    assert_true(isnan(r.result[2].loss));
    assert_int_equal(sweep_best(&r)->trial, 2); /* the first of two that are equal */
    sweep_results_free(&r);
    static const char *const bad[] = {
        "",
        "x\n",
        "{\"trial\":1,\"values\":{\"a\":1}}",
        "{\"trial\":1,\"values\":{}}\n",
        "{\"trial\":1,\"values\":{\"a\":1}}\n{\"trial\":2,\"values\":{\"b\":1}}\n",
        "{\"trial\":1,\"values\":{\"a\":1}}\n{\"trial\":2,\"values\":{\"a\":1,\"b\":1}}\n",
        "{\"trial\":1,\"values\":{\"a\":\"x\"}}\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_results(s, "bad", bad[i]);
        assert_int_equal(sweep_results_read(&r, scratch_path(s, "bad"), &e), EXIT_CORRUPT);
    }
    assert_int_equal(sweep_results_read(&r, scratch_path(s, "nowhere"), &e), EXIT_USAGE);
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (; (text = strstr(text, what)); text++) n++;
    return n;
}

/* The mean of the last two of twenty steps, of which one cannot be read. */
static void a_damaged_line_is_no_row(void **state) {
    scratch *s = *state;
    const char *over = "optim.lr=1,2";
    char text[1024] = "", *end = text;
    sweep_space space;
    double loss;
    error e = {0};
    for (int i = 1; i <= 20; i++)
        end += sprintf(end, "{\"step\":%d,\"lm_loss\":%s}\n", i, i == 19 ? "" : "4.5");
    scratch_write(s, "metrics.jsonl", text);
    assert_int_equal(sweep_space_read(&space, 1, &over, 0, 1, &e), 0);
    assert_int_equal(sweep_result_save(&space, 0, s->directory, 0, &loss, &e), 0);
    assert_float_equal(loss, 4.5, 0);
}

static void pictures(void **state) {
    scratch *s = *state;
    error e = {0};
    char one[128], two[400], three[128], out[128];
    write_results(s, "good", good);
    write_results(s, "nothing",
                  "{\"trial\":1,\"values\":{\"optim.lr\":1},\"status\":\"diverged\",\"step\":1}\n");
    write_results(s, "other",
                  "{\"trial\":1,\"values\":{\"optim.eps\":1},\"status\":\"diverged\",\"step\":1}\n");
    write_results(s, "slow", slow);
    snprintf(out, sizeof out, "%s/p.svg", s->directory);
    snprintf(one, sizeof one, "%s/good", s->directory);
    snprintf(two, sizeof two, "a <b>=%s/good,%s/nothing", s->directory, s->directory);
    char *panels[] = {one, two, one, one, one, one, one};
    assert_int_equal(sweep_picture(out, 2, panels, &e), 0);
    char *svg = scratch_read(out, NULL);
    assert_non_null(strstr(svg, ">Loss of 4 trials<"));
    assert_non_null(strstr(svg, ">a &lt;b&gt;<"));
    assert_non_null(strstr(svg, ">b 1<"));     /* a curve for each value of a.b */
    assert_non_null(strstr(svg, ">good<"));    /* and one for the sweep */
    assert_int_equal(count(svg, "a6 6 0"), 6); /* three rings of two arcs: two values, one sweep */
    assert_int_equal(count(svg, "m-4 -4"), 3); /* what diverged: 0.1 twice, and the other sweep's only one */
    assert_null(strstr(svg, "nan"));
    assert_null(strstr(svg, "var("));
    assert_non_null(strstr(svg, ">Ring: the best of a curve. Cross: diverged.<"));
    free(svg);
    char *above[] = {three};
    snprintf(three, sizeof three, "%s/slow", s->directory);
    assert_int_equal(sweep_picture(out, 1, above, &e), 0);
    svg = scratch_read(out, NULL);
    assert_int_equal(count(svg, "m-4 -4"), 1);     /* the one that diverged */
    assert_int_equal(count(svg, "m-4 0l4 -6"), 1); /* the one that learnt too slowly */
    assert_non_null(strstr(svg, " Arrow: ended above 4.8, the best + 4 x (median - best).<"));
    free(svg);
    snprintf(two, sizeof two, "%s/good,%s/other", s->directory, s->directory);
    assert_int_equal(sweep_picture(out, 2, panels, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "is a sweep over optim.eps, the one before over optim.lr"));
    snprintf(two, sizeof two, "%s/nowhere", s->directory);
    assert_int_equal(sweep_picture(out, 2, panels, &e), EXIT_USAGE);
    assert_int_equal(sweep_picture(out, 7, panels, &e), EXIT_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grids),
        cmocka_unit_test(ranges),
        cmocka_unit_test(random_points),
        cmocka_unit_test(refused),
        cmocka_unit_test_setup_teardown(targets, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(bad_targets, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(results, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_damaged_line_is_no_row, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(pictures, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
