/* The page of a comparison: one colour a run, the first run being what the others are measured against. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "launch/memory.h"
#include "train/compare.h"
#include "train/svg.h"

enum { NAME_SHOWN = 16 }; /* letters of a run's name in a large chart; small ones have a piece of its line */
enum { VALUE_ROOM = 68 + CHART_SAMPLE };

static const char *color(int run, const char *kind, char text[8]) {
    snprintf(text, 8, "%s%d", kind, run % COMPARE_RUNS);
    return text;
}

/* Room for the longest of the labels at the curves' ends, a name and a number. */
static double label_room(const comparison *c) {
    size_t longest = 0;
    for (int i = 0; i < c->runs; i++) {
        size_t n = strnlen(c->run[i].run.name, NAME_SHOWN);
        longest = n > longest ? n : longest;
    }
    return 12 + CHART_SAMPLE + 6.8 * (double)(longest + 8);
}

/* ---- curves: every run's line in one chart ---- */

enum axis { STEPS, TOKENS, SECONDS, FLOPS };

/* Where the run's bins lie on an axis; NULL: unknown. */
static const double *axis_of(const compared_run *x, enum axis axis) {
    const column *tokens = series_find(&x->run.metrics, "tokens");
    switch (axis) {
    case STEPS:
        return x->run.metrics.step;
    case TOKENS:
        return tokens && tokens->width == 1 ? tokens->mean : NULL;
    case SECONDS:
        return x->seconds;
    default:
        return x->flops;
    }
}

/* A column's value in each bin, the mean over layers where it has many; NULL when the log has none.  Owned by
 * the caller. */
static double *values_of(const series *s, const char *key, int64_t half) {
    const column *v = series_find(s, key);
    if (!v) return NULL;
    double *mean = mem_alloc((size_t)s->bins * sizeof *mean, "a chart"),
           *y = mem_alloc((size_t)s->bins * sizeof *y, "a chart");
    for (int64_t b = 0; b < s->bins; b++) {
        double sum = 0;
        for (int64_t l = 0; l < v->width; l++) sum += v->mean[b * v->width + l];
        mean[b] = sum / (double)v->width;
    }
    series_smooth(s->bins, y, mean, half);
    mem_free(mean);
    return y;
}

typedef struct curve {
    int64_t n;
    const double *x, *y;
    double last;
} curve;

/* Draws the curves [runs], those with x and y, each with its last value at its end. */
static void draw_curves(chart *c, const comparison *of, const curve *curves, const char *class,
                        const char *name, int names, const char *format) {
    char kind[8];
    c->x0 = c->y0 = INFINITY;
    c->x1 = c->y1 = -INFINITY;
    for (int i = 0; i < of->runs; i++) {
        if (!curves[i].x || !curves[i].y) continue;
        chart_range(curves[i].n, curves[i].x, &c->x0, &c->x1);
        chart_range(curves[i].n, curves[i].y, &c->y0, &c->y1);
    }
    if (!isfinite(c->x0) || !isfinite(c->y0)) return;
    c->log_y = chart_wants_log(c);
    chart_begin(c, class, name);
    for (int i = 0; i < of->runs; i++) {
        char text[64], value[32];
        if (!curves[i].x || !curves[i].y) continue;
        chart_line(c, color(i, "c", kind), curves[i].n, curves[i].x, curves[i].y);
        snprintf(value, sizeof value, format, curves[i].last);
        snprintf(text, sizeof text, "%.*s %s", NAME_SHOWN, of->run[i].run.name, value);
        chart_label_end(c, kind, curves[i].last, names ? text : value);
    }
    chart_end(c);
}

static void loss_chart(FILE *out, const comparison *c, enum axis axis, double width, double height,
                       const char *class) {
    static const char *const name[] = {"step", "tokens", "seconds", "FLOPs"};
    curve curves[COMPARE_RUNS];
    int names = strcmp(class, "small") != 0;
    chart picture = {.out = out,
                     .width = width,
                     .height = height,
                     .left = 54,
                     .right = names ? label_room(c) : VALUE_ROOM,
                     .bottom = 26,
                     .top = 12,
                     .x_name = name[axis],
                     .y_name = LOSS_UNIT};
    for (int i = 0; i < c->runs; i++) {
        const compared_run *x = &c->run[i];
        curves[i] = (curve){x->run.metrics.bins, axis_of(x, axis), x->smooth, NAN};
        curves[i].last = curves[i].y ? series_last(curves[i].n, curves[i].y) : NAN;
    }
    draw_curves(&picture, c, curves, class, "Loss of each run", names, "%.3f");
}

