#include "train/live.h"

#include <math.h>
#include <stdio.h>

#include "launch/comm.h"
#include "launch/memory.h"
#include "train/report_parts.h"

struct live {
    run_data run;
    int failing;    /* it was said that nothing can be written */
    double written; /* comm_clock() of the last time */
    double cost;    /* seconds that it took */
    double longest; /* seconds from one time to the next, after the first step */
};

/* Seldom enough that it costs less than 1% of the run, whatever the file system. */
static double interval(const live *l) {
    return fmax(5, 100 * l->cost);
}

static int write_files(live *l, int last) {
    error e = {0};
    run_status *s = &l->run.status;
    double now = comm_clock();
    s->at = status_clock();
    s->every = interval(l);
    /* a validation or a checkpoint may last a few times as long as what was longest so far */
    s->patience = l->longest > 0 ? 60 + 5 * l->longest : 600;
    run_update(&l->run);
    if (!status_write(s, l->run.directory, &e) && !report_page(&l->run, &e) && last)
        report_picture(&l->run, &e);
    if (e.code && !l->failing) notice("%s; training goes on", e.text);
    l->failing = e.code != 0;
    l->written = comm_clock();
    l->cost = l->written - now;
    return e.code;
}

live *live_open(const char *run_dir, int64_t step, int64_t steps) {
    error e = {0};
    live *l = mem_alloc(sizeof *l, "the report");
    if (run_read(&l->run, run_dir, NULL, &e)) notice("%s; there is no report", e.text);
    if (e.code) {
        run_free(&l->run);
        mem_free(l);
        return NULL;
    }
    l->run.status = (run_status){.state = RUN_RUNNING, .step = step, .steps = steps, .left = NAN};
    l->written = comm_clock();
    write_files(l, 0);
    return l;
}

void live_step(live *l, int64_t step, double left) {
    if (!l) return;
    run_status *s = &l->run.status;
    double since = comm_clock() - l->written;
    int first = isnan(s->left); /* whoever waits for the run to begin sees that it has */
    s->step = step;
    s->left = left;
    if (!first && since < interval(l)) return;
    if (!first) l->longest = fmax(l->longest, since);
    write_files(l, 0);
}

int live_close(live *l, int64_t step, int state, const char *why) {
    if (!l) return EXIT_IO;
    run_status *s = &l->run.status;
    s->step = step;
    s->state = state;
    snprintf(s->why, sizeof s->why, "%s", why ? why : "");
    int code = write_files(l, 1);
    run_free(&l->run);
    mem_free(l);
    return code;
}
