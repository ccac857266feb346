/* The charts of the report.  Each says in a sentence what to look for. */
#include "train/report_parts.h"

#include <math.h>
#include <string.h>

#include "launch/memory.h"
#include "train/svg.h"

enum { SMALL_WIDTH = 380, SMALL_HEIGHT = 220, HEAT_WIDTH = 420, HEAT_COLUMNS = 100, HEAT_LEVELS = 8 };

static double *vector(int64_t n) {
    return mem_alloc((size_t)n * sizeof(double), "a chart");
}

/* ---- a figure's frame ---- */

static void figure_begin(FILE *out, const char *title, const char *now, const char *caption) {
    fprintf(out,
            "<figure><figcaption><div class=\"top\"><h3>%s</h3><span class=\"now\">%s</span></div><p>%s</p>"
            "</figcaption>\n",
            title, now, caption);
}

static void figure_end(FILE *out) {
    fputs("</figure>\n", out);
}

static chart small_chart(FILE *out, const series *s, double right) {
    return (chart){.out = out,
                   .width = SMALL_WIDTH,
                   .height = SMALL_HEIGHT,
                   .left = 44,
                   .right = right,
                   .top = 12,
                   .bottom = 26,
                   .x0 = (double)s->first,
                   .x1 = (double)s->last,
                   .y0 = INFINITY,
                   .y1 = -INFINITY};
}

/* Positive values over more than a factor of 50 are read better on a logarithmic axis. */
static int wants_log(const chart *c) {
    return c->y0 > 0 && c->y1 > 50 * c->y0;
}

/* ---- loss ---- */

static void range_of_loss(const run_data *r, chart *c) {
    const column *loss = series_find(&r->metrics, "loss");
    chart_range(r->metrics.bins, loss->low, &c->y0, &c->y1);
    c->y1 = -INFINITY; /* a single step's spike is drawn at the edge */
    chart_range(r->metrics.bins, r->smooth, &c->y0, &c->y1);
    for (int m = 0; m < r->marks.n; m++) chart_range(1, &r->marks.mark[m].loss, &c->y0, &c->y1);
    if (r->eval.total >= 0) chart_range(r->eval.rows, r->eval.loss[r->eval.total], &c->y0, &c->y1);
    if (!isfinite(c->y0)) c->y0 = 0, c->y1 = 1; /* no finite loss at all */
}

void charts_loss(FILE *out, const run_data *r, double width, double height, const char *class,
                 const char *head) {
    const series *s = &r->metrics;
    const column *loss = series_find(s, "loss");
    if (!loss) return;
    chart c = {.out = out,
               .width = width,
               .height = height,
               .left = 40,
               .right = 112,
               .bottom = 26,
               .top = head ? 52 : 12,
               .head = head,
               .x0 = (double)s->first,
               .x1 = (double)s->last,
               .y0 = INFINITY,
               .y1 = -INFINITY};
    range_of_loss(r, &c);
    chart_begin(&c, class, "Loss over the steps");
    for (int m = 0; m < r->marks.n; m++) {
        char number[32], text[96];
        number_text(r->marks.mark[m].loss, 4, number);
        snprintf(text, sizeof text, "%s %s", r->marks.mark[m].label, number);
        chart_rule(&c, r->marks.mark[m].loss, text);
    }
    chart_band(&c, "band", s->bins, s->step, loss->low, loss->high);
    chart_line(&c, "raw", s->bins, s->step, loss->mean);
    chart_line(&c, "train", s->bins, s->step, r->smooth);
    double last = series_last(s->bins, r->smooth);
    char text[64];
    snprintf(text, sizeof text, "training %.3f", last);
    chart_label_end(&c, "train", last, text);
    if (r->eval.total >= 0) {
        const double *total = r->eval.loss[r->eval.total];
        chart_line(&c, "valid", r->eval.rows, r->eval.step, total);
        if (r->eval.rows <= 60) chart_dots(&c, "valid", r->eval.rows, r->eval.step, total);
        last = run_held_out(r);
        snprintf(text, sizeof text, "validation %.3f", last);
        chart_label_end(&c, "valid", last, text);
    }
    chart_end(&c);
}

