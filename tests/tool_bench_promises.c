/* What promise 3 costs: one training step with parallel.rank_invariant true and false.
 *
 *   mpirun -np 2 bench_promises CONFIG ROUNDS [--section.key=value ...]
 *
 * Two states live in one process and take turns, step by step (with, without, without, with), on the same
 * real text, so that whatever else the machine does falls on both.  A round's ratio is that of its two steps
 * with and its two steps without; the cost is the median of the rounds' ratios.  Rank 0 prints one line. */
#include <stdio.h>
#include <stdlib.h>

#include "data/tokenizer.h"
#include "launch/memory.h"
#include "train/step.h"

enum { WITH, WITHOUT, SIDES, PER_ROUND = 4, WARM_UP = 2 };

typedef struct side {
    config c;
    state s;
    step_result r;
    double *seconds; /* of every step */
    int64_t steps;
} side;

static void open_side(side *x, int which, const char *path, int options, char **option, comm *world) {
    error e = {0};
    tokenizer *t;
    char *all[64];
    REQUIRE(options < 63);
    for (int i = 0; i < options; i++) all[i] = option[i];
    all[options] = which == WITH ? "--parallel.rank_invariant=true" : "--parallel.rank_invariant=false";
    if (config_load(&x->c, path, options + 1, all, &e) || tokenizer_open(&t, x->c.data.tokenizer, &e) ||
        state_create(&x->s, &x->c, world, tokenizer_eos(t), 1, &e))
        FAULT(e.code, "%s", e.text);
    tokenizer_close(t);
    state_initialise(&x->s);
    if (sdc_open(&x->s, &e)) FAULT(e.code, "%s", e.text);
    step_result_create(&x->r, &x->c.model);
}

static void close_side(side *x) {
    step_result_destroy(&x->r);
    sdc_close(&x->s);
    state_destroy(&x->s);
    config_free(&x->c);
    mem_free(x->seconds);
}

/* This rank's micro-batches of a step, as the trainer loads them. */
static void load_tokens(const loader *l, const state *s, int32_t *to) {
    const train_config *c = &s->c.train;
    for (int64_t turn = 0; turn < s->mesh.turns; turn++)
        for (int64_t b = 0; b < c->micro_batch_size; b++, to += c->seq_len + 2)
            loader_sample(
                l, 0, s->position + mesh_micro_batch(&s->mesh, turn, s->mesh.rank) * c->micro_batch_size + b,
                to);
}

/* Seconds of the slowest rank. */
static double timed_step(side *x, const loader *l, int32_t *tokens) {
    comm *world = x->s.mesh.world;
    load_tokens(l, &x->s, tokens);
    comm_barrier(world, "start of a step");
    double began = comm_clock();
    step_run(&x->s, tokens, &x->r);
    double seconds = (double)comm_max_i64(world, "seconds", (int64_t)((comm_clock() - began) * 1e9)) * 1e-9;
    if (!x->r.finite) FAULT(EXIT_NONFINITE, "loss or norm is not finite");
    x->seconds[x->steps++] = seconds;
    return seconds;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
/* The value below which `part` of x [n] lie; sorts x. */
static double quantile(double *x, int64_t n, double part) {
    qsort(x, (size_t)n, sizeof *x, ascending);
    return x[(int64_t)(part * (double)(n - 1) + 0.5)];
}

static void print_line(side *x, double *ratio, int64_t rounds) {
    const config *c = &x[WITH].c;
    double middle[SIDES], best[SIDES];
    for (int i = 0; i < SIDES; i++) {
        middle[i] = quantile(x[i].seconds, x[i].steps, 0.5);
        best[i] = x[i].seconds[0];
    }
    double low = quantile(ratio, rounds, 0.25), cost = quantile(ratio, rounds, 0.5),
           high = quantile(ratio, rounds, 0.75);
    int64_t rows = c->train.micro_batch_size * c->train.seq_len;
    printf("| %d | %lld | %lld | %.1f | %.1f | **%+.1f%%** | %+.1f%% .. %+.1f%% | %.1f | %.1f | %+.1f%% |\n",
           x->s.mesh.ranks, (long long)c->train.micro_batches, (long long)rows, 1e3 * middle[WITH],
           1e3 * middle[WITHOUT], 100 * (cost - 1), 100 * (low - 1), 100 * (high - 1), 1e3 * best[WITH],
           1e3 * best[WITHOUT], 100 * (best[WITH] / best[WITHOUT] - 1));
}

int main(int argc, char **argv) {
    static const int order[PER_ROUND] = {WITH, WITHOUT, WITHOUT, WITH};
    error e = {0};
    comm *world;
    side x[SIDES] = {0};
    loader *l;
    int64_t rounds = argc > 2 ? atoll(argv[2]) : 0;
    if (rounds < 1) FAULT(EXIT_USAGE, "usage: bench_promises CONFIG ROUNDS [--section.key=value ...]");
    if (comm_open(&world, 600, &e)) FAULT(e.code, "%s", e.text);
    for (int i = 0; i < SIDES; i++) {
        open_side(&x[i], i, argv[1], argc - 3, argv + 3, world);
        x[i].seconds = mem_alloc((size_t)(2 * (WARM_UP + rounds)) * sizeof(double), "times");
    }
    const config *c = &x->c;
    if (loader_open(&l, &c->data, 0, c->train.seq_len, c->model.vocab_size, (uint64_t)c->train.seed, &e))
        FAULT(e.code, "%s", e.text);
    int64_t row = c->train.micro_batch_size * (c->train.seq_len + 2);
    int32_t *tokens = mem_alloc((size_t)(x->s.mesh.turns * row) * sizeof *tokens, "tokens");
    double *ratio = mem_alloc((size_t)rounds * sizeof *ratio, "ratios");

    for (int64_t i = -WARM_UP; i < rounds; i++) {
        double sum[SIDES] = {0};
        if (i == 0) x[WITH].steps = x[WITHOUT].steps = 0;
        for (int k = 0; k < PER_ROUND; k++) sum[order[k]] += timed_step(&x[order[k]], l, tokens);
        if (i >= 0) ratio[i] = sum[WITH] / sum[WITHOUT];
    }
    if (x->s.mesh.rank == 0) print_line(x, ratio, rounds);

    mem_free(ratio);
    mem_free(tokens);
    loader_close(l);
    for (int i = 0; i < SIDES; i++) close_side(&x[i]);
    comm_close(world);
    return 0;
}
