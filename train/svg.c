#include "train/svg.h"

#include <math.h>
#include <string.h>

#include "data/utf8.h"
#include "kernels/math.h"

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

static const double label_height = 14;

static void html_byte(FILE *out, char c) {
    switch (c) {
    case '<':
        fputs("&lt;", out);
        break;
    case '>':
        fputs("&gt;", out);
        break;
    case '&':
        fputs("&amp;", out);
        break;
    case '"':
        fputs("&quot;", out);
        break;
    default:
        if ((unsigned char)c >= ' ' || c == '\n' || c == '\t') putc(c, out);
        else fputs(REPLACEMENT, out);
    }
}

void html_text(FILE *out, const char *text) {
    while (*text) {
        for (size_t n = utf8_valid_prefix(text, strlen(text)); n; n--) html_byte(out, *text++);
        if (!*text) return;
        fputs(REPLACEMENT, out);
        while ((*++text & 0xc0) == 0x80) continue; /* one for what is left of a character */
    }
}

void number_text(double x, int digits, char text[32]) {
    static const struct {
        double from, unit;
        const char *suffix;
    } large[] = {{1e18, 1e18, "E"}, {1e15, 1e15, "P"}, {1e12, 1e12, "T"},
                 {1e9, 1e9, "G"},   {1e6, 1e6, "M"},   {1e4, 1e3, "k"}};
    double size = fabs(x);
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        if (size < large[i].from * 0.9999) continue; /* 9999.9999 of a tick is 10k */
        snprintf(text, 32, "%.*g%s", digits, x / large[i].unit, large[i].suffix);
        return;
    }
    if (size >= 1000) snprintf(text, 32, "%.0f", x);
    else if (size == 0 || size >= 0.9999e-3) snprintf(text, 32, "%.*g", digits, x);
    else snprintf(text, 32, "%.*e", digits - 1, x);
    char *e = strstr(text, "e-"); /* 2.00e-05 becomes 2e-5 */
    if (!e) return;
    char exponent[8], *end = e;
    snprintf(exponent, sizeof exponent, "e-%s", e[2] == '0' ? e + 3 : e + 2);
    while (end[-1] == '0') end--;
    if (end[-1] == '.') end--;
    memmove(end, exponent, strlen(exponent) + 1);
}

int chart_wants_log(const chart *c) {
    return c->y0 > 0 && c->y1 > 50 * c->y0;
}

void chart_range(int64_t n, const double *y, double *low, double *high) {
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(y[i])) continue;
        *low = fmin(*low, y[i]);
        *high = fmax(*high, y[i]);
    }
}

/* ---- axes ---- */

/* Where a value lies between two others, which stand for 0 and 1. */
static double part_of(double x, double from, double to, int log) {
    return log ? (fixed_log(fmax(x, from)) - fixed_log(from)) / (fixed_log(to) - fixed_log(from))
               : (x - from) / (to - from);
}

static double plot_x(const chart *c, double x) {
    double at = part_of(x, c->x0, c->x1, c->x_scale == CHART_X_LOG);
    return c->left + at * (c->width - c->left - c->right);
}

static double plot_y(const chart *c, double y) {
    double at = part_of(y, c->y0, c->y1, c->log_y);
    at = fmin(fmax(at, 0), 1); /* what lies outside is drawn at the edge */
    return c->height - c->bottom - at * (c->height - c->top - c->bottom);
}

/* The least of 1, 2, 5 times a power of ten that is at least x. */
static double round_step(double x) {
    double power = 1e-300;
    while (power * 10 <= x) power *= 10;
    return power * 1.0000001 >= x ? power
           : power * 2 >= x       ? power * 2
           : power * 5 >= x       ? power * 5
                                  : power * 10;
}

