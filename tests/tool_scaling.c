/* What a token costs as a size grows (tests/scaling.sh).
 *
 *     scaling point RUN AXIS VALUE     a run's figures as one line of JSON: medians of its second half
 *     scaling draw FILE.jsonl OUT.svg  time and memory over the axis, and a table in Markdown on the output
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/memory.h"
#include "train/jsonl.h"
#include "train/metrics.h"
#include "train/report_parts.h"
#include "train/series.h"
#include "train/svg.h"
#include "train/whole_file.h"

enum { MOST = 64 };

/* ---- point ---- */

/* A timing.jsonl's median of a key over the second half. */
static double second_half(const char *path, const char *key, error *e) {
    jsonl log;
    double *x = NULL, middle = NAN;
    int64_t n = 0;
    if (jsonl_open(&log, path, e)) return NAN;
    if (log.rows < 4) error_set(e, EXIT_CORRUPT, "%s: fewer than 4 steps", path);
    for (int64_t i = 0; i < log.rows && !e->code; i++) {
        json_t *row = jsonl_next(&log);
        x = mem_grow(x, (size_t)(n + 1) * sizeof *x, "a run's figures");
        if (2 * i >= log.rows) x[n++] = json_number_value(json_object_get(row, key));
        json_decref(row);
    }
    if (n) middle = series_quantile(n, x, 0.5);
    mem_free(x);
    jsonl_close(&log);
    return middle;
}

static int print_point(const char *run, const char *axis, const char *value, error *e) {
    char path[1100];
    config c;
    snprintf(path, sizeof path, "%s/config.yaml", run);
    if (config_load(&c, path, 0, NULL, e)) return e->code;
    snprintf(path, sizeof path, "%s/timing.jsonl", run);
    const double speed = second_half(path, "tokens_per_second", e),
                 memory = e->code ? NAN : second_half(path, "peak_memory", e);
    if (!e->code)
        printf("{\"axis\": \"%s\", \"value\": %s, \"flops_per_token\": %.0f, \"seconds_per_token\": %.4g, "
               "\"peak_memory\": %.0f, \"micro_batch_tokens\": %" PRId64 ", \"parameters\": %.0f}\n",
               axis, value, metrics_flops_per_token(&c), 1 / speed, memory,
               c.train.micro_batch_size * c.train.seq_len, params_total(&c.model));
    config_free(&c);
    return e->code;
}

/* ---- draw ---- */

typedef struct points {
    int64_t n;
    char axis[32];
    double value[MOST], flops[MOST], parameters[MOST]; /* FLOPs of a token; parameters of the model */
    double seconds[MOST], like_flops[MOST];            /* of a token; what FLOPs alone would explain */
    double memory[MOST], state[MOST]; /* bytes at the peak; of weights, moments, two sums of gradients */
} points;

static double number(const json_t *row, const char *key) {
    return json_number_value(json_object_get(row, key));
}

static int read_points(points *p, const char *path, error *e) {
    FILE *f = fopen(path, "r");
    char line[1024];
    if (!f) return error_set(e, EXIT_IO, "%s cannot be opened", path);
    while (p->n < MOST && fgets(line, sizeof line, f)) {
        json_t *row = json_loads(line, 0, NULL);
        const int64_t i = p->n++;
        snprintf(p->axis, sizeof p->axis, "%s", json_string_value(json_object_get(row, "axis")));
        p->value[i] = number(row, "value");
        p->flops[i] = number(row, "flops_per_token");
        p->parameters[i] = number(row, "parameters");
        p->seconds[i] = number(row, "seconds_per_token");
        p->memory[i] = number(row, "peak_memory");
        p->like_flops[i] = p->seconds[0] * p->flops[i] / p->flops[0];
        p->state[i] = 20 * p->parameters[i];
        json_decref(row);
    }
    fclose(f);
    return p->n ? 0 : error_set(e, EXIT_CORRUPT, "%s has no points", path);
}

/* Two lines over the axis, `scale` to the unit that the title names. */
static void draw_panel(FILE *out, const points *p, int which, const char *title, double scale,
                       const double *measured, const char *name, const double *other,
                       const char *other_name) {
    double y[2][MOST];
    chart c = {.out = out,
               .width = 960,
               .height = 340,
               .left = 480 * which + 46,
               .right = 480 * (1 - which) + 120 + CHART_SAMPLE,
               .top = 52,
               .bottom = 46,
               .y0 = 0,
               .x0 = p->value[0],
               .x1 = p->value[p->n - 1],
               .x_name = p->axis,
               .x_scale = CHART_X_LOG};
    for (int64_t i = 0; i < p->n; i++) {
        y[0][i] = scale * measured[i];
        y[1][i] = scale * other[i];
    }
    for (int k = 0; k < 2; k++) chart_range(p->n, y[k], &c.y0, &c.y1);
    fprintf(out, "<text class=\"head\" x=\"%.1f\" y=\"28\">", c.left);
    html_text(out, title);
    fputs("</text>\n", out);
    chart_axes(&c);
    for (int k = 0; k < 2; k++) {
        const char *class = k ? "c1" : "c0";
        chart_line(&c, class, p->n, p->value, y[k]);
        chart_dots(&c, class, p->n, p->value, y[k]);
        chart_label_end(&c, class, y[k][p->n - 1], k ? other_name : name);
    }
    chart_labels(&c);
}

static void draw(FILE *out, const void *data) {
    const points *p = data;
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 960 340\" role=\"img\">"
            "<title>Time and memory over %s</title>\n<style>",
            p->axis);
    report_paper_style(out);
    fputs("</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n", out);
    draw_panel(out, p, 0, "Microseconds a token", 1e6, p->seconds, "measured", p->like_flops,
               "as FLOPs grow");
    draw_panel(out, p, 1, "Memory, MB", 1e-6, p->memory, "measured", p->state, "20 B a parameter");
    fputs("</svg>\n", out);
}

static int draw_file(const char *from, const char *to, error *e) {
    points p = {0};
    if (read_points(&p, from, e)) return e->code;
    printf("| %s | parameters | MFLOP a token | us a token | GFLOP/s | peak memory, MB |\n"
           "| --: | --: | --: | --: | --: | --: |\n",
           p.axis);
    for (int64_t i = 0; i < p.n; i++)
        printf("| %.0f | %.2f M | %.2f | %.1f | %.0f | %.0f |\n", p.value[i], 1e-6 * p.parameters[i],
               1e-6 * p.flops[i], 1e6 * p.seconds[i], 1e-9 * p.flops[i] / p.seconds[i], 1e-6 * p.memory[i]);
    return whole_file(to, draw, &p, e);
}

int main(int argc, char **argv) {
    error e = {0};
    if (argc == 5 && !strcmp(argv[1], "point")) print_point(argv[2], argv[3], argv[4], &e);
    else if (argc == 4 && !strcmp(argv[1], "draw")) draw_file(argv[2], argv[3], &e);
    else error_set(&e, EXIT_USAGE, "usage: scaling point RUN AXIS VALUE | scaling draw FILE.jsonl OUT.svg");
    if (e.code) fprintf(stderr, "scaling: %s\n", e.text);
    return e.code;
}
