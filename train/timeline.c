#include "train/timeline.h"

#include <stdio.h>
#include <stdlib.h>

int timeline_read(timeline *t, const char *steps, error *e) {
    char *end;
    *t = (timeline){0};
    t->first = t->last = strtoll(steps, &end, 10);
    if (end != steps && *end == '-') {
        const char *second = end + 1;
        t->last = strtoll(second, &end, 10);
        if (end == second) end = (char *)second - 1;
    }
    if (end == steps || *end || t->first < 1 || t->last < t->first || t->last - t->first > 99)
        return error_set(
            e, EXIT_USAGE,
            "--trace=%s: must be a step, as in 7, or some steps, as in 7-9: counted from 1, and no more "
            "than 100",
            steps);
    return 0;
}

void timeline_before(timeline *t, comm *world, int64_t step) {
    if (t->taken || !t->first || step < t->first || step > t->last) return;
    t->taken = trace_open();
    comm_set_trace(world, t->taken);
}

void timeline_after(timeline *t, comm *world, int64_t step, int ends, const char *dir) {
    char path[4096];
    error e = {0};
    if (!t->taken || (step < t->last && !ends)) return;
    comm_set_trace(world, NULL);
    snprintf(path, sizeof path, "%s/trace-%lld-%lld.json", dir, (long long)t->first, (long long)t->last);
    trace_write(t->taken, world, path, &e);
    if (comm_rank(world) == 0)
        fprintf(e.code ? stderr : stdout, e.code ? "caracal: no trace: %s\n" : "trace     %s\n",
                e.code ? e.text : path);
    trace_close(t->taken);
    *t = (timeline){0};
}