static void figure(FILE *out, const char *title, const char *caption) {
    fprintf(out, "<figure><figcaption><h3>%s</h3><p>%s</p></figcaption>\n", title, caption);
}

static void small_losses(FILE *out, const comparison *c) {
    static const char *const title[] = {"", "Over tokens", "Over time", "Over FLOPs"};
    static const char *const caption[] = {
        "", "What the same text teaches.", "What the same patience buys, on the machine that each run had.",
        "What the same arithmetic buys: model FLOPs, at the expected number of experts."};
    for (int axis = TOKENS; axis <= FLOPS; axis++) {
        figure(out, title[axis], caption[axis]);
        loss_chart(out, c, (enum axis)axis, 420, 260, "small");
        fputs("</figure>\n", out);
    }
}

static void curves_chart(FILE *out, const comparison *c, int timing, const char *key, const char *title,
                         const char *caption, const char *format) {
    curve curves[COMPARE_RUNS];
    double *y[COMPARE_RUNS];
    int any = 0;
    for (int i = 0; i < c->runs; i++) {
        const series *s = timing ? &c->run[i].run.timing : &c->run[i].run.metrics;
        y[i] = values_of(s, key, c->run[i].half);
        curves[i] = (curve){s->bins, s->step, y[i], NAN};
        curves[i].last = curves[i].y ? series_last(curves[i].n, curves[i].y) : NAN;
        any |= isfinite(curves[i].last);
    }
    if (any) {
        chart picture = {.out = out,
                         .width = 420,
                         .height = 240,
                         .left = 44,
                         .right = VALUE_ROOM,
                         .bottom = 26,
                         .top = 12};
        figure(out, title, caption);
        draw_curves(&picture, c, curves, "small", title, 0, format);
        fputs("</figure>\n", out);
    }
    for (int i = 0; i < c->runs; i++) mem_free(y[i]);
}

/* ---- the difference ---- */

static void difference_chart(FILE *out, const comparison *c, double width, double height, const char *class) {
    chart d = {.out = out,
               .width = width,
               .height = height,
               .left = 54,
               .right = label_room(c),
               .bottom = 26,
               .top = 12,
               .x0 = (double)c->run[0].run.metrics.first,
               .x1 = (double)c->run[0].run.metrics.last,
               .y_name = "difference (nats)"};
    char kind[8], text[64];
    /* the steep start must not flatten the rest: its first window may leave the plot */
    for (int i = 1; i < c->runs; i++) {
        const difference *x = &c->run[i].to_first;
        int64_t skip = x->points / 10;
        chart_range(x->points - skip, x->low + skip, &d.y0, &d.y1);
        chart_range(x->points - skip, x->high + skip, &d.y0, &d.y1);
        chart_range(x->points - skip, x->mean + skip, &d.y0, &d.y1);
    }
    chart_begin(&d, class, "Difference of the losses");
    snprintf(text, sizeof text, "%.40s", c->run[0].run.name);
    chart_rule(&d, 0, text);
    for (int i = 1; i < c->runs; i++) {
        const difference *x = &c->run[i].to_first;
        chart_band(&d, color(i, "b", kind), x->points, x->step, x->low, x->high);
        chart_line(&d, color(i, "c", kind), x->points, x->step, x->mean);
        snprintf(text, sizeof text, "%.*s %+.4f", NAME_SHOWN, c->run[i].run.name, x->last.mean);
        chart_label_end(&d, kind, x->last.mean, text);
    }
    chart_end(&d);
}

/* ---- tables ---- */

static void cell(FILE *out, double x, const char *format) {
    char text[32];
    if (format) snprintf(text, sizeof text, format, x);
    else number_text(x, 3, text);
    fprintf(out, "<td>%s</td>", isfinite(x) ? text : "");
}

