/* The page around the charts: a headline, the figures that sum the run up, and its sections. */
#include <inttypes.h>
#include <math.h>

#include "launch/memory.h"
#include "train/report_parts.h"
#include "train/stages.h"
#include "train/svg.h"

static void fact(FILE *out, const char *name, double value, const char *format, const char *unit) {
    if (!isfinite(value)) return;
    char text[32];
    if (format) snprintf(text, sizeof text, format, value);
    else number_text(value, 3, text);
    fprintf(out, "<div><dt>%s</dt><dd>%s<small>%s</small></dd></div>\n", name, text, unit);
}

static void facts(FILE *out, const run_data *r) {
    const series *m = &r->metrics;
    char of[48] = "";
    if (r->has_config) snprintf(of, sizeof of, " of %" PRId64, r->c.train.steps);
    fputs("<dl>\n", out);
    fact(out, "Steps", (double)m->last, "%.0f", of);
    fact(out, "Tokens", run_last(m, "tokens"), NULL, "");
    fact(out, "Training loss", series_last(m->bins, r->smooth), "%.3f", "");
    fact(out, "Validation loss", run_held_out(r), "%.3f", "");
    fact(out, "Throughput", run_median(&r->timing, "tokens_per_second"), NULL, " tokens/s");
    double seconds = run_median(&r->timing, "step_seconds") * (double)r->timing.rows;
    if (seconds < 90) fact(out, "Time", seconds, "%.0f", " s");
    else if (seconds < 5400) fact(out, "Time", seconds / 60, "%.1f", " min");
    else fact(out, "Time", seconds / 3600, "%.1f", " h");
    fputs("</dl>\n", out);
}

/* One line on what was trained. */
static void summary(FILE *out, const run_data *r) {
    if (!r->has_config) return;
    const model_config *m = &r->c.model;
    fprintf(out, "<p>%" PRId64 " layers of width %" PRId64 "; %" PRId64 " FFN experts", m->num_layers,
            m->hidden_size, m->n_routed_experts);
    if (m->zero_expert_num) fprintf(out, " and %" PRId64 " identity experts", m->zero_expert_num);
    fprintf(out, ", %" PRId64 " chosen per token; %s; %" PRId64 " tokens a step", m->moe_topk,
            m->moe_input == MOE_SHORTCUT ? "shortcut-connected" : "sequential", stage_tokens(&r->c, 0));
    if (r->c.data.stages) fprintf(out, " in the first of %" PRId64 " stages", r->c.data.stages + 1);
    fputs(".</p>\n", out);
}

/* What console_epsilon warned of, if it did. */
static void epsilon_note(FILE *out, const run_data *r) {
    const column *rms = series_find(&r->metrics, "grad_rms_min");
    double least = INFINITY;
    for (int64_t b = 0; rms && rms->width == 1 && b < r->metrics.bins; b++)
        if (rms->low[b] > 0 && rms->low[b] < least) least = rms->low[b];
    if (!r->has_config || r->c.optim.eps <= 0.01 * least) return;
    fprintf(
        out,
        "<p>optim.eps = %.3g exceeds a hundredth of the smallest group's gradient RMS, which fell to %.3g: "
        "AdamW's updates there shrink with the gradient. A lower optim.eps avoids it.</p>\n",
        r->c.optim.eps, least);
}

static void section(FILE *out, const run_data *r, const char *title,
                    void (*charts)(FILE *, const run_data *)) {
    char *text = NULL;
    size_t size = 0;
    FILE *piece = open_memstream(&text, &size);
    if (!piece) FAULT(EXIT_NO_MEMORY, "no memory for the report");
    charts(piece, r);
    fclose(piece);
    if (size) fprintf(out, "<h2>%s</h2>\n<div class=\"three\">\n%s</div>\n", title, text);
    mem_free(text);
}

void page_begin(FILE *out, const char *title, const char *what) {
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
          out);
    html_text(out, title);
    fprintf(out, ": %s</title>\n<style>\n%s%s</style>\n</head>\n<body>\n<h1>", what, report_chart_style,
            report_page_style);
    html_text(out, title);
    fputs("</h1>\n", out);
}

void page_end(FILE *out) {
    fputs("</body>\n</html>\n", out);
}

void page_write(FILE *out, const void *run) {
    const run_data *r = run;
    page_begin(out, r->name, "training report");
    summary(out, r);
    status_html(out, &r->status, status_clock());
    run_gaps_html(out, r, NULL);
    if (r->metrics.rows == 0) {
        fputs("<h2>No step yet</h2>\n<p>The run has not finished its first step.</p>\n", out);
    } else {
        facts(out, r);
        epsilon_note(out, r);
        if (r->spikes) fputs(r->spikes, out);
        char caption[256];
        charts_loss_caption(r, caption);
        fprintf(out, "<figure><figcaption><p>%s</p></figcaption>\n", caption);
        charts_loss(out, r, 1132, 400, "wide", NULL);
        charts_loss(out, r, 720, 340, "middle", NULL);
        charts_loss(out, r, 380, 280, "narrow", NULL);
        fputs("</figure>\n", out);
        section(out, r, "Learning", charts_learning);
        section(out, r, "Experts", charts_experts);
        section(out, r, "Stability", charts_stability);
        section(out, r, "Speed", charts_speed);
    }
    page_end(out);
}
