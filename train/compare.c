#include "train/compare.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "launch/memory.h"
#include "launch/options.h"
#include "train/config_table.h"
#include "train/console.h"
#include "train/metrics.h"
#include "train/whole_file.h"

/* ---- reading ---- */

/* Seconds from the start of the log to the end of step `at`. */
static double seconds_until(const series *timing, double at) {
    const column *t = series_find(timing, "step_seconds");
    if (!t || t->width != 1 || at > (double)timing->last + 0.5) return NAN;
    double sum = 0, width = (double)timing->per;
    for (int64_t b = 0; b < timing->bins; b++) {
        double begin = (double)(timing->first + b * timing->per) - 0.5;
        double steps = fmin(fmax(at + 0.5 - begin, 0), width);
        if (isfinite(t->mean[b])) sum += steps * t->mean[b];
    }
    return sum;
}

static int read_run(compared_run *x, const char *path, error *e) {
    x->path = path;
    if (run_read(&x->run, path, "lm_loss", e)) return e->code;
    const series *s = &x->run.metrics;
    const column *loss = series_find(s, "lm_loss"), *tokens = series_find(s, "tokens");
    if (!loss || loss->width != 1)
        return error_set(e, EXIT_USAGE, "%s: has no metrics.jsonl with a step in it yet", path);
    series_smooth(s->bins, x->smooth, loss->mean, s->bins / 60);
    for (int64_t b = 0; b < s->bins; b++) {
        x->seconds[b] = seconds_until(&x->run.timing, s->step[b]);
        x->flops[b] = x->run.has_config && tokens && tokens->width == 1
                          ? metrics_flops(&x->run.c, tokens->mean[b])
                          : NAN;
    }
    return 0;
}

static void read_differences(comparison *c) {
    for (int i = 1; i < c->runs; i++)
        difference_of(&c->run[i].to_first, &c->run[0].run.metrics.trace, &c->run[i].run.metrics.trace);
}

static void comparison_free(comparison *c) {
    for (int i = 0; i < c->runs; i++) {
        compared_run *x = &c->run[i];
        run_free(&x->run);
        difference_free(&x->to_first);
    }
}

/* ---- configs ---- */

static void sources_text(const config *c, char *text, size_t size) {
    size_t used = 0;
    text[0] = 0;
    for (int64_t i = 0; i < c->data.sources && used + 1 < size; i++) {
        const data_source *s = &c->data.source[i];
        int n = snprintf(text + used, size - used, "%s%s %g", i ? ", " : "", s->train, s->weight);
        used += n > 0 ? (size_t)n : 0;
    }
}

static int differ(const comparison *c, char value[COMPARE_RUNS][256]) {
    for (int i = 1; i < c->runs; i++)
        if (strcmp(value[0], value[i])) return 1;
    return 0;
}

/* Each stage of any run is a key; "-" where a run has none there. */
static int compare_stages(const comparison *c, compare_key *line, void *to) {
    json_t *said[COMPARE_RUNS], *stage;
    char value[COMPARE_RUNS][256];
    const char *key;
    int found = 0;
    for (int i = 0; i < c->runs; i++) said[i] = config_deciding(&c->run[i].run.c);
    for (int i = 0; i < c->runs; i++) json_object_foreach(said[i], key, stage) {
            int told = strncmp(key, "data.stages", strlen("data.stages")) != 0;
            for (int k = 0; k < i; k++) told |= json_object_get(said[k], key) != NULL;
            for (int k = 0; k < c->runs && !told; k++) {
                const char *text = json_string_value(json_object_get(said[k], key));
                snprintf(value[k], sizeof value[k], "%s", text ? text : "-");
            }
            if (told || !differ(c, value)) continue;
            line(to, key, value);
            found++;
        }
    for (int i = 0; i < c->runs; i++) json_decref(said[i]);
    return found;
}

int compare_configs(const comparison *c, compare_key *line, void *to) {
    char value[COMPARE_RUNS][256];
    int found = 0;
    for (int i = 0; i < c->runs; i++)
        if (!c->run[i].run.has_config) return -1;
    for (int k = 0; k < config_key_count; k++) {
        if (!strcmp(config_keys[k].name, "run.dir")) continue;
        for (int i = 0; i < c->runs; i++)
            config_value_text(&config_keys[k], &c->run[i].run.c, value[i], sizeof value[i]);
        if (!differ(c, value)) continue;
        line(to, config_keys[k].name, value);
        found++;
    }
    for (int i = 0; i < c->runs; i++) sources_text(&c->run[i].run.c, value[i], sizeof value[i]);
    if (differ(c, value)) {
        line(to, "data.sources", value);
        found++;
    }
    return found + compare_stages(c, line, to);
}