static void runs_table(FILE *out, const comparison *c) {
    fputs("<table><tr><th>Run</th><th>Steps</th><th>Tokens</th><th>Loss</th><th>Difference</th><th>95%</th>"
          "<th>Held-out</th><th>Bits/byte</th><th>Tokens/s</th><th>MFU</th><th>Waiting</th></tr>\n",
          out);
    for (int i = 0; i < c->runs; i++) {
        const compared_run *x = &c->run[i];
        const run_data *r = &x->run;
        double step = run_median(&r->timing, "step_seconds"),
               waiting = run_median(&r->timing, "comm_exposed_seconds");
        fprintf(out, "<tr><td><i class=\"c%d\"></i>", i);
        html_text(out, r->name);
        fprintf(out, "</td><td>%" PRId64 "</td>", r->metrics.last);
        cell(out, run_last(&r->metrics, "tokens"), NULL);
        cell(out, series_last(r->metrics.bins, x->smooth), "%.4f");
        cell(out, i ? x->to_first.last.mean : NAN, "%+.4f");
        cell(out, i ? (x->to_first.last.high - x->to_first.last.low) / 2 : NAN, "\302\261 %.4f");
        cell(out, run_held_out(r), "%.4f");
        cell(out, series_last(r->eval.rows, r->eval.bits), "%.4f");
        cell(out, run_median(&r->timing, "tokens_per_second"), NULL);
        cell(out, 100 * run_median(&r->timing, "mfu"), "%.0f%%");
        cell(out, 100 * waiting / step, "%.1f%%");
        fputs("</tr>\n", out);
    }
    fputs("</table>\n", out);
}

typedef struct key_table {
    FILE *out;
    int runs;
} key_table;

static void key_row(void *to, const char *key, char *const *value) {
    key_table *t = to;
    fprintf(t->out, "<tr><td>%s</td>", key);
    for (int i = 0; i < t->runs; i++) {
        fputs("<td>", t->out);
        html_text(t->out, value[i]);
        fputs("</td>", t->out);
    }
    fputs("</tr>\n", t->out);
}

static void config_table(FILE *out, const comparison *c) {
    char *rows = NULL;
    size_t size = 0;
    FILE *piece = open_memstream(&rows, &size);
    if (!piece) FAULT(EXIT_NO_MEMORY, "no memory for the comparison");
    key_table t = {piece, c->runs};
    int keys = compare_configs(c, key_row, &t);
    fclose(piece);
    fputs("<h2>Config</h2>\n", out);
    if (keys > 0) {
        fputs("<table><tr><th>Key</th>", out);
        for (int i = 0; i < c->runs; i++) {
            fputs("<th>", out);
            html_text(out, c->run[i].run.name);
            fputs("</th>", out);
        }
        fprintf(out, "</tr>\n%s</table>\n", rows);
    } else {
        fprintf(out, "<p>%s.</p>\n",
                keys ? "Not known: a run has no config.yaml that can be read" : "No key differs");
    }
    mem_free(rows);
}

/* ---- the whole ---- */

static void title_of(const comparison *c, char *text, size_t size) {
    size_t used = 0;
    for (int i = 0; i < c->runs && used + 1 < size; i++) {
        int n = snprintf(text + used, size - used, "%s%s",
                         !i                ? ""
                         : i + 1 < c->runs ? ", "
                                           : " and ",
                         c->run[i].run.name);
        used += n > 0 ? (size_t)n : 0;
    }
}

static int pairs(const comparison *c) {
    for (int i = 1; i < c->runs; i++)
        if (c->run[i].to_first.points) return 1;
    return 0;
}

static void differences(FILE *out, const comparison *c) {
    int64_t least = INT64_MAX, most = 0;
    char to[32] = "";
    if (!pairs(c)) return;
    for (int i = 1; i < c->runs; i++) {
        const difference *d = &c->run[i].to_first;
        if (d->pairs && d->window < least) least = d->window;
        if (d->window > most) most = d->window;
    }
    if (least < most) snprintf(to, sizeof to, " to %" PRId64, most);
    fputs("<h2>Difference</h2>\n<p>Loss minus that of ", out);
    html_text(out, c->run[0].run.name);
    fprintf(out,
            ", step by step on the same position of the run, as a mean over %" PRId64
            "%s steps; the band holds it with 95%% confidence. Below the line is better.</p>\n<figure>\n",
            least, to);
    difference_chart(out, c, 1132, 260, "wide");
    difference_chart(out, c, 720, 240, "middle");
    difference_chart(out, c, 380, 220, "narrow");
    fputs("</figure>\n", out);
}