/* ---- learning ---- */

static void chart_sources(FILE *out, const run_data *r) {
    const evaluations *v = &r->eval;
    if (v->rows == 0 || v->sources - (v->total >= 0) < 1) return;
    figure_begin(out, "Validation by source", "", "Loss on text that is never trained on.");
    chart c = small_chart(out, &r->metrics, 92);
    c.x0 = fmin(c.x0, v->step[0]), c.x1 = fmax(c.x1, v->step[v->rows - 1]);
    for (int i = 0; i < v->sources; i++) chart_range(v->rows, v->loss[i], &c.y0, &c.y1);
    if (!isfinite(c.y0)) c.y0 = 0, c.y1 = 1;
    chart_begin(&c, "small", "Validation loss of each source over the steps");
    for (int i = 0, color = 0; i < v->sources; i++) {
        if (i == v->total) continue;
        char class[8], text[64];
        double last = series_last(v->rows, v->loss[i]);
        snprintf(class, sizeof class, "c%d", color++ % 6);
        chart_line(&c, class, v->rows, v->step, v->loss[i]);
        snprintf(text, sizeof text, "%.20s %.2f", v->source[i], last);
        chart_label_end(&c, class, last, text);
    }
    chart_end(&c);
    figure_end(out);
}

/* One value a step: its bins' range as a band, their mean as a line. */
typedef struct value_chart {
    const char *key, *title, *unit, *caption;
    int from_zero; /* the axis begins at 0 */
    int typical;   /* the headline is the median, not the latest value */
    double rule;   /* a reference line where positive */
    const char *rule_label;
} value_chart;

static void chart_value(FILE *out, const series *s, value_chart v) {
    const column *y = series_find(s, v.key);
    if (!y || y->width != 1) return;
    chart c = small_chart(out, s, 8);
    chart_range(s->bins, y->low, &c.y0, &c.y1);
    chart_range(s->bins, y->high, &c.y0, &c.y1);
    if (!isfinite(c.y0)) return;
    char number[32], now[80];
    number_text(v.typical ? run_median(s, v.key) : y->last, 3, number);
    snprintf(now, sizeof now, "%s %s%s", v.typical ? "median" : "now", number, v.unit ? v.unit : "");
    figure_begin(out, v.title, now, v.caption);
    if (v.from_zero) c.y0 = fmin(c.y0, 0);
    if (v.from_zero && c.y1 == 0) c.y1 = 1; /* nothing but zeros: not spread to both sides */
    c.log_y = wants_log(&c);
    if (v.rule > 0 && v.rule < 3 * c.y1) c.y1 = fmax(c.y1, v.rule);
    chart_begin(&c, "small", v.title);
    if (v.rule_label && v.rule > c.y0 && v.rule <= c.y1) chart_rule(&c, v.rule, v.rule_label);
    chart_band(&c, "band", s->bins, s->step, y->low, y->high);
    chart_line(&c, "train", s->bins, s->step, y->mean);
    chart_end(&c);
    figure_end(out);
}

void charts_learning(FILE *out, const run_data *r) {
    char clip[48], number[32];
    double limit = r->has_config ? r->c.optim.clip : 0;
    number_text(limit, 3, number);
    snprintf(clip, sizeof clip, "clipped at %s", number);
    chart_sources(out, r);
    chart_value(out, &r->metrics,
                (value_chart){.key = "grad_norm",
                              .title = "Gradient norm",
                              .rule = limit,
                              .rule_label = clip,
                              .caption = "Over all parameters, before clipping."});
    chart_value(
        out, &r->metrics,
        (value_chart){
            .key = "lr", .title = "Learning rate", .from_zero = 1, .caption = "Warm-up, then the schedule."});
}

/* ---- experts ---- */

