/* What a person sees while a run is on: a progress line with ETA on a terminal, plain lines otherwise. */
#ifndef CARACAL_TRAIN_CONSOLE_H
#define CARACAL_TRAIN_CONSOLE_H

#include "train/evaluate.h"
#include "train/metrics.h"
#include "train/session.h"

typedef struct console_moment {
    double at; /* comm_clock */
    int64_t step;
} console_moment;

typedef struct console {
    int terminal, line_open, epsilon_told, ratio_told;
    int64_t ratio_steps; /* in a row that some layer's R_g was above its limit */
    double last;         /* comm_clock: of the last line */
    int64_t first_step;
    console_moment since, next; /* what the time left is reckoned from now, and will be later */
} console;

/* mpirun gives every rank a terminal of its own; whether there is a person behind it, launch/run says. */
int console_on_terminal(void);
console console_open(int64_t first_step);
/* The run went back: time left is reckoned from here on. */
void console_restart(console *o, int64_t first_step);
/* The run in a few lines: model, ranks, memory. */
void console_header(const session *x);
/* A stage of data.stages (1 and on) in a line; the caller frees it (mem_free). */
char *console_stage(const config *c, int64_t stage);
/* Seconds to the end of the run, at the speed of the last one or two hundred steps, or twice as many as there
 * are between validations: after at least one step. */
double console_left(console *o, const state *s);
void console_step(console *o, const state *s, const step_result *r, const step_timing *t);
/* Warns, once a run, when AdamW's eps exceeds a hundredth of the smallest group's gradient RMS: from there on
 * that group's updates depend on the gradient's scale.  A group without any gradient is no reason to. */
void console_epsilon(console *o, const state *s, const step_result *r);
/* Warns, once a run, when R_g was above router.grad_ratio_limit in some layer for 50 steps without a break:
 * it is large at first, while the language loss has not found the router. */
void console_grad_ratio(console *o, const state *s, const step_result *r);
void console_eval(console *o, const state *s, const held_out *out, double seconds);
/* Ends an open progress line and prints a line of its own. */
void console_line(console *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Bytes and counts as people write them: "1.5 GiB", "20.5 M".  text has room for 32. */
const char *console_bytes(char *text, double bytes);
const char *console_count(char *text, double count);

#endif
