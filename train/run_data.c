#include "train/run_data.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "launch/files.h"
#include "launch/memory.h"
#include "train/json_number.h"

double run_last(const series *s, const char *key) {
    const column *c = series_find(s, key);
    return c ? c->last : NAN;
}

double run_median(const series *s, const char *key) {
    const column *c = series_find(s, key);
    if (!c || c->width != 1) return NAN;
    double x[SERIES_BINS];
    memcpy(x, c->mean, (size_t)s->bins * sizeof *x);
    return series_quantile(s->bins, x, 0.5);
}

double run_held_out(const run_data *r) {
    return r->eval.total >= 0 ? series_last(r->eval.rows, r->eval.loss[r->eval.total]) : NAN;
}

/* ---- markers ---- */

void run_mark(run_data *r, int64_t step, const char *class, const char *label) {
    if (r->markers == RUN_MARKERS) return;
    run_marker *m = &r->marker[r->markers++];
    *m = (run_marker){.step = (double)step, .class = class};
    snprintf(m->label, sizeof m->label, "%s", label);
}

/* Where the config changes what a step is. */
static void mark_plan(run_data *r) {
    char label[32];
    if (r->c.loss.mtp_coef > 0 && r->c.loss.mtp_start > 0)
        run_mark(r, r->c.loss.mtp_start + 1, "rule", "MTP joins");
    for (int64_t i = 0; i < r->c.data.stages; i++) {
        snprintf(label, sizeof label, "stage %d", (int)i + 2);
        run_mark(r, r->c.data.stage[i].after + 1, "rule", label);
    }
}

/* ---- validations ---- */

static int source_index(evaluations *v, const char *name) {
    for (int i = 0; i < v->sources; i++)
        if (!strcmp(v->source[i], name)) return i;
    if (v->sources == EVAL_SOURCES) return -1;
    if (!strcmp(name, "total")) v->total = v->sources;
    v->source[v->sources] = mem_string(name);
    double *loss = v->loss[v->sources] = mem_alloc(EVAL_ROWS * sizeof *loss, "validations");
    for (int64_t i = 0; i < EVAL_ROWS; i++) loss[i] = NAN;
    return v->sources++;
}

/* Every second one goes. */
static void thin_out(evaluations *v) {
    v->rows /= 2;
    for (int64_t i = 0; i < v->rows; i++) {
        v->step[i] = v->step[2 * i + 1];
        v->bits[i] = v->bits[2 * i + 1];
        v->accepted[i] = v->accepted[2 * i + 1];
        for (int k = 0; k < v->sources; k++) v->loss[k][i] = v->loss[k][2 * i + 1];
    }
    for (int k = 0; k < v->sources; k++)
        for (int64_t i = v->rows; i < EVAL_ROWS; i++) v->loss[k][i] = NAN;
}

static void eval_row(evaluations *v, const json_t *row) {
    const char *name;
    json_t *loss;
    double step = (double)json_integer_value(json_object_get(row, "step"));
    if (v->rows && step <= v->step[v->rows - 1]) return;
    if (v->rows == EVAL_ROWS) thin_out(v);
    int64_t i = v->rows++;
    v->step[i] = step;
    v->bits[i] = json_finite_of(json_object_get(row, "bits_per_byte"), "total");
    v->accepted[i] = json_finite_of(row, "mtp_acceptance");
    json_object_foreach(json_object_get(row, "loss"), name, loss) {
        int source = source_index(v, name);
        if (source >= 0) v->loss[source][i] = json_finite_value(loss);
    }
}

/* ---- reading ---- */

/* What the directory is called, whatever way leads there: "." is no name. */
static char *name_of(const char *directory) {
    char path[PATH_MAX];
    const char *slash = realpath(directory, path) ? strrchr(path, '/') : NULL;
    return mem_string(slash && slash[1] ? slash + 1 : directory);
}

static int open_log(jsonl *log, const run_data *r, const char *name, error *e) {
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", r->directory, name);
    return jsonl_open(log, path, e);
}

