#include "launch/progress.h"

#include <math.h>
#include <stdio.h>

#include "launch/comm.h"
#include "launch/error.h"

const char *progress_duration(char *text, double seconds) {
    long s = seconds > 0 ? (long)(fmin(seconds, 1e15) + 0.5) : 0;
    if (s < 60) snprintf(text, 32, "%lds", s);
    else if (s < 3600) snprintf(text, 32, "%ldm%02lds", s / 60, s % 60);
    else snprintf(text, 32, "%ldh%02ldm", s / 3600, s / 60 % 60);
    return text;
}

void progress_text(char *text, size_t size, const progress *p, double done, double seconds) {
    char left[32];
    const double part = p->all > 0 ? fmin(done / p->all, 1) : 1;
    const int n = snprintf(text, size, "%s: %.0f%% of %.0f %s", p->what, floor(100 * part), p->all, p->unit);
    if (part > 0 && n > 0 && (size_t)n < size)
        snprintf(text + n, size - (size_t)n, ", ETA %s",
                 progress_duration(left, seconds * (1 - part) / part));
}

progress progress_begin(const char *what, const char *unit, double all) {
    const double now = comm_clock();
    return (progress){.what = what,
                      .unit = unit,
                      .all = all,
                      .begun = now,
                      .shown = now + 0.5,
                      .watched = messages_on_terminal()};
}

void progress_at(progress *p, double done) {
    char text[160];
    if (!p->watched) return;
    const double now = comm_clock();
    if (now - p->shown < 0.5) return;
    p->shown = now;
    p->open = 1;
    progress_text(text, sizeof text, p, done, now - p->begun);
    fprintf(stderr, "\r\033[K%s", text);
    fflush(stderr);
}

void progress_end(progress *p) {
    if (p->open) fputs("\r\033[K", stderr);
    p->open = 0;
}
