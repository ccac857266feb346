#include "train/curves.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "launch/memory.h"
#include "launch/options.h"
#include "train/metrics.h"
#include "train/whole_file.h"

void curves_spread(int n, const double *x, double *mean, double *deviation) {
    double sum = 0, square = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    *mean = sum / n;
    for (int i = 0; i < n; i++) square += (x[i] - *mean) * (x[i] - *mean);
    *deviation = n > 1 ? sqrt(square / (n - 1)) : NAN;
}

static const char *const curve_axis_name[CURVE_AXES] = {"steps", "tokens", "flops"};

/* ---- reading a run ---- */

static int read_part(arm_run *r, const curves *c, const char *path, error *e) {
    const char *key[CURVE_KEYS + 1];
    char log[4200];
    series *s = &r->log[r->parts];
    for (int k = 0; k < c->keys; k++) key[k] = c->key[k];
    key[c->keys] = "tokens";
    snprintf(log, sizeof log, "%s/metrics.jsonl", path);
    if (run_expected(path, e)) return e->code;
    if (run_read(&r->part[r->parts++], path, NULL, e) || series_read(s, log, c->keys + 1, key, e))
        return e->code;
    if (c->axis == OVER_FLOPS && !r->part[r->parts - 1].has_config)
        return error_set(e, EXIT_USAGE,
                         "--axis=flops: %s/config.yaml cannot be read, and says what a token costs", path);
    for (int k = 0; k < c->keys; k++) {
        const column *v = series_find(s, c->key[k]);
        if (!v) return error_set(e, EXIT_USAGE, "%s: has no value named %s", log, c->key[k]);
        if (r->parts == 1) r->width[k] = v->width;
        if (v->width < r->width[k]) r->width[k] = v->width;
    }
    if (c->axis != OVER_STEPS && !series_find(s, "tokens"))
        return error_set(e, EXIT_USAGE, "%s: has no value named tokens, which --axis=%s needs", log,
                         curve_axis_name[c->axis]);
    r->points += s->bins;
    return 0;
}

/* FLOPs of a part start where the part before it ended. */
static void join_axes(arm_run *r) {
    int64_t at = 0;
    double spent = 0, tokens_before = 0;
    for (int p = 0; p < r->parts; p++) {
        const series *s = &r->log[p];
        const column *tokens = series_find(s, "tokens");
        const config *c = r->part[p].has_config ? &r->part[p].c : NULL;
        double before = c ? metrics_flops(c, tokens_before) : NAN;
        for (int64_t b = 0; b < s->bins; b++) {
            r->axis[OVER_STEPS][at + b] = s->step[b];
            r->axis[OVER_TOKENS][at + b] = tokens ? tokens->mean[b] : NAN;
            r->axis[OVER_FLOPS][at + b] =
                c && tokens ? spent + metrics_flops(c, tokens->mean[b]) - before : NAN;
        }
        at += s->bins;
        tokens_before = run_last(s, "tokens");
        spent += c ? metrics_flops(c, tokens_before) - before : NAN;
    }
}

static void join_values(arm_run *r, int k) {
    double *to = r->value[k];
    for (int64_t l = 0; l <= r->width[k]; l++) /* the last: the mean of all */
        for (int p = 0; p < r->parts; p++) {
            const column *v = &r->log[p].column[k];
            for (int64_t b = 0; b < r->log[p].bins; b++, to++) {
                const double *layer = v->mean + b * v->width;
                if (l < r->width[k]) *to = layer[l];
                else
                    for (int64_t j = 0; j < v->width; j++) *to += layer[j] / (double)v->width;
            }
        }
}

/* "RUN+RUN": cut in place. */
static int read_run(arm_run *r, const curves *c, char *paths, error *e) {
    char *rest = NULL;
    for (char *path = strtok_r(paths, "+", &rest); path; path = strtok_r(NULL, "+", &rest)) {
        if (r->parts == ARM_PARTS)
            return error_set(e, EXIT_USAGE, "%s: a curve has at most %d parts", path, ARM_PARTS);
        if (read_part(r, c, path, e)) return e->code;
    }
    for (int i = 0; i < CURVE_AXES; i++)
        r->axis[i] = mem_alloc((size_t)r->points * sizeof(double), "a curve");
    join_axes(r);
    for (int k = 0; k < c->keys; k++) {
        r->value[k] = mem_alloc((size_t)((r->width[k] + 1) * r->points) * sizeof(double), "a curve");
        join_values(r, k);
    }
    return 0;
}