static int open_logs(run_data *r, const char *whole, error *e) {
    static const char *const metrics[] = {"lm_loss",
                                          "tokens",
                                          "grad_norm",
                                          "grad_rms_min",
                                          "lr",
                                          "hidden_max",
                                          "layer_output_max",
                                          "ffn_experts_mean",
                                          "ffn_experts_std",
                                          "expert_load_max_over_mean",
                                          "router_similarity",
                                          "router_grad_ratio",
                                          "bias_min",
                                          "bias_max",
                                          "z_loss",
                                          "lb_alpha"};
    static const char *const timing[] = {"tokens_per_second", "step_seconds", "mfu", "comm_exposed_seconds"};
    r->eval.total = -1;
    series_open(&r->metrics, sizeof metrics / sizeof *metrics, metrics, whole);
    series_open(&r->timing, sizeof timing / sizeof *timing, timing, NULL);
    return open_log(&r->metrics_log, r, "metrics.jsonl", e) ||
                   open_log(&r->timing_log, r, "timing.jsonl", e) ||
                   open_log(&r->eval_log, r, "eval.jsonl", e)
               ? e->code
               : 0;
}

static void forget_logs(run_data *r) {
    jsonl_close(&r->metrics_log);
    jsonl_close(&r->timing_log);
    jsonl_close(&r->eval_log);
    series_free(&r->metrics);
    series_free(&r->timing);
    for (int i = 0; i < r->eval.sources; i++) {
        mem_free(r->eval.source[i]);
        mem_free(r->eval.loss[i]);
    }
    r->eval = (evaluations){.total = -1};
    mem_free(r->spikes);
    r->spikes = NULL;
    r->spiking = 0;
    r->markers = r->planned;
}

void run_update(run_data *r) {
    json_t *row;
    int cut = jsonl_more(&r->metrics_log) | jsonl_more(&r->timing_log) | jsonl_more(&r->eval_log);
    if (cut) {
        error e = {0};
        const char *whole = r->metrics.whole;
        forget_logs(r);
        open_logs(r, whole, &e); /* what cannot be read has no rows */
    }
    for (; (row = jsonl_next(&r->metrics_log)); json_decref(row)) {
        series_row(&r->metrics, row);
        run_note_spikes(r, row);
    }
    for (; (row = jsonl_next(&r->timing_log)); json_decref(row)) series_row(&r->timing, row);
    for (; (row = jsonl_next(&r->eval_log)); json_decref(row)) eval_row(&r->eval, row);
    series_settle(&r->metrics);
    series_settle(&r->timing);
    const column *loss = series_find(&r->metrics, "lm_loss");
    r->half = r->metrics.bins / 60;
    for (int64_t b = 0; b < r->metrics.bins; b++) r->smooth[b] = NAN;
    if (loss) series_smooth(r->metrics.bins, r->smooth, loss->mean, r->half);
}

int run_expected(const char *run_dir, error *e) {
    struct stat info;
    if (stat(run_dir, &info) || !S_ISDIR(info.st_mode))
        return error_set(e, EXIT_USAGE, "%s: is not a run directory", run_dir);
    if (path_has(run_dir, "config.yaml") || path_has(run_dir, "metrics.jsonl")) return 0;
    return error_set(e, EXIT_USAGE,
                     "%s: is not a run directory: it has neither config.yaml nor metrics.jsonl", run_dir);
}

static void read_config(run_data *r) {
    char *path = text_of("%s/config.yaml", r->directory);
    error e = {0};
    size_t n = strlen(r->directory) + 1; /* of the path in the message, which need not be told */
    r->has_config = config_load(&r->c, path, 0, NULL, &e) == 0;
    if (e.code && path_exists(path))
        r->unreadable = mem_string(!strncmp(e.text, path, n) ? e.text + n : e.text);
    mem_free(path);
}

int run_read(run_data *r, const char *run_dir, const char *whole, error *e) {
    struct stat info;
    *r = (run_data){0};
    if (stat(run_dir, &info) || !S_ISDIR(info.st_mode))
        return error_set(e, EXIT_USAGE, "%s: is not a run directory", run_dir);
    r->directory = mem_string(run_dir);
    r->name = name_of(run_dir);
    read_config(r);
    if (r->has_config) mark_plan(r);
    r->planned = r->markers;
    if (open_logs(r, whole, e)) return e->code;
    run_update(r);
    status_read(&r->status, run_dir);
    return 0;
}

void run_free(run_data *r) {
    mem_free(r->directory);
    mem_free(r->name);
    mem_free(r->unreadable);
    if (r->has_config) config_free(&r->c);
    forget_logs(r);
}
