#include "train/report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/memory.h"
#include "launch/options.h"
#include "train/jsonl.h"
#include "train/report_parts.h"
#include "train/svg.h"

enum { PATH = 4096 };

double run_last(const series *s, const char *key) {
    const column *c = series_find(s, key);
    return c ? c->last : NAN;
}

double run_median(const series *s, const char *key) {
    const column *c = series_find(s, key);
    if (!c || c->width != 1) return NAN;
    double *x = mem_alloc((size_t)s->bins * sizeof *x, "a median");
    memcpy(x, c->mean, (size_t)s->bins * sizeof *x);
    double middle = series_quantile(s->bins, x, 0.5);
    mem_free(x);
    return middle;
}

double eval_last(const evaluations *v, int source) {
    return series_last(v->rows, v->loss + source * v->rows);
}

/* ---- reading ---- */

static int source_index(evaluations *v, const char *name) {
    for (int i = 0; i < v->sources; i++)
        if (!strcmp(v->source[i], name)) return i;
    if (v->sources == EVAL_SOURCES) return -1;
    v->source[v->sources] = mem_string(name);
    return v->sources++;
}

static int eval_read(evaluations *v, const char *path, error *e) {
    *v = (evaluations){.total = -1};
    jsonl log;
    if (jsonl_open(&log, path, e)) return e->code;
    v->rows = log.rows;
    v->step = mem_alloc((size_t)log.rows * sizeof *v->step, "validations");
    v->loss = mem_alloc((size_t)(EVAL_SOURCES * log.rows) * sizeof *v->loss, "validations");
    for (int64_t i = 0; i < EVAL_SOURCES * log.rows; i++) v->loss[i] = NAN;
    json_t *row;
    while ((row = jsonl_next(&log))) {
        int64_t i = log.next - 1;
        const char *name;
        json_t *loss;
        v->step[i] = (double)log.step[i];
        json_object_foreach(json_object_get(row, "loss"), name, loss) {
            int source = source_index(v, name);
            if (source >= 0 && json_is_number(loss)) v->loss[source * v->rows + i] = json_number_value(loss);
        }
        json_decref(row);
    }
    jsonl_close(&log);
    for (int i = 0; i < v->sources; i++)
        if (!strcmp(v->source[i], "total")) v->total = i;
    return 0;
}

/* The last part of a path, without what slashes may follow it. */
static char *last_part(const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    char *name = mem_string(path + begin);
    name[end - begin] = 0;
    return name;
}

int run_read(run_data *r, const char *run_dir, error *e) {
    static const char *const metrics[] = {"loss",
                                          "lm_loss",
                                          "tokens",
                                          "grad_norm",
                                          "grad_rms_min",
                                          "lr",
                                          "ffn_experts_mean",
                                          "expert_load_max_over_mean",
                                          "router_similarity",
                                          "router_grad_ratio",
                                          "bias_min",
                                          "bias_max"};
    static const char *const timing[] = {"tokens_per_second", "step_seconds", "mfu", "comm_exposed_seconds"};
    char path[PATH];
    error unreadable = {0};
    struct stat info;
    *r = (run_data){0};
    if (stat(run_dir, &info) || !S_ISDIR(info.st_mode))
        return error_set(e, EXIT_USAGE, "%s: is not a run directory", run_dir);
    r->name = last_part(run_dir);
    snprintf(path, sizeof path, "%s/config.yaml", run_dir);
    r->has_config = config_load(&r->c, path, 0, NULL, &unreadable) == 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", run_dir);
    if (series_read(&r->metrics, path, sizeof metrics / sizeof *metrics, metrics, e)) return e->code;
    snprintf(path, sizeof path, "%s/timing.jsonl", run_dir);
    if (series_read(&r->timing, path, sizeof timing / sizeof *timing, timing, e)) return e->code;
    snprintf(path, sizeof path, "%s/eval.jsonl", run_dir);
    if (eval_read(&r->eval, path, e)) return e->code;
    const column *loss = series_find(&r->metrics, "loss");
    if (r->metrics.rows) {
        r->smooth = mem_alloc((size_t)r->metrics.bins * sizeof *r->smooth, "the smoothed loss");
        for (int64_t b = 0; b < r->metrics.bins; b++) r->smooth[b] = NAN;
        if (loss) series_smooth(r->metrics.bins, r->smooth, loss->mean, r->metrics.bins / 60);
    }
    return 0;
}

