/* The charts of the experts and of what shows that a run is stable: layers against steps. */
#include "train/report_parts.h"

#include <math.h>
#include <string.h>

#include "launch/memory.h"

enum { HEAT_WIDTH = 380, HEAT_COLUMNS = 100, HEAT_LEVELS = 8 };

static double *vector(int64_t n) {
    return mem_alloc((size_t)n * sizeof(double), "a chart");
}

/* ---- heat maps ---- */

/* Bins of a column. */
static int64_t heat_group(const series *s) {
    return (s->bins + HEAT_COLUMNS - 1) / HEAT_COLUMNS;
}

/* Joins bins so that at most HEAT_COLUMNS remain: [columns][width], the mean of finite values. */
static double *heat_values(const series *s, const column *v, int64_t *columns) {
    int64_t group = heat_group(s);
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
static void heat_scale(FILE *out, const char *prefix, int levels, double low, double high, int open) {
    char text[32];
    snprintf(text, sizeof text, "%.3g", low);
    fprintf(out, "<div class=\"scale\"><span>%s%s</span>", open ? "\u2264 " : "", text);
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
    double least = 0.01 * fabs(base);
    return reach < least ? least : reach; /* NaN stays NaN */
}

/* Layers against steps: the distance from `base`, on both sides of it or only above; base NaN: from the least
 * value on. */
static void chart_layers(FILE *out, const series *s, const char *key, const char *title, const char *caption,
                         double base, int two_sided) {
    const column *v = series_find(s, key);
    if (!v) return;
    int64_t columns;
    double *value = heat_values(s, v, &columns), unused = -INFINITY;
    if (isnan(base)) base = INFINITY, chart_range(columns * v->width, value, &base, &unused);
    double reach = heat_reach(columns * v->width, value, base);
    if (isfinite(reach)) {
        double low = two_sided ? base - reach : base, high = base + reach;
        const char *prefix = two_sided ? "d" : "s";
        int levels = HEAT_LEVELS + two_sided; /* an odd number has a middle */
        chart c = {.out = out, .width = HEAT_WIDTH, .left = 30, .right = 4, .top = 4, .bottom = 26};
        c.height = c.top + c.bottom + 7.5 * fmin(fmax((double)v->width, 8), 48);
        c.x0 = (double)s->first - 0.5;
        c.x1 = (double)s->last + 0.5;
        figure_begin(out, title, "layer by step", caption);
        c.columns = (double)(s->last - s->first + 1) / (double)(s->per * heat_group(s));
        chart_heat(&c, "heat", title, prefix, levels, columns, v->width, value, low, high);
        chart_end(&c);
        heat_scale(out, prefix, levels, low, high, two_sided);
        figure_end(out);
    }
    mem_free(value);
}

/* ---- lines ---- */

/* All layers at once: from the least to the greatest as a band, the middle layer as a line. */
typedef struct spread {
    const char *key, *title, *caption;
    const char *now; /* the headline; NULL: the greatest of the layers */
    int from_zero;
    int peaks;   /* of each bin the greatest step, not the mean; the headline is of the whole run */
    double rule; /* a reference line where not NaN */
    const char *rule_label;
} spread;

static void chart_spread(FILE *out, const series *s, spread p) {
    const column *v = series_find(s, p.key);
    if (!v) return;
    double low[SERIES_BINS], high[SERIES_BINS], middle[SERIES_BINS], *one = vector(v->width);
    double greatest = NAN;
    int64_t layer = 0;
    for (int64_t b = 0; b < s->bins; b++) {
        memcpy(one, (p.peaks ? v->high : v->mean) + b * v->width, (size_t)v->width * sizeof *one);
        double least = INFINITY, most = -INFINITY;
        chart_range(v->width, one, &least, &most);
        for (int64_t l = 0; l < v->width; l++)
            if (one[l] == most && !(p.peaks && most <= greatest)) layer = l, greatest = most;
        low[b] = isfinite(least) ? least : NAN;
        high[b] = isfinite(most) ? most : NAN;
        middle[b] = series_quantile(v->width, one, 0.5);
    }
    mem_free(one);
    chart c = small_chart(out, s, 8);
    chart_range(s->bins, low, &c.y0, &c.y1);
    chart_range(s->bins, high, &c.y0, &c.y1);
    if (!isfinite(c.y0)) return;
    char number[32], now[96];
    number_text(greatest, 3, number);
    snprintf(now, sizeof now, "most %s, layer %lld", number, (long long)layer);
    figure_begin(out, p.title, p.now ? p.now : now, p.caption);
    c.log_y = !p.from_zero && chart_wants_log(&c);
    if (p.from_zero) c.y0 = fmin(c.y0, 0);
    chart_range(1, &p.rule, &c.y0, &c.y1);
    chart_begin(&c, "small", p.title);
    chart_band(&c, "band", s->bins, s->step, low, high);
    chart_line(&c, "train", s->bins, s->step, middle);
    if (isfinite(p.rule)) chart_rule(&c, p.rule, p.rule_label);
    chart_end(&c);
    figure_end(out);
}

/* ---- experts ---- */

/* Layers whose mean over the last tenth of the run is within 1% of the budget. */
static int64_t within_budget(const series *s, const column *v, double budget) {
    int64_t layers = 0, first = s->bins - (s->bins + 9) / 10;
    for (int64_t l = 0; l < v->width; l++) {
        double sum = 0;
        for (int64_t b = first; b < s->bins; b++) sum += v->mean[b * v->width + l];
        layers += fabs(sum / (double)(s->bins - first) - budget) <= 0.01 * budget;
    }
    return layers;
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

static void heat_budget(FILE *out, const run_data *r) {
    char caption[200];
    double budget = r->c.router.expected_ffn_experts;
    snprintf(caption, sizeof caption,
             "FFN experts per token, mean over the batch: the budget is %g; the rest of the "
             "choices go to identity experts.",
             budget);
    chart_layers(out, &r->metrics, "ffn_experts_mean", "Computation per token", caption, budget, 1);
    chart_layers(out, &r->metrics, "ffn_experts_std", "Deviation between tokens",
                 "Of the FFN experts per token in a batch: well above zero, tokens differ in what they get.",
                 NAN, 0);
}

static void lines_budget(FILE *out, const run_data *r) {
    const series *s = &r->metrics;
    const column *v = series_find(s, "ffn_experts_mean");
    double budget = r->c.router.expected_ffn_experts;
    char label[48], now[64];
    if (!v) return;
    snprintf(label, sizeof label, "budget %g", budget);
    snprintf(now, sizeof now, "%lld of %lld layers within 1%%", (long long)within_budget(s, v, budget),
             (long long)v->width);
    chart_spread(out, s,
                 (spread){.key = "ffn_experts_mean",
                          .title = "Budget",
                          .now = now,
                          .rule = budget,
                          .rule_label = label,
                          .caption = "FFN experts per token: the line is the middle layer, the band all "
                                     "layers. The headline is of the last tenth of the run."});
    chart_spread(out, s,
                 (spread){.key = "ffn_experts_std",
                          .title = "Deviation",
                          .from_zero = 1,
                          .rule = NAN,
                          .caption = "Standard deviation of FFN experts between tokens: the middle layer, "
                                     "and all of them."});
}

void charts_experts(FILE *out, const run_data *r) {
    /* without identity experts every token has the same number */
    int identity = r->has_config && r->c.model.zero_expert_num > 0;
    chart_layers(
        out, &r->metrics, "expert_load_max_over_mean", "Load of the busiest expert",
        "As a multiple of the mean load: 1 is perfectly even, and the router bias pulls each layer there.", 1,
        0);
    if (identity) heat_budget(out, r);
    if (identity) lines_budget(out, r);
    chart_bias(out, &r->metrics);
}

/* ---- stability ---- */

void charts_stability(FILE *out, const run_data *r) {
    const series *s = &r->metrics;
    double limit = r->has_config ? r->c.router.grad_ratio_limit : 0.1,
           eps = r->has_config ? r->c.optim.eps : 0;
    chart_spread(out, s,
                 (spread){.key = "router_similarity",
                          .title = "Router similarity",
                          .rule = NAN,
                          .caption =
                              "Mean cosine between the router's rows; the line is the middle layer, the "
                              "band all layers. Rising means experts grow alike."});
    chart_spread(out, s,
                 (spread){.key = "router_grad_ratio",
                          .title = "Balance pressure",
                          .rule = limit > 0 ? limit : NAN,
                          .rule_label = "limit",
                          .caption = "R<sub>g</sub>, the gradient of the load-balance loss over that of the "
                                     "language loss: it should not steer what is learned."});
    chart_spread(out, s,
                 (spread){.key = "layer_output_max",
                          .title = "Largest activation",
                          .peaks = 1,
                          .rule = NAN,
                          .caption =
                              "The largest element of what a layer hands on, over all tokens: the line "
                              "is the middle layer, the band all layers. The headline is the run's."});
    chart_value(out, s,
                (value_chart){.key = "z_loss",
                              .title = "Hidden z-loss",
                              .caption = "Without its coefficient: it grows with the last layer's output."});
    chart_value(out, s,
                (value_chart){.key = "grad_rms_min",
                              .title = "Smallest gradient",
                              .rule = eps,
                              .rule_label = "optim.eps",
                              .caption =
                                  "RMS in the group of parameters where it is least: AdamW's updates shrink "
                                  "where optim.eps comes near."});
    chart_value(out, s,
                (value_chart){.key = "lb_alpha",
                              .title = "Load-balance coefficient",
                              .caption = "Moved so that the balance pressure stays at its target."});
}
