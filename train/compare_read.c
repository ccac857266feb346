/* What a comparison compares: the runs' data, whether it can be compared at all, and what their losses differ
 * by. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/files.h"
#include "launch/memory.h"
#include "train/compare.h"
#include "train/metrics.h"
#include "train/stages.h"

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
    if (run_expected(path, e) || run_read(&x->run, path, "lm_loss", e)) return e->code;
    const series *s = &x->run.metrics;
    const column *loss = series_find(s, "lm_loss"), *tokens = series_find(s, "tokens");
    if (!loss || loss->width != 1)
        return error_set(e, EXIT_USAGE, "%s: has no metrics.jsonl with a step in it yet", path);
    const config *c = x->run.has_config && tokens && tokens->width == 1 ? &x->run.c : NULL;
    const double before =
        c ? metrics_flops(c, stages_tokens(c, s->first - 1)) : NAN; /* of a smaller model, where it grew */
    for (int64_t b = 0; b < s->bins; b++) {
        x->seconds[b] = seconds_until(&x->run.timing, s->step[b]);
        x->flops[b] = c ? metrics_flops(c, tokens->mean[b]) - before : NAN;
    }
    return 0;
}

/* As many steps for each run as for the longest, so that equal losses look equal; of one that is much shorter
 * no more than half of it. */
static void smooth_alike(comparison *c) {
    int64_t steps = 0;
    for (int i = 0; i < c->runs; i++) {
        const series *s = &c->run[i].run.metrics;
        int64_t own = s->bins / 60 * s->per;
        if (own > steps) steps = own;
    }
    for (int i = 0; i < c->runs; i++) {
        compared_run *x = &c->run[i];
        const series *s = &x->run.metrics;
        x->half = steps / s->per < s->bins / 4 ? steps / s->per : s->bins / 4;
        series_smooth(s->bins, x->smooth, series_find(s, "lm_loss")->mean, x->half);
    }
}

/* ---- which is which ---- */

static int names_taken(const comparison *c, int *taken) {
    int any = 0;
    for (int i = 0; i < c->runs; i++) {
        taken[i] = 0;
        for (int k = 0; k < c->runs; k++)
            taken[i] |= k != i && !strcmp(c->run[i].run.name, c->run[k].run.name);
        any |= taken[i];
    }
    return any;
}

/* The last so many parts of a path without a slash at its end. */
static const char *tail(const char *path, int parts) {
    const char *p = path + strlen(path);
    while (p > path && (p[-1] != '/' || --parts)) p--;
    return p;
}

/* Runs of the same name are told apart by as much of their paths as that takes. */
static void tell_apart(comparison *c, char path[][PATH_MAX]) {
    int taken[COMPARE_RUNS];
    for (int parts = 2; names_taken(c, taken) && parts < PATH_MAX / 2; parts++)
        for (int i = 0; i < c->runs; i++) {
            if (!taken[i]) continue;
            mem_free(c->run[i].run.name);
            c->run[i].run.name = mem_string(tail(path[i], parts));
        }
}

static int refuse_twins(const comparison *c, char path[][PATH_MAX], error *e) {
    for (int i = 0; i < c->runs; i++) {
        if (!realpath(c->run[i].path, path[i]))
            return error_set(e, EXIT_IO, "%s: cannot be found any more", c->run[i].path);
        for (int k = 0; k < i; k++)
            if (!strcmp(path[i], path[k]))
                return error_set(e, EXIT_USAGE, "%s and %s are the same run: there is nothing to compare",
                                 c->run[k].path, c->run[i].path);
    }
    return 0;
}

/* ---- what can be compared ---- */

/* A file that cannot be read now is known by its name. */
static int same_tokenizer(const config *a, const config *b) {
    int64_t bytes;
    XXH128_hash_t of_a, of_b;
    error e;
    if (a->model.vocab_size != b->model.vocab_size) return 0;
    if (!strcmp(a->data.tokenizer, b->data.tokenizer)) return 1;
    return !digest_file(a->data.tokenizer, &bytes, &of_a, &e) &&
           !digest_file(b->data.tokenizer, &bytes, &of_b, &e) && XXH128_isEqual(of_a, of_b);
}

typedef struct texts {
    int train, held_out; /* whether they differ */
} texts;

static void note_text(void *to, const char *key, char *const *value) {
    texts *differ = to;
    (void)value;
    if (!strcmp(key, COMPARE_HELD_OUT)) differ->held_out = 1;
    else if (!strncmp(key, "data.", 5) && strcmp(key, "data.tokenizer")) differ->train = 1;
}

static void note(comparison *c, const char *text) {
    c->note[c->notes++] = text;
}

static void take_notes(comparison *c) {
    texts differ = {0};
    int tokenizers = 0, steps = 0;
    for (int i = 0; i < c->runs; i++)
        if (!c->run[i].run.has_config) {
            note(c,
                 "Whether these runs read the same text with the same tokenizer is not known: a run has no "
                 "config.yaml that can be read.");
            return;
        }
    compare_configs(c, note_text, &differ);
    const config *a = &c->run[0].run.c;
    for (int i = 1; i < c->runs; i++) {
        const config *b = &c->run[i].run.c;
        tokenizers |= !same_tokenizer(a, b);
        steps |= stage_tokens(a, 0) != stage_tokens(b, 0);
    }
    if (tokenizers)
        note(c, "These runs have different tokenizers: a loss per token of one cannot be compared with that "
                "of another. Bits per byte of held-out text can.");
    if (differ.train)
        note(c, "These runs read different text: a difference of their losses says little about the models.");
    if (differ.held_out) note(c, "Their held-out text differs: its losses cannot be compared.");
    if (steps)
        note(c, "A step of these runs has different numbers of tokens: compare them over tokens, not over "
                "steps.");
}

/* ---- all of it ---- */

int comparison_read(comparison *c, int runs, char *const *path, error *e) {
    while (c->runs < runs) {
        int i = c->runs++; /* comparison_free has it also when it could not be read */
        if (read_run(&c->run[i], path[i], e)) return e->code;
    }
    smooth_alike(c);
    char real[COMPARE_RUNS][PATH_MAX];
    if (refuse_twins(c, real, e)) return e->code;
    tell_apart(c, real);
    for (int i = 1; i < c->runs; i++)
        difference_of(&c->run[i].to_first, &c->run[0].run.metrics.trace, &c->run[i].run.metrics.trace);
    take_notes(c);
    return 0;
}

void comparison_free(comparison *c) {
    for (int i = 0; i < c->runs; i++) {
        run_free(&c->run[i].run);
        difference_free(&c->run[i].to_first);
    }
}