void compare_page(FILE *out, const void *data) {
    const comparison *c = data;
    char title[512];
    title_of(c, title, sizeof title);
    page_begin(out, title, "comparison");
    for (int i = 0; i < c->notes; i++) fprintf(out, "<p class=\"warning\">%s</p>\n", c->note[i]);
    for (int i = 0; i < c->runs; i++) run_gaps_html(out, &c->run[i].run, c->run[i].run.name);
    runs_table(out, c);
    const compared_run *x = &c->run[0];
    fprintf(out,
            "<figure><figcaption><p>Training loss, as a mean over %" PRId64
            " steps. Held-out and bits per byte "
            "are of each run's last validation: the first train.eval_samples samples of each source.</p>"
            "</figcaption>\n",
            series_window(&x->run.metrics, x->half));
    loss_chart(out, c, STEPS, 1132, 400, "wide");
    loss_chart(out, c, STEPS, 720, 340, "middle");
    loss_chart(out, c, STEPS, 380, 280, "narrow");
    fputs("</figure>\n", out);
    differences(out, c);
    fputs("<h2>Loss against what it costs</h2>\n<div class=\"three\">\n", out);
    small_losses(out, c);
    fputs("</div>\n<h2>Speed</h2>\n<div class=\"three\">\n", out);
    curves_chart(out, c, 1, "tokens_per_second", "Throughput", "Tokens per second, all ranks.", "%.0f");
    curves_chart(out, c, 1, "mfu", "Model FLOP utilisation", "Part of the machine's measured peak.", "%.2f");
    curves_chart(out, c, 1, "comm_exposed_seconds", "Waiting for other ranks",
                 "Seconds a step that communication was not hidden behind computation.", "%.3f");
    fputs("</div>\n<h2>Experts and stability</h2>\n<div class=\"three\">\n", out);
    curves_chart(out, c, 0, "expert_load_max_over_mean", "Load of the busiest expert",
                 "Over the mean load; mean of the layers.", "%.2f");
    curves_chart(out, c, 0, "ffn_experts_mean", "Computation per token",
                 "FFN experts per token; mean of the layers.", "%.2f");
    curves_chart(out, c, 0, "ffn_experts_std", "Deviation between tokens",
                 "Of the FFN experts per token; mean of the layers.", "%.2f");
    curves_chart(out, c, 0, "router_similarity", "Router similarity",
                 "Mean cosine between the router's rows; mean of the layers.", "%.3f");
    curves_chart(out, c, 0, "router_grad_ratio", "Balance pressure", "R<sub>g</sub>; mean of the layers.",
                 "%.3f");
    curves_chart(out, c, 0, "grad_norm", "Gradient norm", "Over all parameters, before clipping.", "%.3f");
    curves_chart(out, c, 0, "hidden_max", "Largest activation", "Of the last layer's output.", "%.2f");
    curves_chart(out, c, 0, "lr", "Learning rate", "Warm-up, then the schedule.", "%.2e");
    fputs("</div>\n", out);
    config_table(out, c);
    page_end(out);
}

/* For papers: the curves, and below them the differences. */
void compare_picture(FILE *out, const void *data) {
    const comparison *c = data;
    char title[512];
    int both = pairs(c);
    title_of(c, title, sizeof title);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"%d\" viewBox=\"0 0 800 %d\">"
            "<style>",
            both ? 640 : 400, both ? 640 : 400);
    report_paper_style(out);
    fputs("</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n"
          "<text class=\"head\" x=\"16\" y=\"28\">",
          out);
    html_text(out, title);
    fputs("</text>\n<svg y=\"40\" width=\"800\" height=\"360\">\n", out);
    loss_chart(out, c, STEPS, 800, 360, "alone");
    fputs("</svg>\n", out);
    if (both) {
        fputs("<text class=\"label\" x=\"16\" y=\"424\">Loss minus that of ", out);
        html_text(out, c->run[0].run.name);
        fputs(", smoothed, with its 95% band</text>\n<svg y=\"432\" width=\"800\" height=\"200\">\n", out);
        difference_chart(out, c, 800, 200, "alone");
        fputs("</svg>\n", out);
    }
    fputs("</svg>\n", out);
}
