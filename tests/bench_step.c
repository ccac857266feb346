/* Where the time of a training step goes: each operation's share, and how near its calls come to the
 * limit that binds them, which is the larger of their FLOPs at the peak of multiply-adds and their bytes at
 * the rate of a copy.  What lies in a cache already may beat the second. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "launch/memory.h"
#include "tests/bench.h"
#include "tests/timed.h"
#include "train/session.h"
#include "train/step.h"

enum { SETTLE = 32, TIMED_STEPS = 16 }; /* steps until the router keeps its budget, and then */

/* One rank has all samples of a step. */
static double step(session *x, step_result *r, int32_t *tokens) {
    state *s = &x->s;
    const train_config *c = &s->c.train;
    for (int64_t i = 0; i < c->micro_batches * c->micro_batch_size; i++)
        loader_sample(x->train, 0, s->position + i, tokens + i * (c->seq_len + 2));
    const double began = comm_clock();
    step_run(s, tokens, r);
    return comm_clock() - began;
}

static int longest_first(const void *a, const void *b) {
    const double x = ((const timed_figure *)a)->seconds, y = ((const timed_figure *)b)->seconds;
    return (x < y) - (x > y);
}

static void add_entry(json_t *list, const char *what, double calls, double seconds, double flops,
                      double bytes) {
    json_array_append_new(list, json_pack("{ss sf sf sf sf}", "op", what, "calls", calls / TIMED_STEPS, "ms",
                                          1e3 * seconds / TIMED_STEPS, "gflop", 1e-9 * flops / TIMED_STEPS,
                                          "mbyte", 1e-6 * bytes / TIMED_STEPS));
}

static void time_steps(bench *b, session *x) {
    const train_config *c = &x->c.train;
    step_result r;
    step_result_create(&r, &x->c.model);
    int32_t *tokens = mem_alloc(
        (size_t)(c->micro_batches * c->micro_batch_size * (c->seq_len + 2)) * sizeof *tokens, "tokens");
    for (int i = 0; i < SETTLE; i++) step(x, &r, tokens);
    double seconds = 0, known = 0, flops = 0, bytes = 0;
    timed_reset(&x->s.k);
    for (int i = 0; i < TIMED_STEPS; i++) {
        bench_limits(b);
        seconds += step(x, &r, tokens);
    }
    timed_figure *f = timed_figures(&x->s.k);
    int n = 0;
    while (f[n].operation) n++;
    qsort(f, (size_t)n, sizeof *f, longest_first);
    json_t *list = json_array();
    for (; f->operation; f++) {
        add_entry(list, f->operation, (double)f->calls, f->seconds, f->flops, f->bytes);
        known += f->seconds, flops += f->flops, bytes += f->bytes;
    }
    add_entry(list, "between operations", 0, seconds - known, 0, 0);
    add_entry(list, "the step", 0, seconds, flops, bytes);
    json_object_set_new(b->root, "roofline", list);
    step_result_destroy(&r);
    mem_free(tokens);
}

int bench_roofline(bench *b, const char *config, error *e) {
    comm *world;
    session x;
    char threads[64], isa[64];
    char *overrides[] = {threads, isa, "--checkpoint.every=0"};
    snprintf(threads, sizeof threads, "--parallel.threads=%d", b->threads[b->variants - 1]);
    snprintf(isa, sizeof isa, "--isa=%s", b->isa);
    if (comm_open(&world, 600, e)) return e->code;
    if (!session_open_on(&x, world, config, 3, overrides, SESSION_TRAIN, e)) {
        state_initialise(&x.s);
        timed_open(&x.s.k);
        if (!sdc_open(&x.s, e)) {
            time_steps(b, &x);
            sdc_close(&x.s);
        }
        timed_close(&x.s.k);
        session_close(&x);
    }
    comm_close(world);
    return e->code;
}

void bench_roofline_finish(const bench *b) {
    const double peak = b->peak[DTYPE_FLOAT32][b->variants - 1], copy = b->copy[b->variants - 1];
    json_t *list = json_object_get(b->root, "roofline"), *entry;
    const json_t *whole = json_array_get(list, json_array_size(list) - 1);
    size_t i;
    if (!whole) return;
    printf("\n%-20s %9s %9s %9s %9s %9s %9s\n", "of a step", "calls", "GFLOP", "MB", "ms", "% of time",
           "% of limit");
    json_array_foreach(list, i, entry) {
        const double flops = 1e9 * json_real_value(json_object_get(entry, "gflop")),
                     bytes = 1e6 * json_real_value(json_object_get(entry, "mbyte")),
                     ms = json_real_value(json_object_get(entry, "ms")),
                     share = ms / json_real_value(json_object_get(whole, "ms")),
                     least = fmax(flops / peak, bytes / copy);
        const int computes = flops / peak >= bytes / copy;
        printf("%-20s %9.0f %9.3f %9.1f %9.3f %8.1f%% ", json_string_value(json_object_get(entry, "op")),
               json_real_value(json_object_get(entry, "calls")), 1e-9 * flops, 1e-6 * bytes, ms, 100 * share);
        json_object_set_new(entry, "share", json_real(share));
        if (least > 0) {
            json_object_set_new(entry, "limit", json_string(computes ? "multiply-adds" : "copy"));
            json_object_set_new(entry, "fraction", json_real(1e3 * least / ms));
            printf("%8.1f%% of %s", 1e5 * least / ms, computes ? "multiply-adds" : "copying");
        }
        printf("\n");
    }
}