static int same_steps(const arm_run *a, const arm_run *b) {
    return a->points == b->points &&
           !memcmp(a->axis[OVER_STEPS], b->axis[OVER_STEPS], (size_t)a->points * sizeof(double));
}

/* The same run among an arm's runs or their parts would make a spread of nothing. */
static int refuse_twins(const arm *a, const char *word, error *e) {
    struct stat seen[ARM_RUNS * ARM_PARTS];
    int n = 0;
    for (int r = 0; r < a->runs; r++)
        for (int p = 0; p < a->run[r].parts; p++, n++) {
            const char *path = a->run[r].part[p].directory;
            if (stat(path, &seen[n])) return error_set(e, EXIT_IO, "%s: cannot be found any more", path);
            for (int i = 0; i < n; i++)
                if (seen[i].st_dev == seen[n].st_dev && seen[i].st_ino == seen[n].st_ino)
                    return error_set(e, EXIT_USAGE, "%s: has %s twice", word, path);
        }
    return 0;
}

/* ---- reading what was said ---- */

int curves_arm(curves *c, const char *word, error *e) {
    if (!c->arm) c->arm = mem_alloc(ARMS * sizeof *c->arm, "curves");
    arm *a = &c->arm[c->arms++];
    char *text = mem_string(word), *rest = NULL, *equals = strchr(text, '='), *colon = NULL;
    int code = 0;
    if (!equals || equals == text || !equals[1 + strspn(equals + 1, "+,")])
        code = error_set(e, EXIT_USAGE, "%s: must be [PANEL:]NAME=RUN_DIR[+RUN_DIR][,RUN_DIR...]", word);
    if (!code) {
        *equals = 0;
        colon = strchr(text, ':');
        if (colon) *colon = 0;
        snprintf(a->name, sizeof a->name, "%s", colon ? colon + 1 : text);
        snprintf(a->panel, sizeof a->panel, "%s", c->by_layer ? a->name : colon ? text : "");
        for (char *run = strtok_r(equals + 1, ",", &rest); run && !code; run = strtok_r(NULL, ",", &rest)) {
            if (c->by_layer && a->runs)
                code = error_set(e, EXIT_USAGE, "%s: an arm has one run where each of its layers has a line",
                                 word);
            else if (a->runs == ARM_RUNS)
                code = error_set(e, EXIT_USAGE, "%s: an arm has at most %d runs", word, ARM_RUNS);
            else code = read_run(&a->run[a->runs++], c, run, e);
            if (!code && !same_steps(&a->run[0], &a->run[a->runs - 1]))
                code =
                    error_set(e, EXIT_USAGE,
                              "%s: its runs have other steps than one another: %s ends with step %lld, the "
                              "first with step %lld",
                              word, run, arm_run_last(&a->run[a->runs - 1]), arm_run_last(&a->run[0]));
        }
        if (!code) code = refuse_twins(a, word, e);
    }
    mem_free(text);
    return code;
}

/* LABEL=NUMBER */
static int read_line(curve_line *line, const char *option, const char *text, error *e) {
    const char *equals = strrchr(text, '=');
    char *end = NULL;
    line->at = equals ? strtod(equals + 1, &end) : NAN;
    if (!equals || end == equals + 1 || *end || !isfinite(line->at))
        return error_set(e, EXIT_USAGE, "--%s=%s: must be --%s=LABEL=NUMBER", option, text, option);
    snprintf(line->label, sizeof line->label, "%.*s", (int)(equals - text), text);
    return 0;
}

