/* What of a run's files is not there or cannot be read: nothing is left out of a page without a word. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "train/run_data.h"
#include "train/svg.h"

typedef struct teller {
    run_gap *line;
    void *to;
    int told;
} teller;

static void tell(teller *t, const char *text) {
    t->line(t->to, text);
    t->told++;
}

static void config_gap(teller *t, const run_data *r) {
    static const char missing[] = "what was trained, and what it cost in FLOPs, is left out";
    char text[2048];
    if (r->has_config) return;
    if (r->unreadable)
        snprintf(text, sizeof text, "config.yaml cannot be used: %s; %s", r->unreadable, missing);
    else snprintf(text, sizeof text, "config.yaml is not there: %s", missing);
    tell(t, text);
}

/* A run that goes on may just be writing its last line. */
static void log_gap(teller *t, const run_data *r, const jsonl *log, const char *name, int expected,
                    const char *missing) {
    char text[256];
    if (!log->file && expected) {
        snprintf(text, sizeof text, "%s is not there: %s", name, missing);
        tell(t, text);
    }
    if (log->broken) {
        snprintf(text, sizeof text, "%s: %" PRId64 " damaged line%s left out", name, log->broken,
                 log->broken == 1 ? " is" : "s are");
        tell(t, text);
    }
    if (log->cut && (r->status.state != RUN_RUNNING || status_lost(&r->status, status_clock()))) {
        snprintf(text, sizeof text, "%s: its last line is cut off, and left out", name);
        tell(t, text);
    }
}

/* Has a validation been due, as far as is known? */
static int validated(const run_data *r) {
    int held_out = 0;
    if (!r->has_config) return 0;
    for (int64_t i = 0; i < r->c.data.sources; i++) held_out |= r->c.data.source[i].valid != NULL;
    return held_out && ((r->c.train.eval_every && r->metrics.last >= r->c.train.eval_every) ||
                        r->metrics.last >= r->c.train.steps);
}

int run_gaps(const run_data *r, run_gap *line, void *to) {
    teller t = {line, to, 0};
    config_gap(&t, r);
    log_gap(&t, r, &r->metrics_log, "metrics.jsonl", r->timing.rows || r->eval.rows, "losses are left out");
    log_gap(&t, r, &r->timing_log, "timing.jsonl", r->metrics.rows > 0, "speeds are left out");
    log_gap(&t, r, &r->eval_log, "eval.jsonl", validated(r), "held-out losses are left out");
    return t.told;
}

static void gap_to_stderr(void *to, const char *text) {
    const run_data *r = to;
    notice("%s: %s", r->directory, text);
}

void run_tell_gaps(const run_data *r) {
    run_gaps(r, gap_to_stderr, (void *)r);
}

typedef struct page_gap {
    FILE *out;
    const char *name;
} page_gap;

static void gap_to_page(void *to, const char *text) {
    const page_gap *p = to;
    fputs("<p class=\"warning\">", p->out);
    if (p->name) html_text(p->out, p->name), fputs(": ", p->out);
    html_text(p->out, text);
    fputs(".</p>\n", p->out);
}

void run_gaps_html(FILE *out, const run_data *r, const char *name) {
    page_gap p = {out, name};
    run_gaps(r, gap_to_page, &p);
}
