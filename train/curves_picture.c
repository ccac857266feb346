/* The picture of `caracal curves`: a row of panels for each value, all panels of a row with one scale. */
#include <math.h>
#include <string.h>

#include "launch/memory.h"
#include "train/curves.h"
#include "train/svg.h"

enum { PANELS = ARMS, COLORS = 6 };

typedef struct layout {
    const char *panel[PANELS];
    int panels;
    double width, height, right; /* of one panel; room for its labels */
    double x0, x1;
} layout;

static double *vector(int64_t n) {
    return mem_alloc((size_t)n * sizeof(double), "a picture");
}

static const double *axis_of(const curves *c, const arm_run *r) {
    return r->axis[c->axis];
}

/* The first point that is shown. */
static int64_t first_shown(const curves *c, const arm_run *r) {
    int64_t i = 0;
    while (i < r->points && r->axis[OVER_STEPS][i] < (double)c->from) i++;
    return i;
}

/* An arm has the colour and the dashes of its name, in every panel; from COLORS names on, thicker. */
static int color_of(const curves *c, int arm) {
    int color = 0;
    for (int i = 0; i < arm; i++) {
        int seen = 0;
        if (!strcmp(c->arm[i].name, c->arm[arm].name)) return color_of(c, i);
        for (int j = 0; j < i; j++) seen |= !strcmp(c->arm[i].name, c->arm[j].name);
        color += !seen;
    }
    return color;
}

/* A point is the mean of so many on either side. */
static int64_t half_of(const curves *c, const arm_run *r) {
    return c->smooth / 2 / r->log[0].per;
}

static void smoothed(const curves *c, const arm_run *r, int k, int64_t layer, double *y) {
    series_smooth(r->points, y, r->value[k] + layer * r->points, half_of(c, r));
}

/* The mean of an arm's runs at each point, and the ends of the band of their deviation. */
static void arm_spread(const curves *c, const arm *a, int k, double *mean, double *low, double *high) {
    int64_t n = a->run[0].points;
    double *y = vector(n * a->runs), x[ARM_RUNS], deviation;
    for (int r = 0; r < a->runs; r++) smoothed(c, &a->run[r], k, a->run[r].width[k], y + r * n);
    for (int64_t i = 0; i < n; i++) {
        for (int r = 0; r < a->runs; r++) x[r] = y[r * n + i];
        curves_spread(a->runs, x, &mean[i], &deviation);
        low[i] = mean[i] - deviation;
        high[i] = mean[i] + deviation;
    }
    mem_free(y);
}

/* ---- an arm in its panel; with a chart, draws; without, widens y0..y1 ---- */

static void draw_arm(const curves *c, int i, int k, chart *to, double *y0, double *y1) {
    const arm *a = &c->arm[i];
    const arm_run *r = &a->run[0];
    int64_t from = first_shown(c, r), n = r->points - from;
    const double *x = axis_of(c, r) + from;
    double *mean = vector(r->points), *low = vector(r->points), *high = vector(r->points);
    char class[16], text[96], number[32];
    for (int64_t l = 0; c->by_layer && r->width[k] > 1 && l < r->width[k]; l++) {
        smoothed(c, r, k, l, low);
        if (to) chart_line(to, "raw", n, x, low + from);
        else chart_range(n, low + from, y0, y1);
    }
    arm_spread(c, a, k, mean, low, high);
    if (!to) {
        chart_range(n, mean + from, y0, y1);
        chart_range(n, low + from, y0, y1);
        chart_range(n, high + from, y0, y1);
    } else {
        int color = c->by_layer ? 0 : color_of(c, i);
        snprintf(class, sizeof class, "b%d", color % COLORS);
        if (a->runs > 1) chart_band(to, class, n, x, low + from, high + from);
        snprintf(class, sizeof class, "c%d%s", color % COLORS, color < COLORS ? "" : " thick");
        chart_line(to, class, n, x, mean + from);
        if (!c->by_layer) {
            double end, deviation; /* the table's number, which the line need not end at */
            curves_end(c, a, k, &end, &deviation);
            number_text(end, 4, number);
            snprintf(text, sizeof text, "%s %s", a->name, number);
            chart_label_end(to, class, mean[r->points - 1], text);
        }
    }
    mem_free(mean);
    mem_free(low);
    mem_free(high);
}

/* ---- panels ---- */