/* KEY or KEY=LABEL; the label goes to the picture. */
static void read_key(curves *c, int k, char *text) {
    char *equals = strchr(text, '=');
    c->key[k] = text;
    c->label[k] = equals ? equals + 1 : text;
    if (equals) *equals = 0;
}

void curves_free(curves *c) {
    for (int a = 0; a < c->arms; a++)
        for (int i = 0; i < c->arm[a].runs; i++) {
            arm_run *r = &c->arm[a].run[i];
            for (int p = 0; p < r->parts; p++) {
                run_free(&r->part[p]);
                series_free(&r->log[p]);
            }
            for (int x = 0; x < CURVE_AXES; x++) mem_free(r->axis[x]);
            for (int k = 0; k < CURVE_KEYS; k++) mem_free(r->value[k]);
        }
    mem_free(c->arm);
}

int curves_command(int argc, char **argv) {
    const char *out = "curves.svg", *axis = "steps", *lines = "arms", *key[CURVE_KEYS], *rule[CURVE_LINES],
               *mark[CURVE_LINES];
    curves c = {.title = "", .smooth = 1, .from = 1};
    const option known[] = {{"out", .text = &out},
                            {"title", .text = &c.title},
                            {"key", .text = key, .most = CURVE_KEYS, .given = &c.keys},
                            {"axis", .text = &axis},
                            {"lines", .text = &lines},
                            {"smooth", .integer = &c.smooth, .min = 1, .max = 100000},
                            {"from", .integer = &c.from, .min = 0, .max = INT32_MAX},
                            {"rule", .text = rule, .most = CURVE_LINES, .given = &c.rules},
                            {"mark", .text = mark, .most = CURVE_LINES, .given = &c.marks},
                            {0}};
    options o = {.usage = "usage: caracal curves [PANEL:]NAME=RUN_DIR[+RUN_DIR][,RUN_DIR...] ... "
                          "[--out=curves.svg] [--title=TEXT]\n"
                          "           [--key=lm_loss[=LABEL] ...] [--axis=steps|tokens|flops] "
                          "[--lines=arms|layers] [--smooth=STEPS]\n"
                          "           [--from=STEP] [--rule=LABEL=VALUE ...] [--mark=LABEL=STEP ...]\n"
                          "An arm's runs differ in their seed: their mean is drawn, with their deviation as "
                          "a band.  RUN+RUN is a\n"
                          "run and what was grown from it.  --lines=layers: a panel for each arm, a line for "
                          "each of its layers.\n",
                 .known = known,
                 .min_words = 1,
                 .max_words = ARMS};
    error e = {0};
    if (!options_read(&o, argc, argv)) return o.code;
    while (c.axis < CURVE_AXES && strcmp(axis, curve_axis_name[c.axis])) c.axis++;
    c.by_layer = !strcmp(lines, "layers");
    if (c.axis == CURVE_AXES) return options_refuse(&o, "--axis=%s: must be steps, tokens or flops", axis);
    if (c.axis != OVER_STEPS && c.marks)
        return options_refuse(&o, "--mark=%s: is at a step, and the axis has %s", mark[0], axis);
    if (!c.by_layer && strcmp(lines, "arms"))
        return options_refuse(&o, "--lines=%s: must be arms or layers", lines);

    char *named[CURVE_KEYS] = {0};
    if (!c.keys) key[c.keys++] = "lm_loss=loss";
    for (int k = 0; k < c.keys; k++) read_key(&c, k, named[k] = mem_string(key[k]));
    for (int i = 0; i < c.rules && !e.code; i++) read_line(&c.rule[i], "rule", rule[i], &e);
    for (int i = 0; i < c.marks && !e.code; i++) read_line(&c.mark[i], "mark", mark[i], &e);
    for (int i = 0; i < o.words && !e.code; i++) curves_arm(&c, o.word[i], &e);
    if (!e.code) whole_file(out, curves_picture, &c, &e);
    if (e.code) error_print(&e);
    else if (c.by_layer) curves_phases(&c);
    else curves_ends(&c);
    curves_free(&c);
    for (int k = 0; k < c.keys; k++) mem_free(named[k]);
    return e.code;
}
