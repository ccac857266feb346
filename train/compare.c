#include "train/compare.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "launch/files.h"
#include "launch/memory.h"
#include "launch/options.h"
#include "train/config_table.h"
#include "train/console.h"
#include "train/whole_file.h"

/* ---- configs ---- */

static char *sources_text(const config *c, int held_out) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) FAULT(EXIT_NO_MEMORY, "no memory for the comparison");
    for (int64_t i = 0; i < c->data.sources; i++) {
        const data_source *s = &c->data.source[i];
        fputs(i ? ", " : "", out);
        if (held_out) fputs(s->valid ? s->valid : "-", out);
        else fprintf(out, "%s %g", s->train, s->weight);
    }
    fclose(out);
    return text;
}

/* Calls line if the values differ, and frees them; returns whether they do. */
static int tell_key(const comparison *c, const char *key, char **value, compare_key *line, void *to) {
    int differ = 0;
    for (int i = 1; i < c->runs; i++) differ |= strcmp(value[0], value[i]) != 0;
    if (differ) line(to, key, value);
    for (int i = 0; i < c->runs; i++) mem_free(value[i]);
    return differ;
}

/* Each stage of any run is a key; "-" where a run has none there. */
static int compare_stages(const comparison *c, compare_key *line, void *to) {
    json_t *said[COMPARE_RUNS], *stage;
    char *value[COMPARE_RUNS];
    const char *key;
    int found = 0;
    for (int i = 0; i < c->runs; i++) said[i] = config_deciding(&c->run[i].run.c);
    for (int i = 0; i < c->runs; i++) json_object_foreach(said[i], key, stage) {
            int told = strncmp(key, "data.stages", strlen("data.stages")) != 0;
            for (int k = 0; k < i; k++) told |= json_object_get(said[k], key) != NULL;
            if (told) continue;
            for (int k = 0; k < c->runs; k++) {
                const char *text = json_string_value(json_object_get(said[k], key));
                value[k] = mem_string(text ? text : "-");
            }
            found += tell_key(c, key, value, line, to);
        }
    for (int i = 0; i < c->runs; i++) json_decref(said[i]);
    return found;
}

int compare_configs(const comparison *c, compare_key *line, void *to) {
    char *value[COMPARE_RUNS], text[CONFIG_VALUE_TEXT];
    int found = 0;
    for (int i = 0; i < c->runs; i++)
        if (!c->run[i].run.has_config) return -1;
    for (int k = 0; k < config_key_count; k++) {
        if (!strcmp(config_keys[k].name, "run.dir")) continue;
        for (int i = 0; i < c->runs; i++) {
            config_value_text(&config_keys[k], &c->run[i].run.c, text, sizeof text);
            value[i] = mem_string(text);
        }
        found += tell_key(c, config_keys[k].name, value, line, to);
    }
    for (int held_out = 0; held_out < 2; held_out++) {
        for (int i = 0; i < c->runs; i++) value[i] = sources_text(&c->run[i].run.c, held_out);
        found += tell_key(c, held_out ? COMPARE_HELD_OUT : "data.sources", value, line, to);
    }
    return found + compare_stages(c, line, to);
}

/* ---- in words ---- */

static void print_key(void *to, const char *key, char *const *value) {
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
    print_figure(series_last(r->eval.rows, r->eval.bits), "%.4f");
    print_figure(run_median(&r->timing, "tokens_per_second"), "%.0f");
    print_figure(100 * run_median(&r->timing, "mfu"), "%.0f%%");
    print_figure(100 * run_median(&r->timing, "comm_exposed_seconds") /
                     run_median(&r->timing, "step_seconds"),
                 "%.1f%%");
    putchar('\n');
}

static void print_comparison(const comparison *c) {
    printf("%-24s %7s %9s %10s %10s %10s %10s %10s %10s\n", "run", "step", "tokens", "loss", "held-out",
           "bits/byte", "tokens/s", "mfu", "waiting");
    for (int i = 0; i < c->runs; i++) print_run(&c->run[i]);
    putchar('\n');
    for (int i = 1; i < c->runs; i++) {
        const difference *d = &c->run[i].to_first;
        if (!d->pairs || d->equal) {
            printf("%s and %s %s\n", c->run[i].run.name, c->run[0].run.name,
                   d->pairs ? "have the same loss in every common step" : "have no step in common");
            continue;
        }
        printf("%s - %s: %+.4f", c->run[i].run.name, c->run[0].run.name, d->last.mean);
        if (isfinite(d->last.low)) printf(" (95%%: %+.4f to %+.4f)", d->last.low, d->last.high);
        printf(" over the last %" PRId64 " of %" PRId64 " common steps\n", d->window, d->pairs);
    }
    printf("\nconfig keys that differ:\n");
    int keys = compare_configs(c, print_key, (void *)c);
    if (keys <= 0) printf("  %s\n", keys ? "not known: a run has no config.yaml that can be read" : "none");
    for (int i = 0; i < c->notes; i++) printf("\n%s\n", c->note[i]);
}

/* ---- the command ---- */

/* What a long reading would be in vain for. */
static int check_place(const char *option, const char *path, error *e) {
    struct stat info;
    char *directory = parent_of(path);
    if (stat(directory, &info) || !S_ISDIR(info.st_mode))
        error_set(e, EXIT_USAGE, "--%s=%s: there is no directory %s", option, path, directory);
    mem_free(directory);
    if (e->code) return e->code;
    if (!stat(path, &info) && S_ISDIR(info.st_mode))
        return error_set(e, EXIT_USAGE, "--%s=%s: is a directory; the name of a file is wanted", option,
                         path);
    return 0;
}

static int write_comparison(const comparison *c, const char *page, const char *picture, error *e) {
    for (int i = 0; i < c->runs; i++) run_tell_gaps(&c->run[i].run);
    print_comparison(c);
    if (whole_file(page, compare_page, c, e) || whole_file(picture, compare_picture, c, e)) return e->code;
    printf("\n%s, %s\n", page, picture);
    return 0;
}

int compare_command(int argc, char **argv) {
    const char *page = "compare.html", *picture = NULL;
    const option known[] = {{"out", .text = &page}, {"picture", .text = &picture}, {0}};
    options o = {.usage = "usage: caracal compare RUN_DIR RUN_DIR ... [--out=compare.html] "
                          "[--picture=compare.svg]\n",
                 .known = known,
                 .min_words = 1,
                 .max_words = COMPARE_RUNS};
    if (!options_read(&o, argc, argv)) return o.code;
    if (o.words == 1) return options_refuse(&o, "%s: one run alone; with which is it compared?", o.word[0]);
    char beside[4096];
    size_t stem = strlen(page);
    if (stem > 5 && !strcmp(page + stem - 5, ".html")) stem -= 5;
    snprintf(beside, sizeof beside, "%.*s.svg", (int)stem, page);
    if (!picture) picture = beside;

    error e = {0};
    if (!check_place("out", page, &e) && !check_place("picture", picture, &e)) {
        comparison *c = mem_alloc(sizeof *c, "a comparison");
        if (!comparison_read(c, o.words, o.word, &e)) write_comparison(c, page, picture, &e);
        comparison_free(c);
        mem_free(c);
    }
    return error_print(&e);
}
