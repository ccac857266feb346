#include "train/sweep_results.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/files.h"
#include "launch/memory.h"
#include "train/json_number.h"
#include "train/jsonl.h"

char *sweep_trial_dir(const char *dir, int64_t trial) {
    return text_of("%s/trial-%04" PRId64, dir, trial + 1);
}

/* ---- a trial ---- */

/* The mean lm_loss of the last tenth of the steps, NaN unless all of it is finite; sets the last step. */
static int training_loss(const char *run_dir, double *loss, int64_t *step, error *e) {
    char *path = text_of("%s/metrics.jsonl", run_dir);
    jsonl log;
    json_t *row;
    double sum = 0, rows = 0; /* a damaged line is no row */
    if (!jsonl_open(&log, path, e)) {
        int64_t tenth = log.rows < 10 ? 1 : log.rows / 10;
        *step = log.rows ? log.step[log.rows - 1] : 0;
        log.next = log.rows > tenth ? log.rows - tenth : 0;
        for (; (row = jsonl_next(&log)); rows++) {
            sum += json_finite_of(row, "lm_loss");
            json_decref(row);
        }
        *loss = rows ? sum / rows : NAN;
        jsonl_close(&log);
    }
    mem_free(path);
    return e->code;
}

/* 1: text is held out, and was evaluated at this step. */
static int held_out_loss(const char *run_dir, int64_t step, double *loss, error *e) {
    char *path = text_of("%s/eval.jsonl", run_dir);
    jsonl log;
    int there = 0;
    *loss = NAN;
    if (!jsonl_open(&log, path, e)) {
        there = log.rows && log.step[log.rows - 1] == step;
        if (there) {
            log.next = log.rows - 1;
            json_t *row = jsonl_next(&log);
            *loss = json_finite_of(json_object_get(row, "loss"), "total");
            json_decref(row);
        }
        jsonl_close(&log);
    }
    mem_free(path);
    return there;
}

int sweep_result_save(const sweep_space *s, int64_t trial, const char *run_dir, int diverged, double *loss,
                      error *e) {
    double train = NAN, held;
    int64_t step = 0;
    e->code = 0;
    if (training_loss(run_dir, &train, &step, e)) return e->code;
    int has_held = held_out_loss(run_dir, step, &held, e);
    if (e->code) return e->code;
    diverged = diverged || !isfinite(train) || (has_held && !isfinite(held));
    *loss = diverged ? NAN : has_held ? held : train;

    json_t *j = json_object(), *values = json_object();
    for (int a = 0; a < s->axes; a++) {
        char text[SWEEP_TEXT];
        const config_key *key = s->axis[a].key;
        sweep_value(s, trial, a, text);
        json_object_set_new(values, key->name,
                            key->type == KEY_INT ? json_integer(strtoll(text, NULL, 10))
                                                 : json_real(strtod(text, NULL)));
    }
    json_object_set_new(j, "trial", json_integer(trial + 1));
    json_object_set_new(j, "values", values);
    json_object_set_new(j, "status", json_string(diverged ? "diverged" : "done"));
    json_object_set_new(j, "step", json_integer(step));
    if (!diverged) json_object_set_new(j, "train_loss", json_real(train));
    if (!diverged && has_held) json_object_set_new(j, "held_out_loss", json_real(held));

    char *text = json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(9)), *path, *line;
    if (!text) FAULT(EXIT_NO_MEMORY, "no memory for a result");
    line = text_of("%s\n", text);
    path = text_of("%s/result.json", run_dir);
    write_file(path, line, strlen(line), e);
    mem_free(path);
    mem_free(line);
    mem_free(text);
    json_decref(j);
    return e->code;
}

/* ---- all of them ---- */

int sweep_results_gather(const char *dir, int64_t trials, error *e) {
    char *all = NULL, *path = text_of("%s/results.jsonl", dir);
    size_t size = 0;
    int code = 0;
    for (int64_t t = 0; t < trials && !code; t++) {
        char *run = sweep_trial_dir(dir, t), *from = text_of("%s/result.json", run), *text;
        size_t n;
        code = read_file(from, &text, &n, e);
        if (!code) {
            all = mem_grow(all, size + n, "results");
            memcpy(all + size, text, n);
            size += n;
            mem_free(text);
        }
        mem_free(from);
        mem_free(run);
    }
    if (!code) code = write_file(path, all, size, e);
    mem_free(all);
    mem_free(path);
    return code;
}