/* Joins bins so that at most HEAT_COLUMNS remain: [columns][width], the mean of finite values. */
static double *heat_values(const series *s, const column *v, int64_t *columns) {
    int64_t group = (s->bins + HEAT_COLUMNS - 1) / HEAT_COLUMNS;
    *columns = (s->bins + group - 1) / group;
    double *value = vector(*columns * v->width);
    for (int64_t i = 0; i < *columns * v->width; i++) {
        int64_t first = i / v->width * group, count = 0;
        double sum = 0;
        for (int64_t b = first; b < first + group && b < s->bins; b++) {
            double x = v->mean[b * v->width + i % v->width];
            if (isfinite(x)) sum += x, count++;
        }
        value[i] = count ? sum / (double)count : NAN;
    }
    return value;
}

/* What lies beyond an open end of the scale has its last colour. */
static void heat_scale(FILE *out, const char *prefix, int levels, double low, double high) {
    char text[32];
    snprintf(text, sizeof text, "%.3g", low);
    fprintf(out, "<div class=\"scale\"><span>%s%s</span>", *prefix == 'd' ? "\u2264 " : "", text);
    for (int l = 0; l < levels; l++) fprintf(out, "<i class=\"%s%d\"></i>", prefix, l);
    snprintf(text, sizeof text, "%.3g", high);
    fprintf(out, "<span>\u2265 %s</span></div>\n", text);
}

/* How far 95% of the values are from the base: rare extremes, such as the first steps, must not hide the
 * rest. */
static double heat_reach(int64_t n, const double *value, double base) {
    double *distance = vector(n);
    for (int64_t i = 0; i < n; i++) distance[i] = fabs(value[i] - base);
    double reach = series_quantile(n, distance, 0.95);
    mem_free(distance);
    return fmax(reach, 0.01 * fabs(base));
}

/* Layers against steps: the distance from `base`, on both sides of it or only above. */
static void chart_layers(FILE *out, const series *s, const char *key, const char *title, const char *caption,
                         double base, int two_sided) {
    const column *v = series_find(s, key);
    if (!v) return;
    int64_t columns;
    double *value = heat_values(s, v, &columns), reach = heat_reach(columns * v->width, value, base);
    if (isfinite(reach)) {
        double low = two_sided ? base - reach : base, high = base + reach;
        const char *prefix = two_sided ? "d" : "s";
        int levels = HEAT_LEVELS + two_sided; /* an odd number has a middle */
        chart c = {.out = out, .width = HEAT_WIDTH, .left = 30, .right = 4, .top = 4, .bottom = 26};
        c.height = c.top + c.bottom + 7.5 * fmin(fmax((double)v->width, 8), 48);
        c.x0 = (double)s->first - 0.5;
        c.x1 = (double)s->last + 0.5;
        figure_begin(out, title, "layer by step", caption);
        chart_heat(&c, "heat", title, prefix, levels, columns, v->width, value, low, high);
        chart_end(&c);
        heat_scale(out, prefix, levels, low, high);
        figure_end(out);
    }
    mem_free(value);
}

void charts_experts(FILE *out, const run_data *r) {
    char caption[160];
    double budget = r->has_config ? r->c.router.expected_ffn_experts : NAN;
    int identity = r->has_config && r->c.model.zero_expert_num > 0;
    chart_layers(
        out, &r->metrics, "expert_load_max_over_mean", "Load of the busiest expert",
        "As a multiple of the mean load: 1 is perfectly even, and the router bias pulls each layer there.", 1,
        0);
    if (!identity) return; /* without identity experts every token has the same number */
    snprintf(caption, sizeof caption,
             "FFN experts per token, mean over the batch: the budget is %g; the rest of the "
             "choices go to identity experts.",
             budget);
    chart_layers(out, &r->metrics, "ffn_experts_mean", "Computation per token", caption, budget, 1);
}

/* ---- router ---- */

