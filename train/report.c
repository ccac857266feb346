#include "train/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/memory.h"
#include "launch/options.h"
#include "train/report_parts.h"
#include "train/svg.h"
#include "train/whole_file.h"

/* ---- writing ---- */

static void loss_picture(FILE *out, const void *run) {
    const run_data *r = run;
    char *head = NULL, caption[256];
    size_t size = 0;
    FILE *piece = open_memstream(&head, &size);
    if (!piece) FAULT(EXIT_NO_MEMORY, "no memory for the report");
    fprintf(piece, "<style>\n%s</style>\n<rect class=\"paper\" width=\"100%%\" height=\"100%%\"/>\n",
            report_chart_style);
    fputs("<text class=\"head\" x=\"16\" y=\"28\">", piece);
    html_text(piece, r->name);
    charts_loss_caption(r, caption);
    fprintf(piece, ": loss over the steps</text>\n<text class=\"tick\" x=\"16\" y=\"46\">%s</text>\n",
            caption);
    fclose(piece);
    charts_loss(out, r, 800, 420, "alone", head);
    mem_free(head);
}

int report_page(const run_data *r, error *e) {
    char path[4200];
    snprintf(path, sizeof path, "%s/report.html", r->directory);
    return whole_file(path, page_write, r, e);
}

int report_picture(const run_data *r, error *e) {
    char path[4200];
    if (!series_find(&r->metrics, "lm_loss")) return 0;
    snprintf(path, sizeof path, "%s/loss.svg", r->directory);
    return whole_file(path, loss_picture, r, e);
}

int report_write(const char *run_dir, const report_marks *marks, error *e) {
    run_data r;
    int code = run_read(&r, run_dir, NULL, e);
    if (!code) run_tell_gaps(&r);
    if (marks) r.marks = *marks;
    if (!code) code = report_page(&r, e);
    if (!code) code = report_picture(&r, e);
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
    if (!e.code && !run_expected(o.word[0], &e) && !report_write(o.word[0], &marks, &e))
        printf("%s/report.html\n", o.word[0]);
    return error_print(&e);
}