/* One line; 0 when it is no result with the first one's keys. */
static int parse_result(sweep_results *r, const char *line) {
    json_t *j = json_loads(line, JSON_REJECT_DUPLICATES, NULL), *values = json_object_get(j, "values"), *x;
    sweep_result *t = &r->result[r->n];
    const char *key;
    int axes = 0;
    *t = (sweep_result){.trial = json_integer_value(json_object_get(j, "trial")),
                        .step = json_integer_value(json_object_get(j, "step")),
                        .train = json_finite_of(j, "train_loss"),
                        .held = json_finite_of(j, "held_out_loss")};
    t->loss = isfinite(t->held) ? t->held : t->train;
    json_object_foreach(values, key, x) {
        if (axes == SWEEP_AXES) break;
        if (!r->n) snprintf(r->key[axes], sizeof r->key[axes], "%s", key);
        if (strcmp(r->key[axes], key) || !json_is_number(x)) break;
        t->value[axes++] = json_number_value(x);
    }
    int good =
        t->trial > 0 && axes > 0 && axes == (int)json_object_size(values) && (!r->n || axes == r->axes);
    r->axes = axes;
    json_decref(j);
    return good;
}

int sweep_results_read(sweep_results *r, const char *dir, error *e) {
    char *path = text_of("%s/results.jsonl", dir), *text = NULL;
    size_t bytes = 0, n = strlen(dir);
    *r = (sweep_results){0};
    while (n > 1 && dir[n - 1] == '/') n--;
    r->name = text_of("%.*s", (int)n, dir);
    const char *slash = strrchr(r->name, '/');
    if (slash && slash[1]) memmove(r->name, slash + 1, strlen(slash));
    e->code = 0;
    if (!path_exists(path))
        error_set(e, EXIT_USAGE, "%s: has no results.jsonl: is it the directory of a finished sweep?", dir);
    else read_file(path, &text, &bytes, e);
    for (char *line = text; !e->code && line && *line;) {
        char *end = strchr(line, '\n');
        if (end) *end = 0;
        r->result = mem_grow(r->result, (size_t)(r->n + 1) * sizeof *r->result, "results");
        if (!end || !parse_result(r, line))
            error_set(e, EXIT_CORRUPT,
                      "%s:%" PRId64 ": is no trial's result; without it and that trial's result.json the "
                      "same sweep again writes it anew",
                      path, r->n + 1);
        r->n++;
        line = end ? end + 1 : NULL;
    }
    if (!e->code && !r->n) error_set(e, EXIT_CORRUPT, "%s: is empty", path);
    mem_free(text);
    mem_free(path);
    if (e->code) sweep_results_free(r);
    return e->code;
}

void sweep_results_free(sweep_results *r) {
    mem_free(r->name);
    mem_free(r->result);
    *r = (sweep_results){0};
}

/* ---- in words ---- */

/* By loss, diverged ones last, equal ones in order of the trials. */
static int by_loss(const void *a, const void *b) {
    const sweep_result *x = a, *y = b;
    double p = isfinite(x->loss) ? x->loss : INFINITY, q = isfinite(y->loss) ? y->loss : INFINITY;
    return p != q ? (p > q) - (p < q) : (x->trial > y->trial) - (x->trial < y->trial);
}

const sweep_result *sweep_best(const sweep_results *r) {
    const sweep_result *best = &r->result[0];
    for (int64_t i = 1; i < r->n; i++)
        if (by_loss(&r->result[i], best) < 0) best = &r->result[i];
    return isfinite(best->loss) ? best : NULL;
}

/* A best value at the edge of what was tried: a better one may lie beyond. */
static void print_edges(const sweep_results *r, const sweep_result *best) {
    for (int a = 0; a < r->axes; a++) {
        double x = best->value[a], low = x, high = x;
        for (int64_t i = 0; i < r->n; i++) {
            low = fmin(low, r->result[i].value[a]);
            high = fmax(high, r->result[i].value[a]);
        }
        if (low < high && (x == low || x == high))
            printf("%s: the best is the %s tried; a better one may lie beyond\n", r->key[a],
                   x == low ? "least" : "largest");
    }
}

void sweep_results_print(const sweep_results *r) {
    sweep_result *sorted = mem_alloc((size_t)r->n * sizeof *sorted, "results");
    const sweep_result *best = sweep_best(r);
    memcpy(sorted, r->result, (size_t)r->n * sizeof *sorted);
    qsort(sorted, (size_t)r->n, sizeof *sorted, by_loss);
    printf("%-5s", "trial");
    for (int a = 0; a < r->axes; a++) printf("  %12s", r->key[a]);
    printf("  %10s  %10s\n", "held-out", "training");
    for (int64_t i = 0; i < r->n; i++) {
        const sweep_result *t = &sorted[i];
        printf("%5" PRId64, t->trial);
        for (int a = 0; a < r->axes; a++)
            printf("  %*.*g", (int)fmax(12, (double)strlen(r->key[a])), 10, t->value[a]);
        if (!isfinite(t->loss)) {
            printf("  diverged at step %" PRId64 "\n", t->step);
            continue;
        }
        if (isfinite(t->held)) printf("  %10.4f", t->held);
        else printf("  %10s", "-");
        printf("  %10.4f\n", t->train);
    }
    if (best) print_edges(r, best);
    mem_free(sorted);
}