void run_free(run_data *r) {
    mem_free(r->name);
    if (r->has_config) config_free(&r->c);
    series_free(&r->metrics);
    series_free(&r->timing);
    for (int i = 0; i < r->eval.sources; i++) mem_free(r->eval.source[i]);
    mem_free(r->eval.step);
    mem_free(r->eval.loss);
    mem_free(r->smooth);
}

/* ---- writing ---- */

static void loss_picture(FILE *out, const void *run) {
    const run_data *r = run;
    char *head = NULL;
    size_t size = 0;
    FILE *piece = open_memstream(&head, &size);
    if (!piece) FAULT(EXIT_NO_MEMORY, "no memory for the report");
    fprintf(piece, "<style>\n%s</style>\n<rect class=\"paper\" width=\"100%%\" height=\"100%%\"/>\n",
            report_chart_style);
    fputs("<text class=\"head\" x=\"16\" y=\"28\">", piece);
    html_text(piece, r->name);
    fputs(": loss over the steps</text>\n", piece);
    fclose(piece);
    charts_loss(out, r, 800, 420, "alone", head);
    mem_free(head);
}

int whole_file(const char *path, void (*content)(FILE *, const void *), const void *data, error *e) {
    char temporary[PATH + 72];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    FILE *out = fopen(temporary, "wb");
    if (!out) return error_set(e, EXIT_IO, "%s: cannot be written: %s", temporary, strerror(errno));
    content(out, data);
    int bad = ferror(out);
    if (fclose(out) || bad || rename(temporary, path)) {
        error_set(e, EXIT_IO, "%s: cannot be written: %s", path, strerror(errno));
        unlink(temporary);
        return e->code;
    }
    return 0;
}

int report_write(const char *run_dir, const report_marks *marks, error *e) {
    char path[PATH + 64];
    run_data r;
    int code = run_read(&r, run_dir, e);
    if (marks) r.marks = *marks;
    snprintf(path, sizeof path, "%s/report.html", run_dir);
    if (!code) code = whole_file(path, page_write, &r, e);
    snprintf(path, sizeof path, "%s/loss.svg", run_dir);
    if (!code && series_find(&r.metrics, "loss")) code = whole_file(path, loss_picture, &r, e);
    run_free(&r);
    return code;
}

/* ---- the command ---- */

static int parse_mark(report_marks *marks, const char *text, error *e) {
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    double loss = colon ? strtod(colon + 1, &end) : NAN;
    if (!colon || colon == text || end == colon + 1 || *end || !isfinite(loss))
        return error_set(e, EXIT_USAGE, "--mark=%s: must be --mark=LABEL:LOSS", text);
    snprintf(marks->mark[marks->n].label, sizeof marks->mark[0].label, "%.*s", (int)(colon - text), text);
    marks->mark[marks->n++].loss = loss;
    return 0;
}

int report_command(int argc, char **argv) {
    const char *mark[REPORT_MARKS];
    int n = 0;
    const option known[] = {{"mark", .text = mark, .most = REPORT_MARKS, .given = &n}, {0}};
    options o = {.usage =
                     "usage: caracal report RUN_DIR [--mark=LABEL:LOSS ...]\n"
                     "Writes RUN_DIR/report.html and RUN_DIR/loss.svg; a mark is a line in the loss curve.\n",
                 .known = known,
                 .min_words = 1,
                 .max_words = 1};
    if (!options_read(&o, argc, argv)) return o.code;
    report_marks marks = {0};
    error e = {0};
    for (int i = 0; i < n && !e.code; i++) parse_mark(&marks, mark[i], &e);
    if (!e.code && !report_write(o.word[0], &marks, &e)) printf("%s/report.html\n", o.word[0]);
    if (e.code) fprintf(stderr, "caracal: %s\n", e.text);
    return e.code;
}
