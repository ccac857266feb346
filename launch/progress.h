/* How far a command is that may run for minutes: a line on stderr, where that is a terminal, from the first
 * second on and twice in each. */
#ifndef CARACAL_LAUNCH_PROGRESS_H
#define CARACAL_LAUNCH_PROGRESS_H

#include <stddef.h>

typedef struct progress {
    const char *what, *unit;
    double all, begun, shown;
    int watched, open; /* is anybody there; does a line stand */
} progress;

/* Of `all` units: progress_begin("writing tokens", "MB", 412). */
progress progress_begin(const char *what, const char *unit, double all);
void progress_at(progress *p, double done);
/* Takes the line away: what is printed next begins in its place. */
void progress_end(progress *p);
/* The line after so many seconds: "writing tokens: 37% of 412 MB, ETA 12s". */
void progress_text(char *text, size_t size, const progress *p, double done, double seconds);

/* "7s", "3m05s", "2h07m", to text [32]; returns text. */
const char *progress_duration(char *text, double seconds);

#endif