/* All layers at once: from the least to the greatest as a band, the middle layer as a line. */
static void chart_spread(FILE *out, const series *s, const char *key, const char *title, const char *caption,
                         double rule, const char *rule_label) {
    const column *v = series_find(s, key);
    if (!v) return;
    double *low = vector(s->bins), *high = vector(s->bins), *middle = vector(s->bins),
           *one = vector(v->width);
    double greatest = NAN;
    int64_t layer = 0;
    for (int64_t b = 0; b < s->bins; b++) {
        memcpy(one, v->mean + b * v->width, (size_t)v->width * sizeof *one);
        double least = INFINITY, most = -INFINITY;
        chart_range(v->width, one, &least, &most);
        for (int64_t l = 0; l < v->width; l++)
            if (one[l] == most) layer = l, greatest = most;
        low[b] = isfinite(least) ? least : NAN;
        high[b] = isfinite(most) ? most : NAN;
        middle[b] = series_quantile(v->width, one, 0.5);
    }
    chart c = small_chart(out, s, 8);
    chart_range(s->bins, low, &c.y0, &c.y1);
    chart_range(s->bins, high, &c.y0, &c.y1);
    if (isfinite(c.y0)) {
        char number[32], now[96];
        number_text(greatest, 3, number);
        snprintf(now, sizeof now, "most %s, layer %lld", number, (long long)layer);
        figure_begin(out, title, now, caption);
        c.log_y = wants_log(&c);
        if (rule > c.y0) c.y1 = fmax(c.y1, rule);
        chart_begin(&c, "small", title);
        if (isfinite(rule)) chart_rule(&c, rule, rule_label);
        chart_band(&c, "band", s->bins, s->step, low, high);
        chart_line(&c, "train", s->bins, s->step, middle);
        chart_end(&c);
        figure_end(out);
    }
    mem_free(low), mem_free(high), mem_free(middle), mem_free(one);
}

static void chart_bias(FILE *out, const series *s) {
    const column *low = series_find(s, "bias_min"), *high = series_find(s, "bias_max");
    if (!low || !high || low->width != 1 || high->width != 1) return;
    chart c = small_chart(out, s, 8);
    chart_range(s->bins, low->mean, &c.y0, &c.y1);
    chart_range(s->bins, high->mean, &c.y0, &c.y1);
    if (!isfinite(c.y0)) return;
    figure_begin(out, "Router bias", "", "From the least to the greatest of all experts in all layers.");
    chart_begin(&c, "small", "Range of the router biases");
    chart_band(&c, "band", s->bins, s->step, low->mean, high->mean);
    chart_line(&c, "train", s->bins, s->step, low->mean);
    chart_line(&c, "train", s->bins, s->step, high->mean);
    chart_end(&c);
    figure_end(out);
}

void charts_router(FILE *out, const run_data *r) {
    const series *s = &r->metrics;
    chart_spread(out, s, "router_similarity", "Router similarity",
                 "Mean cosine between the router's rows; the line is the middle layer, the band all layers. "
                 "Rising means "
                 "experts grow alike.",
                 NAN, "");
    chart_spread(out, s, "router_grad_ratio", "Balance pressure",
                 "R<sub>g</sub>, the gradient of the load-balance loss over that of the language loss: it "
                 "should not steer what is learned.",
                 0.1, "guideline 0.1");
    chart_bias(out, s);
}

/* ---- speed ---- */

void charts_speed(FILE *out, const run_data *r) {
    chart_value(out, &r->timing,
                (value_chart){.key = "tokens_per_second",
                              .title = "Throughput",
                              .from_zero = 1,
                              .typical = 1,
                              .unit = " tokens/s",
                              .caption = "Tokens per second, all ranks."});
    chart_value(out, &r->timing,
                (value_chart){.key = "mfu",
                              .title = "Model FLOP utilisation",
                              .from_zero = 1,
                              .typical = 1,
                              .caption = "Part of the machine's measured peak."});
    chart_value(
        out, &r->timing,
        (value_chart){.key = "comm_exposed_seconds",
                      .title = "Waiting for other ranks",
                      .from_zero = 1,
                      .typical = 1,
                      .unit = " s",
                      .caption = "Seconds per step that communication was not hidden behind computation."});
}
