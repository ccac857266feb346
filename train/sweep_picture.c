/* Loss over the first key of a sweep, one curve for each value of the second, or for each of several sweeps;
 * panels side by side share the loss axis. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/files.h"
#include "launch/memory.h"
#include "train/report_parts.h"
#include "train/series.h"
#include "train/svg.h"
#include "train/sweep_results.h"
#include "train/whole_file.h"

enum { CURVES = 6, PANELS = 6 }; /* as many curves as there are colours */
enum { HEIGHT = 420, KEY = 20 }; /* of the plots, and of a line below them */

typedef struct curve {
    char label[112];
    int64_t n;
    double *x, *y; /* [n], ascending x; y is NaN where every trial diverged */
    int scattered; /* of many values of the second key: dots without a line */
} curve;

typedef struct panel {
    char *title;
    int curves;
    curve curve[CURVES];
    char x_name[64];
    int64_t trials;
} panel;

typedef struct picture {
    int panels;
    panel panel[PANELS];
    double x0, x1, y0, y1;
    int above, diverged; /* whether a loss is above y1, and whether there is none */
} picture;

/* ---- from results to curves ---- */

static int by_x(const void *a, const void *b) {
    const sweep_result *x = a, *y = b;
    double p = x->value[0], q = y->value[0];
    return p != q ? (p > q) - (p < q) : (x->trial > y->trial) - (x->trial < y->trial);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The trials whose second value lies in [low, high]; of those with one x the best. */
static void make_curve(curve *c, const sweep_results *r, double low, double high) {
    sweep_result *sorted = mem_alloc((size_t)r->n * sizeof *sorted, "a curve");
    c->x = mem_alloc((size_t)r->n * sizeof *c->x, "a curve");
    c->y = mem_alloc((size_t)r->n * sizeof *c->y, "a curve");
    memcpy(sorted, r->result, (size_t)r->n * sizeof *sorted);
    qsort(sorted, (size_t)r->n, sizeof *sorted, by_x);
    for (int64_t i = 0; i < r->n; i++) {
        const sweep_result *t = &sorted[i];
        if (r->axes > 1 && !(t->value[1] >= low && t->value[1] <= high)) continue;
        if (!c->n || t->value[0] != c->x[c->n - 1]) {
            c->x[c->n] = t->value[0];
            c->y[c->n++] = NAN;
        }
        if (isfinite(t->loss))
            c->y[c->n - 1] = fmin(t->loss, isfinite(c->y[c->n - 1]) ? c->y[c->n - 1] : t->loss);
    }
    mem_free(sorted);
}

static const char *leaf(const char *key) {
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

/* One sweep: a curve for each value of the second key; many values are gathered in groups of equal size. */
static void add_values(panel *p, const sweep_results *r) {
    double *value = mem_alloc((size_t)r->n * sizeof *value, "values");
    int64_t n = 0;
    for (int64_t i = 0; i < r->n; i++) value[i] = r->axes > 1 ? r->result[i].value[1] : 0;
    qsort(value, (size_t)r->n, sizeof *value, ascending);
    for (int64_t i = 0; i < r->n; i++)
        if (!n || value[i] != value[n - 1]) value[n++] = value[i];
    int groups = n <= CURVES ? (int)n : 4;
    for (int g = 0; g < groups; g++) {
        double low = value[g * n / groups], high = value[(g + 1) * n / groups - 1];
        curve *c = &p->curve[p->curves++];
        char from[32], to[32];
        number_text(low, 3, from);
        number_text(high, 3, to);
        if (r->axes < 2) snprintf(c->label, sizeof c->label, "%.40s", r->name);
        else
            snprintf(c->label, sizeof c->label, "%.30s %s%s%s", leaf(r->key[1]), from,
                     low < high ? " - " : "", low < high ? to : "");
        c->scattered = low < high;
        make_curve(c, r, low, high);
    }
    mem_free(value);
}

static int add_sweep(panel *p, const char *dir, int alone, error *e) {
    sweep_results r;
    if (sweep_results_read(&r, dir, e)) return e->code;
    if (!p->trials) snprintf(p->x_name, sizeof p->x_name, "%s", r.key[0]);
    if (strcmp(p->x_name, r.key[0])) {
        error_set(e, EXIT_USAGE, "%s: is a sweep over %s, the one before over %s", dir, r.key[0], p->x_name);
    } else if (!alone && p->curves == CURVES) {
        error_set(e, EXIT_USAGE, "%s: a panel has at most %d sweeps", dir, CURVES);
    } else if (alone) {
        add_values(p, &r);
    } else {
        curve *c = &p->curve[p->curves++];
        snprintf(c->label, sizeof c->label, "%.40s", r.name);
        make_curve(c, &r, -INFINITY, INFINITY);
    }
    p->trials += r.n;
    sweep_results_free(&r);
    return e->code;
}

/* [TITLE=]DIR[,DIR...] */
static int read_panel(panel *p, const char *said, error *e) {
    const char *equals = strchr(said, '='), *list = equals ? equals + 1 : said;
    int alone = !strchr(list, ',');
    p->title = equals ? text_of("%.*s", (int)(equals - said), said) : NULL;
    for (const char *at = list;; at++) {
        size_t n = strcspn(at, ",");
        char *dir = text_of("%.*s", (int)n, at);
        int code = add_sweep(p, dir, alone, e);
        mem_free(dir);
        if (code) return code;
        at += n;
        if (!*at) break;
    }
    if (!p->title) p->title = text_of("Loss of %" PRId64 " trials", p->trials);
    return 0;
}

/* ---- drawing ---- */

/* All losses, but for those so far above that they would flatten the rest: an arrow points to them. */
static void find_ranges(picture *f) {
    double *all = NULL;
    int64_t n = 0;
    f->x0 = f->y0 = INFINITY;
    f->x1 = f->y1 = -INFINITY;
    for (int p = 0; p < f->panels; p++)
        for (int i = 0; i < f->panel[p].curves; i++) {
            const curve *c = &f->panel[p].curve[i];
            chart_range(c->n, c->x, &f->x0, &f->x1);
            chart_range(c->n, c->y, &f->y0, &f->y1);
            all = mem_grow(all, (size_t)(n + c->n) * sizeof *all, "losses");
            memcpy(all + n, c->y, (size_t)c->n * sizeof *all);
            n += c->n;
        }
    for (int64_t i = 0; i < n; i++) f->diverged |= !isfinite(all[i]);
    double most = f->y0 + 4 * (series_quantile(n, all, 0.5) - f->y0);
    f->above = f->y1 > most && most > f->y0;
    if (f->above) f->y1 = most;
    if (!isfinite(f->y0)) f->y0 = 0, f->y1 = 1;
    mem_free(all);
}

static void draw_curve(chart *c, const curve *v, int color, double most) {
    char class[16];
    double *seen = mem_alloc((size_t)v->n * sizeof *seen, "a curve");
    int64_t best = -1;
    snprintf(class, sizeof class, "c%d", color);
    for (int64_t i = 0; i < v->n; i++) {
        seen[i] = v->y[i] <= most ? v->y[i] : NAN;
        if (!isfinite(seen[i])) chart_symbol(c, class, isfinite(v->y[i]) ? '^' : 'x', v->x[i], most);
        else if (best < 0 || seen[i] < seen[best]) best = i;
    }
    if (!v->scattered) chart_line(c, class, v->n, v->x, seen);
    chart_dots(c, class, v->n, v->x, seen);
    if (best >= 0) {
        chart_symbol(c, class, 'o', v->x[best], seen[best]);
        char kind[24];
        snprintf(kind, sizeof kind, "%s%s", class, v->scattered ? " dots" : "");
        chart_label_end(c, kind, series_last(v->n, seen), v->label);
    }
    mem_free(seen);
}

/* A title at the panel's left, and its curves. */
static void draw_panel(chart *c, const panel *p, double most) {
    fprintf(c->out, "<text class=\"head\" x=\"%.1f\" y=\"28\">", c->left);
    html_text(c->out, p->title);
    fputs("</text>\n", c->out);
    chart_axes(c);
    for (int i = 0; i < p->curves; i++) draw_curve(c, &p->curve[i], i, most);
    chart_labels(c);
}

/* What the symbols say. */
static void draw_key(FILE *out, const picture *f) {
    char most[32];
    number_text(f->y1, 4, most);
    fprintf(out, "<text class=\"tick\" x=\"16\" y=\"%d\">Ring: the best of a curve.", HEIGHT + 10);
    if (f->diverged) fputs(" Cross: diverged.", out);
    if (f->above) fprintf(out, " Arrow: ended above %s, the best + 4 x (median - best).", most);
    fputs("</text>\n", out);
}

static void draw(FILE *out, const void *data) {
    const picture *f = data;
    double panel = f->panels > 1 ? 480 : 800, width = panel * f->panels;
    int log = f->x0 > 0 && f->x1 > 5 * f->x0;
    size_t label = 0;
    for (int p = 0; p < f->panels; p++)
        for (int i = 0; i < f->panel[p].curves; i++)
            label = label > strlen(f->panel[p].curve[i].label) ? label : strlen(f->panel[p].curve[i].label);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %d\" role=\"img\">"
            "<title>Loss over ",
            width, HEIGHT + KEY);
    html_text(out, f->panel[0].x_name);
    fputs("</title>\n<style>", out);
    report_paper_style(out);
    fputs("</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n", out);
    for (int p = 0; p < f->panels; p++) {
        double room = 16 + CHART_SAMPLE + 6.8 * (double)label;
        chart c = {.out = out,
                   .width = width,
                   .height = HEIGHT,
                   .left = panel * p + 54,
                   .right = width - panel * (p + 1) + room,
                   .top = 52,
                   .bottom = 46,
                   .x0 = f->x0,
                   .x1 = f->x1,
                   .y0 = f->y0,
                   .y1 = f->y1,
                   .x_name = f->panel[p].x_name,
                   .y_name = LOSS_UNIT,
                   .x_scale = log ? CHART_X_LOG : CHART_X_VALUE};
        draw_panel(&c, &f->panel[p], f->y1);
    }
    draw_key(out, f);
    fputs("</svg>\n", out);
}

int sweep_picture(const char *path, int panels, char *const *panel, error *e) {
    picture *f = mem_alloc(sizeof *f, "a picture");
    e->code = 0;
    if (panels > PANELS) error_set(e, EXIT_USAGE, "--picture: at most %d panels", PANELS);
    for (int p = 0; p < panels && !e->code; p++, f->panels++) read_panel(&f->panel[p], panel[p], e);
    if (!e->code) {
        find_ranges(f);
        whole_file(path, draw, f, e);
    }
    for (int p = 0; p < f->panels; p++) {
        mem_free(f->panel[p].title);
        for (int i = 0; i < f->panel[p].curves; i++) {
            mem_free(f->panel[p].curve[i].x);
            mem_free(f->panel[p].curve[i].y);
        }
    }
    mem_free(f);
    return e->code;
}
