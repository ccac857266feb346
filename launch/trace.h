/* A timeline of some steps: what each rank computes, which exchanges are under way meanwhile, and what it
 * waits for.  Written as JSON that chrome://tracing and ui.perfetto.dev open.
 *
 * Where no trace is taken the pointer is NULL, and everything here does nothing.
 */
#ifndef CARACAL_LAUNCH_TRACE_H
#define CARACAL_LAUNCH_TRACE_H

#include <stdint.h>

#include "launch/error.h"

typedef struct trace trace;
struct comm;

/* Rows of a rank's timeline: what it does, one thing inside another; saves of checkpoints; and exchanges,
 * those that are under way together in rows of their own. */
enum { TRACE_COMPUTE, TRACE_SAVE, TRACE_EXCHANGES };

trace *trace_open(void);
void trace_close(trace *t);

/* Seconds on comm_clock; 0 without a trace. */
double trace_begin(const trace *t);
/* A span of TRACE_COMPUTE that began then and ends now.  name: a literal; number: of a layer or a step, -1:
 * none. */
void trace_end(trace *t, const char *name, int64_t number, double began);
/* A wait for an exchange, likewise. */
void trace_wait(trace *t, const char *operation, int64_t layer, double began);
/* A span of any row. */
void trace_span(trace *t, int row, const char *name, int64_t number, double began, double ended);

/* Writes all ranks' spans to one file; times count from the first of them.  Collective. */
int trace_write(const trace *t, struct comm *world, const char *path, error *e);

#endif