static void note_data(void *to, const char *key, char value[COMPARE_RUNS][256]) {
    (void)value;
    if (!strncmp(key, "data.", 5)) *(int *)to = 1;
}

/* ---- in words ---- */

static void print_key(void *to, const char *key, char value[COMPARE_RUNS][256]) {
    const comparison *c = to;
    printf("  %-28s", key);
    for (int i = 0; i < c->runs; i++) printf("%s%s", i ? "  |  " : " ", value[i]);
    putchar('\n');
}

static void print_figure(double x, const char *format) {
    char text[32];
    snprintf(text, sizeof text, format, x);
    printf(" %10s", isfinite(x) ? text : "-");
}

static void print_run(const compared_run *x) {
    const run_data *r = &x->run;
    char text[32];
    printf("%-24s %7" PRId64 " %9s", r->name, r->metrics.last,
           console_count(text, run_last(&r->metrics, "tokens")));
    print_figure(series_last(r->metrics.bins, x->smooth), "%.4f");
    print_figure(run_held_out(r), "%.4f");
    print_figure(run_median(&r->timing, "tokens_per_second"), "%.0f");
    print_figure(100 * run_median(&r->timing, "mfu"), "%.0f%%");
    print_figure(100 * run_median(&r->timing, "comm_exposed_seconds") /
                     run_median(&r->timing, "step_seconds"),
                 "%.1f%%");
    putchar('\n');
}

static void print_comparison(const comparison *c) {
    printf("%-24s %7s %9s %10s %10s %10s %10s %10s\n", "run", "step", "tokens", "loss", "held-out",
           "tokens/s", "mfu", "waiting");
    for (int i = 0; i < c->runs; i++) print_run(&c->run[i]);
    putchar('\n');
    for (int i = 1; i < c->runs; i++) {
        const difference *d = &c->run[i].to_first;
        if (!d->pairs) {
            printf("%s and %s have no step in common\n", c->run[i].run.name, c->run[0].run.name);
            continue;
        }
        printf("%s - %s: %+.4f", c->run[i].run.name, c->run[0].run.name, d->last.mean);
        if (isfinite(d->last.low)) printf(" (95%%: %+.4f to %+.4f)", d->last.low, d->last.high);
        printf(" over the last %" PRId64 " of %" PRId64 " common steps\n", d->window, d->pairs);
    }
    printf("\nconfig keys that differ:\n");
    int keys = compare_configs(c, print_key, (void *)c);
    if (keys <= 0) printf("  %s\n", keys ? "not known: a run has no config.yaml" : "none");
    if (c->different_data)
        printf(
            "\nThese runs read different text: a difference of their losses says little about the models.\n");
}

/* ---- the command ---- */

int compare_command(int argc, char **argv) {
    const char *out = "compare.html";
    const option known[] = {{"out", .text = &out}, {0}};
    options o = {.usage = "usage: caracal compare RUN_DIR RUN_DIR ... [--out=compare.html]\n",
                 .known = known,
                 .min_words = 2,
                 .max_words = COMPARE_RUNS};
    if (!options_read(&o, argc, argv)) return o.code;
    size_t stem = strlen(out);
    if (stem > 5 && !strcmp(out + stem - 5, ".html")) stem -= 5;
    char picture[4096];
    snprintf(picture, sizeof picture, "%.*s.svg", (int)stem, out);

    comparison *c = mem_alloc(sizeof *c, "a comparison");
    error e = {0};
    int code = 0;
    while (c->runs < o.words && !code) {
        code = read_run(&c->run[c->runs], o.word[c->runs], &e);
        c->runs++;
    }
    if (!code) {
        read_differences(c);
        compare_configs(c, note_data, &c->different_data);
        print_comparison(c);
        code = whole_file(out, compare_page, c, &e);
        if (!code) code = whole_file(picture, compare_picture, c, &e);
    }
    if (code) fprintf(stderr, "caracal: %s\n", e.text);
    else printf("\n%s, %s\n", out, picture);
    comparison_free(c);
    mem_free(c);
    return code;
}