static void y_tick(const chart *c, double value) {
    double y = plot_y(c, value);
    char text[32];
    number_text(value, 4, text);
    fprintf(c->out, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>", c->left, y, c->width - c->right);
    fprintf(c->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", c->left - 7,
            y + 4, text);
}

/* Ticks, and what they count at the left end. */
static void x_ticks(const chart *c) {
    static const char format[] = "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n";
    double step = round_step(fmax(1, (c->x1 - c->x0) / ((c->width - c->left - c->right) / 70)));
    double y = c->height - c->bottom + 17;
    fprintf(c->out, format, c->left, y, "start", c->x_name ? c->x_name : "step");
    double begin = c->left + 20 + 5 * (double)strlen(c->x_name ? c->x_name : "step");
    for (int64_t i = (int64_t)ceil(c->x0 / step); (double)i * step <= c->x1; i++) {
        double x = (double)i * step;
        char text[32];
        number_text(x, 4, text);
        if (plot_x(c, x) > begin) fprintf(c->out, format, plot_x(c, x), y, "middle", text);
    }
}

static void x_tick(const chart *c, double value) {
    char text[32];
    number_text(value, 4, text);
    fprintf(c->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
            plot_x(c, value), c->height - c->bottom + 17, text);
}

/* Powers of ten, or 1, 2 and 5 of them when there are few. */
static void log_ticks(const chart *c, double from, double to, void (*tick)(const chart *, double)) {
    double power = 1e-300;
    while (power * 10 <= from * 1.0000001) power *= 10;
    double decades = (fixed_log(to) - fixed_log(from)) / fixed_log(10);
    int skip = 1 + (int)(decades / 6);
    for (int n = 0; power <= to * 1.0000001; power *= 10, n++) {
        if (n % skip == 0 && power >= from * 0.9999999) tick(c, power);
        for (double m = 2; m <= 5 && decades < 2.5; m += 3)
            if (power * m >= from && power * m <= to) tick(c, power * m);
    }
}

static void linear_ticks(const chart *c, double from, double to, double step,
                         void (*tick)(const chart *, double)) {
    for (int64_t i = (int64_t)ceil(from / step); (double)i * step <= to; i++) tick(c, (double)i * step);
}

/* Ticks, and below their middle what they are values of. */
static void x_values(const chart *c) {
    double width = c->width - c->left - c->right;
    if (c->x_scale == CHART_X_LOG) log_ticks(c, c->x0, c->x1, x_tick);
    else linear_ticks(c, c->x0, c->x1, round_step((c->x1 - c->x0) / (width / 70)), x_tick);
    fprintf(c->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", c->left + width / 2,
            c->height - c->bottom + 36);
    html_text(c->out, c->x_name);
    fputs("</text>\n", c->out);
}

/* Without any value, or with values whose differences are no numbers, a range has no ticks.  1: it was such a
 * one. */
static int settle_range(double *from, double *to) {
    *from = fmax(*from, -1e300);
    *to = fmin(*to, 1e300);
    if (*from <= *to) return 0;
    *from = 0;
    *to = 1;
    return 1;
}

static void widen_ranges(chart *c) {
    if (settle_range(&c->x0, &c->x1) && c->x_scale == CHART_X_LOG) c->x0 = 0.1;
    if (settle_range(&c->y0, &c->y1)) c->log_y = 0;
    if (c->x_scale == CHART_X_LOG) c->x0 /= 1.1, c->x1 *= 1.1;
    else if (!(c->x1 > c->x0)) c->x0 -= 0.5, c->x1 = c->x0 + 1;
    if (c->log_y) {
        c->y0 /= 1.15, c->y1 *= 1.15;
        return;
    }
    if (!(c->y1 > c->y0)) {
        double half = fabs(c->y0) * 0.1; /* nothing but zeros: from 0 to 1 */
        c->y0 -= half, c->y1 = half > 0 ? c->y0 + 2 * half : 1;
    }
    double pad = 0.05 * (c->y1 - c->y0);
    if (c->y0 != 0) c->y0 -= pad;
    if (c->y1 != 0) c->y1 += pad;
}

static void open_svg(const chart *c, const char *class, const char *name) {
    fprintf(c->out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"%s\" viewBox=\"0 0 %g %g\" role=\"img\">",
            class, c->width, c->height);
    fputs("<title>", c->out);
    html_text(c->out, name);
    fprintf(c->out, "</title>\n%s", c->head ? c->head : "");
}

void chart_axes(chart *c) {
    c->labels = 0;
    c->marked = 0;
    widen_ranges(c);
    if (c->log_y) log_ticks(c, c->y0, c->y1, y_tick);
    else
        linear_ticks(c, c->y0, c->y1, round_step((c->y1 - c->y0) / ((c->height - c->top - c->bottom) / 38)),
                     y_tick);
    if (c->x_scale == CHART_X_COUNT) x_ticks(c);
    else x_values(c);
    if (c->y_name)
        fprintf(c->out,
                "<text class=\"tick\" transform=\"translate(%.1f %.1f) rotate(-90)\" text-anchor=\"middle\">"
                "%s</text>\n",
                c->left - 40, (c->top + c->height - c->bottom) / 2, c->y_name);
}

void chart_begin(chart *c, const char *class, const char *name) {
    open_svg(c, class, name);
    chart_axes(c);
}

/* ---- marks ---- */

static int is_point(double x, double y) {
    return isfinite(x) && isfinite(y);
}

void chart_line(chart *c, const char *class, int64_t n, const double *x, const double *y) {
    fprintf(c->out, "<path class=\"%s\" d=\"", class);
    for (int64_t i = 0; i < n; i++) {
        if (!is_point(x[i], y[i])) continue;
        int begins = i == 0 || !is_point(x[i - 1], y[i - 1]),
            ends = i == n - 1 || !is_point(x[i + 1], y[i + 1]);
        fprintf(c->out, "%c%.1f %.1f", begins ? 'M' : 'L', plot_x(c, x[i]), plot_y(c, y[i]));
        if (begins && ends) fputs("h0", c->out); /* round caps make a dot of it */
    }
    fputs("\"/>\n", c->out);
}

void chart_dots(chart *c, const char *class, int64_t n, const double *x, const double *y) {
    for (int64_t i = 0; i < n; i++)
        if (is_point(x[i], y[i]))
            fprintf(c->out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"/>", class,
                    plot_x(c, x[i]), plot_y(c, y[i]));
    putc('\n', c->out);
}

void chart_symbol(chart *c, const char *class, char symbol, double x, double y) {
    static const char ring[] = "m-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0", cross[] = "m-4 -4l8 8m0 -8l-8 8",
                      arrow[] = "m-4 0l4 -6l4 6m-4 -6v12";
    fprintf(c->out, "<path class=\"%s solid\" d=\"M%.1f %.1f%s\"/>\n", class, plot_x(c, x), plot_y(c, y),
            symbol == 'o'   ? ring
            : symbol == '^' ? arrow
                            : cross);
}

void chart_band(chart *c, const char *class, int64_t n, const double *x, const double *low,
                const double *high) {
    fprintf(c->out, "<path class=\"%s\" d=\"", class);
    for (int64_t from = 0; from < n; from++) {
        if (!isfinite(low[from]) || !isfinite(high[from])) continue;
        int64_t to = from;
        while (to < n && isfinite(low[to]) && isfinite(high[to])) to++;
        for (int64_t i = from; i < to; i++)
            fprintf(c->out, "%c%.1f %.1f", i == from ? 'M' : 'L', plot_x(c, x[i]), plot_y(c, high[i]));
        for (int64_t i = to - 1; i >= from; i--)
            fprintf(c->out, "L%.1f %.1f", plot_x(c, x[i]), plot_y(c, low[i]));
        putc('Z', c->out);
        from = to;
    }
    fputs("\"/>\n", c->out);
}

void chart_rule(chart *c, double y, const char *label) {
    double at = plot_y(c, y);
    fprintf(c->out, "<path class=\"rule\" d=\"M%.1f %.1fH%.1f\"/>", c->left, at, c->width - c->right);
    fprintf(c->out, "<text class=\"note\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", c->width - c->right,
            at - 5);
    html_text(c->out, label);
    fputs("</text>\n", c->out);
}

void chart_mark(chart *c, const char *class, double x, const char *label) {
    if (!(x >= c->x0 && x <= c->x1)) return;
    double at = plot_x(c, x), width = 6 * (double)strlen(label) + 8;
    fprintf(c->out, "<path class=\"%s\" d=\"M%.1f %.1fV%.1f\"/>", class, at, c->top, c->height - c->bottom);
    if (at < c->marked || at + width > c->width - c->right) return;
    c->marked = at + width;
    fprintf(c->out, "<text class=\"note\" x=\"%.1f\" y=\"%.1f\">", at + 4, c->top + 8);
    html_text(c->out, label);
    fputs("</text>\n", c->out);
}

void chart_label_end(chart *c, const char *class, double y, const char *text) {
    if (c->labels == CHART_LABELS || !isfinite(y)) return;
    chart_label *l = &c->label[c->labels++];
    l->y = plot_y(c, y);
    snprintf(l->class, sizeof l->class, "%s", class);
    snprintf(l->text, sizeof l->text, "%s", text);
}

/* Sorts the labels by height and moves those that overlap apart, up from the plot's lower edge. */
static void spread_labels(chart *c) {
    for (int i = 1; i < c->labels; i++) {
        chart_label l = c->label[i];
        int j = i;
        for (; j > 0 && c->label[j - 1].y > l.y; j--) c->label[j] = c->label[j - 1];
        c->label[j] = l;
    }
    for (int i = 1; i < c->labels; i++) c->label[i].y = fmax(c->label[i].y, c->label[i - 1].y + label_height);
    double limit = c->height - c->bottom;
    for (int i = c->labels - 1; i >= 0; i--, limit -= label_height)
        c->label[i].y = fmin(c->label[i].y, limit);
}

void chart_labels(chart *c) {
    spread_labels(c);
    for (int i = 0; i < c->labels; i++) {
        double x = c->width - c->right + 8, y = c->label[i].y;
        fprintf(c->out, "<path class=\"%s\" d=\"M%.1f %.1fh%d\"/>", c->label[i].class, x, y,
                CHART_SAMPLE - 5);
        fprintf(c->out, "<text class=\"label %s\" x=\"%.1f\" y=\"%.1f\">", c->label[i].class,
                x + CHART_SAMPLE, y + 4);
        html_text(c->out, c->label[i].text);
        fputs("</text>\n", c->out);
    }
}

void chart_end(chart *c) {
    chart_labels(c);
    fputs("</svg>\n", c->out);
}

/* ---- heat maps ---- */

static int heat_level(double value, double low, double high, int levels) {
    if (!isfinite(value)) return -1;
    double at = high > low ? (value - low) / (high - low) : 0;
    return (int)fmin(fmax(at * levels, 0), levels - 1);
}

void chart_heat(chart *c, const char *class, const char *name, const char *prefix, int levels,
                int64_t columns, int64_t rows, const double *value, double low, double high) {
    c->labels = 0;
    c->log_y = 0;
    c->y0 = 0, c->y1 = (double)rows;
    open_svg(c, class, name);
    double across = c->columns > 0 ? fmin(c->columns, (double)columns) : (double)columns;
    double cell_w = (c->width - c->left - c->right) / across;
    for (int level = 0; level < levels; level++) { /* one path a level, neighbours of one level in one box */
        fprintf(c->out, "<path class=\"%s%d\" d=\"", prefix, level);
        for (int64_t row = 0; row < rows; row++) {
            double top = plot_y(c, (double)row + 1), cell_h = plot_y(c, (double)row) - top;
            for (int64_t from = 0; from < columns; from++) {
                int64_t to = from;
                while (to < columns && heat_level(value[to * rows + row], low, high, levels) == level) to++;
                if (to == from) continue;
                double w = cell_w * (fmin((double)to, across) - (double)from);
                fprintf(c->out, "M%.1f %.1fh%.1fv%.1fh-%.1fz", c->left + cell_w * (double)from, top, w,
                        cell_h, w);
                from = to;
            }
        }
        fputs("\"/>\n", c->out);
    }
    int64_t skip = (int64_t)fmax(1, round_step((double)rows / 7));
    for (int64_t row = 0; row < rows; row += skip)
        fprintf(c->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%lld</text>",
                c->left - 7, plot_y(c, (double)row + 0.5) + 4, (long long)row);
    x_ticks(c);
}
