/* The charts of the report.  Each says in a sentence what to look for. */
#include "train/report_parts.h"

#include <inttypes.h>
#include <math.h>

#include "train/svg.h"

enum { SMALL_WIDTH = 380, SMALL_HEIGHT = 220 };

/* ---- a figure's frame ---- */

void figure_begin(FILE *out, const char *title, const char *now, const char *caption) {
    fprintf(out,
            "<figure><figcaption><div class=\"top\"><h3>%s</h3><span class=\"now\">%s</span></div><p>%s</p>"
            "</figcaption>\n",
            title, now, caption);
}

void figure_end(FILE *out) {
    fputs("</figure>\n", out);
}

chart small_chart(FILE *out, const series *s, double right) {
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

/* ---- loss ---- */

static void range_of_loss(const run_data *r, chart *c) {
    const column *loss = series_find(&r->metrics, "lm_loss");
    chart_range(r->metrics.bins, loss->low, &c->y0, &c->y1);
    c->y1 = -INFINITY; /* a single step's spike is drawn at the edge */
    chart_range(r->metrics.bins, r->smooth, &c->y0, &c->y1);
    for (int m = 0; m < r->marks.n; m++) chart_range(1, &r->marks.mark[m].loss, &c->y0, &c->y1);
    if (r->eval.total >= 0) chart_range(r->eval.rows, r->eval.loss[r->eval.total], &c->y0, &c->y1);
    if (!isfinite(c->y0)) c->y0 = 0, c->y1 = 1; /* no finite loss at all */
}

static void validated_text(const run_data *r, char text[96]) {
    char samples[40] = "samples";
    if (r->has_config && r->c.train.eval_samples == 1) snprintf(samples, sizeof samples, "sample");
    else if (r->has_config) snprintf(samples, sizeof samples, "%" PRId64 " samples", r->c.train.eval_samples);
    snprintf(text, 96, "the first %s of each source's held-out text", samples);
}

void charts_loss_caption(const run_data *r, char text[256]) {
    const series *s = &r->metrics;
    char each[64] = "each step", mean[64] = "", samples[96], validation[128] = "";
    if (s->per > 1) snprintf(each, sizeof each, "every %" PRId64 " steps with their range", s->per);
    if (r->half) snprintf(mean, sizeof mean, ", and the mean over %" PRId64, series_window(s, r->half));
    validated_text(r, samples);
    if (r->eval.rows) snprintf(validation, sizeof validation, "; validation: %s", samples);
    snprintf(text, 256, "Training: %s%s%s.", each, mean, validation);
}

void charts_loss(FILE *out, const run_data *r, double width, double height, const char *class,
                 const char *head) {
    const series *s = &r->metrics;
    const column *loss = series_find(s, "lm_loss");
    if (!loss) return;
    chart c = {.out = out,
               .width = width,
               .height = height,
               .left = 54,
               .right = 112 + CHART_SAMPLE,
               .bottom = 26,
               .top = head ? 66 : 12,
               .head = head,
               .x0 = (double)s->first,
               .x1 = (double)s->last,
               .y0 = INFINITY,
               .y1 = -INFINITY,
               .y_name = LOSS_UNIT};
    range_of_loss(r, &c);
    chart_begin(&c, class, "Loss over the steps");
    for (int m = 0; m < r->markers; m++)
        chart_mark(&c, r->marker[m].class, r->marker[m].step, r->marker[m].label);
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
    for (int m = 0; m < r->marks.n; m++) {
        char number[32], label[96];
        number_text(r->marks.mark[m].loss, 4, number);
        snprintf(label, sizeof label, "%s %s", r->marks.mark[m].label, number);
        chart_rule(&c, r->marks.mark[m].loss, label);
    }
    chart_end(&c);
}

/* ---- learning ---- */

static void chart_sources(FILE *out, const run_data *r) {
    const evaluations *v = &r->eval;
    if (v->rows == 0 || v->sources - (v->total >= 0) < 1) return;
    char samples[96], caption[200];
    validated_text(r, samples);
    snprintf(caption, sizeof caption, "Loss on %s, which is never trained on.", samples);
    figure_begin(out, "Validation by source", "", caption);
    chart c = small_chart(out, &r->metrics, 92 + CHART_SAMPLE);
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
        if (v->rows <= 12) chart_dots(&c, class, v->rows, v->step, v->loss[i]);
        snprintf(text, sizeof text, "%.20s %.2f", v->source[i], last);
        chart_label_end(&c, class, last, text);
    }
    chart_end(&c);
    figure_end(out);
}

void chart_value(FILE *out, const series *s, value_chart v) {
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
    c.log_y = chart_wants_log(&c);
    if (v.rule > 0 && v.rule < 3 * c.y1) c.y1 = fmax(c.y1, v.rule);
    chart_begin(&c, "small", v.title);
    chart_band(&c, "band", s->bins, s->step, y->low, y->high);
    chart_line(&c, "train", s->bins, s->step, y->mean);
    if (v.rule_label && v.rule > c.y0 && v.rule <= c.y1) chart_rule(&c, v.rule, v.rule_label);
    chart_end(&c);
    figure_end(out);
}

/* The auxiliary head guesses the token after next; what it guesses is what the model itself says there. */
static void chart_acceptance(FILE *out, const run_data *r) {
    const evaluations *v = &r->eval;
    double last = series_last(v->rows, v->accepted);
    if (!isfinite(last)) return;
    char now[32];
    snprintf(now, sizeof now, "now %.1f%%", 100 * last);
    figure_begin(
        out, "MTP acceptance", now,
        "How often the MTP head's choice is the token that the model then chooses, on held-out text.");
    chart c = small_chart(out, &r->metrics, 8);
    c.y0 = 0;
    chart_range(v->rows, v->accepted, &c.y0, &c.y1);
    chart_begin(&c, "small", "MTP acceptance over the steps");
    chart_line(&c, "valid", v->rows, v->step, v->accepted);
    if (v->rows <= 60) chart_dots(&c, "valid", v->rows, v->step, v->accepted);
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
    chart_acceptance(out, r);
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