static layout lay_out(const curves *c) {
    layout l = {.x0 = INFINITY, .x1 = -INFINITY};
    size_t longest = 0;
    for (int i = 0; i < c->arms; i++) {
        const arm_run *r = &c->arm[i].run[0];
        int64_t from = first_shown(c, r);
        int known = 0;
        for (int p = 0; p < l.panels; p++) known |= !strcmp(l.panel[p], c->arm[i].panel);
        if (!known) l.panel[l.panels++] = c->arm[i].panel;
        chart_range(r->points - from, axis_of(c, r) + from, &l.x0, &l.x1);
        size_t n = strlen(c->arm[i].name);
        longest = n > longest ? n : longest;
    }
    l.right = c->by_layer ? 18 : 14 + CHART_SAMPLE + 7 * (double)(longest + 9);
    l.width = l.panels == 1 ? 800 : 1040.0 / l.panels;
    l.height = l.panels == 1 && c->keys == 1 ? 340 : 240;
    return l;
}

static void draw_panel(FILE *out, const curves *c, const layout *l, int k, int p, double y0, double y1) {
    static const char *const x_name[CURVE_AXES] = {"step", "tokens", "FLOPs"};
    chart picture = {.out = out,
                     .width = l->width,
                     .height = l->height,
                     .left = 44,
                     .right = l->right,
                     .top = 12,
                     .bottom = 26,
                     .x0 = l->x0,
                     .x1 = l->x1,
                     .y0 = y0,
                     .y1 = y1,
                     .log_y = y0 > 0 && y1 > 50 * y0,
                     .x_name = x_name[c->axis]};
    chart_begin(&picture, "alone", c->label[k]);
    for (int i = 0; i < c->marks; i++) chart_mark(&picture, "rule", c->mark[i].at, c->mark[i].label);
    for (int i = 0; i < c->arms; i++)
        if (!strcmp(c->arm[i].panel, l->panel[p])) draw_arm(c, i, k, &picture, NULL, NULL);
    for (int i = 0; k == 0 && i < c->rules; i++) chart_rule(&picture, c->rule[i].at, c->rule[i].label);
    chart_end(&picture);
}

static void text_at(FILE *out, const char *class, double x, double y, const char *text) {
    fprintf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, x, y);
    html_text(out, text);
    fputs("</text>\n", out);
}

/* What the lines, numbers and bands are. */
static void draw_foot(FILE *out, const curves *c, double y) {
    const arm_run *r = &c->arm[0].run[0];
    long long over = series_window(&r->log[0], half_of(c, r));
    int bands = 0;
    for (int i = 0; i < c->arms; i++) bands |= c->arm[i].runs > 1;
    fprintf(out, "<text class=\"tick\" x=\"16\" y=\"%.1f\">", y);
    if (over > 1) fprintf(out, "A point is the mean over %lld steps", over);
    else fputs("A point is a step", out);
    if (c->by_layer) fputs("; thin: layers, thick: their mean", out);
    else if (c->smooth > 1) fprintf(out, ", a number over the last %lld", (long long)c->smooth);
    fprintf(out, "%s.</text>\n", bands ? "; bands: the sample deviation over an arm's runs" : "");
}

void curves_picture(FILE *out, const void *data) {
    enum { HEADING = 20, FOOT = 22 };
    const curves *c = data;
    layout l = lay_out(c);
    double title = *c->title ? 44 : 8;
    double row = l.height + HEADING, wide = l.width * l.panels;
    fprintf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.1f %.1f\" role=\"img\"><style>",
            wide, title + row * c->keys + FOOT);
    report_paper_style(out);
    fputs("</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n", out);
    if (*c->title) text_at(out, "head", 16, 28, c->title);
    for (int k = 0; k < c->keys; k++) {
        double y0 = INFINITY, y1 = -INFINITY, top = title + row * k;
        for (int i = 0; i < c->arms; i++) draw_arm(c, i, k, NULL, &y0, &y1);
        for (int i = 0; k == 0 && i < c->rules; i++) chart_range(1, &c->rule[i].at, &y0, &y1);
        for (int p = 0; p < l.panels; p++) {
            char heading[160];
            const char *panel = l.panel[p];
            snprintf(heading, sizeof heading, "%s%s%s%s", c->label[k],
                     strcmp(c->key[k], "lm_loss") ? "" : " (nats per token)", *panel ? ", " : "", panel);
            text_at(out, "tick", p * l.width + 16, top + 12, heading);
            fprintf(out, "<svg x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\">\n", p * l.width,
                    top + HEADING, l.width, l.height);
            draw_panel(out, c, &l, k, p, y0, y1);
            fputs("</svg>\n", out);
        }
    }
    draw_foot(out, c, title + row * c->keys + 12);
    fputs("</svg>\n", out);
}
