/* What we want of the CPU backend on all cores, and what a file of `make bench` has of it: the worst of the
 * lines that a goal is about. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/bench_page.h"

/* Of an entry, fields that a goal does not name may be anything. */
typedef struct goal {
    const char *what, *section, *op, *dtype;
    json_int_t m, n, k;
    int held; /* 1: only lines that say so; 0: only others */
    double want;
} goal;

static const goal fractions[] = {
    {"products, 1024 x 1024 x 1024", "gemm", "", "float32", 1024, 1024, 1024, 0, 0.92},
    {"products, 4096 x 768 x 768", "gemm", "", "float32", 4096, 768, 768, 0, 0.92},
    {"products, 4096 x 32768 x 256", "gemm", "", "float32", 4096, 32768, 256, 0, 0.9},
    {"products, 64 x 512 x 256, packing included", "gemm", "", "float32", 64, 512, 256, 0, 0.9},
    {"products, 64 x 512 x 256, the weight held", "gemm", "", "float32", 64, 512, 256, 1, 0.9},
    {"products, 8 x 512 x 256, packing included", "gemm", "", "float32", 8, 512, 256, 0, 0.75},
    {"products, 8 x 512 x 256, the weight held", "gemm", "", "float32", 8, 512, 256, 1, 0.75},
    {"products of experts", "gemm", "grouped", "float32", 0, 0, 0, 0, 0.85},
    {"products in bf16, 1024 x 1024 x 1024", "gemm", "", "bf16", 1024, 1024, 1024, 0, 0.85},
    {"products in bf16, 4096 x 768 x 768", "gemm", "", "bf16", 4096, 768, 768, 0, 0.85},
    {"products in bf16, 4096 x 32768 x 256", "gemm", "", "bf16", 4096, 32768, 256, 0, 0.85},
    {"attention", "attention", "", NULL, 0, 0, 0, 0, 0.65},
    {"operations that stream memory", "memory_bound", "", NULL, 0, 0, 0, 0, 0.85},
};

static int has(const json_t *entry, const char *key, json_int_t want) {
    return !want || json_integer_value(json_object_get(entry, key)) == want;
}

static int is_about(const goal *g, const json_t *entry, json_int_t threads) {
    const char *op = bench_text(entry, "op"), *dtype = bench_text(entry, "dtype");
    return has(entry, "threads", threads) && has(entry, "m", g->m) && has(entry, "n", g->n) &&
           has(entry, "k", g->k) && strstr(op, g->op) && (!g->dtype || !strcmp(dtype, g->dtype)) &&
           g->held == json_is_true(json_object_get(entry, "held")) &&
           strcmp(op, "router_forward"); /* bound by its comparisons */
}

static void print_goal(const char *what, const char *want, const char *worst, int reached) {
    printf("| %s | %s | %s | %s |\n", what, want, worst, reached ? "yes" : "**no**");
}

static void print_fraction(const json_t *root, const goal *g, json_int_t threads) {
    double worst = INFINITY;
    const json_t *which = NULL;
    int below = 0;
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(root, g->section), i, entry) {
        if (!is_about(g, entry, threads)) continue;
        const double fraction = bench_number(entry, "fraction");
        below += round(100 * fraction) < round(100 * g->want);
        if (fraction >= worst) continue;
        worst = fraction;
        which = entry;
    }
    if (!which) return;
    char want[16], text[96];
    snprintf(want, sizeof want, "%.0f%%", 100 * g->want);
    int n = snprintf(text, sizeof text, "%.0f%% (%s)", 100 * worst, bench_text(which, "op"));
    if (below > 1) snprintf(text + n, sizeof text - (size_t)n, ", %d lines below", below);
    print_goal(g->what, want, text, !below);
}

/* How many times as fast as the peer we are where that is least: packed weights are beside held ones. */
static void print_peer(const json_t *root, const char *peer, double want, json_int_t threads) {
    double worst = INFINITY;
    size_t i, j;
    json_t *theirs, *ours;
    const json_t *which = NULL;
    json_array_foreach(json_object_get(root, "peers"), i, theirs) {
        double best = 0;
        if (strcmp(bench_text(theirs, "peer"), peer)) continue;
        json_array_foreach(json_object_get(root, "gemm"), j, ours) {
            if (has(ours, "threads", threads) && bench_same_product(ours, theirs))
                best = fmax(best, bench_number(ours, "gflops"));
        }
        best /= bench_number(theirs, "gflops");
        if (best == 0 || best >= worst) continue;
        worst = best;
        which = theirs;
    }
    if (!which) return;
    char what[64], ratio[16], text[96];
    snprintf(what, sizeof what, "products, beside %s", peer);
    snprintf(ratio, sizeof ratio, "%.2f times", want);
    snprintf(text, sizeof text, "%.2f times (%s, %.0f x %.0f x %.0f)", worst, bench_text(which, "op"),
             bench_number(which, "m"), bench_number(which, "n"), bench_number(which, "k"));
    print_goal(what, ratio, text, worst >= want);
}

static const json_t *step_of(const json_t *root, json_int_t ranks, json_int_t threads, const char *dtype) {
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(root, "step"), i, entry) {
        if (has(entry, "ranks", ranks) && has(entry, "threads", threads) &&
            !strcmp(bench_text(entry, "dtype"), dtype))
            return entry;
    }
    return NULL;
}

static void print_times(const char *what, double want, double reached) {
    char ratio[16], text[32];
    if (!(reached > 0)) return;
    snprintf(ratio, sizeof ratio, "%.2f times", want);
    snprintf(text, sizeof text, "%.2f times", reached);
    print_goal(what, ratio, text, round(100 * reached) >= round(100 * want));
}

static void print_steps(const json_t *root, json_int_t cores) {
    const json_t *one = step_of(root, 1, 1, "float32"), *threads = step_of(root, 1, cores, "float32"),
                 *ranks = step_of(root, cores, 1, "float32"), *bf16 = step_of(root, 1, cores, "bf16");
    const json_t *both[] = {threads, ranks};
    char text[32];
    for (int i = 0; i < 2; i++) {
        if (!both[i]) continue;
        const double fraction = bench_number(both[i], "fraction");
        snprintf(text, sizeof text, "%.1f%%", 100 * fraction);
        print_goal(i ? "training step, a rank for each core" : "training step, a thread for each core", "70%",
                   text, fraction >= 0.7);
    }
    const double tokens = bench_number(threads, "tokens_per_second");
    size_t i;
    json_t *peer;
    json_array_foreach(json_object_get(root, "peers"), i, peer) {
        if (json_object_get(peer, "tokens_per_second"))
            print_times("training step, beside PyTorch", 2, tokens / bench_number(peer, "tokens_per_second"));
    }
    print_times("training step in bf16, beside float32", 1.4,
                bench_number(bf16, "tokens_per_second") / tokens);
    if (one && ranks) {
        const double exposed = bench_number(ranks, "exposed");
        if (cores == 2)
            print_times("two ranks, beside one", 1.85,
                        bench_number(ranks, "tokens_per_second") / bench_number(one, "tokens_per_second"));
        snprintf(text, sizeof text, "%.1f%%", 100 * exposed);
        print_goal("waiting for the other rank, of a step", "under 3%", text, exposed < 0.03);
    }
}

void bench_goals(const json_t *root) {
    json_int_t cores = 1;
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(root, "gemm"), i, entry) {
        const json_int_t threads = json_integer_value(json_object_get(entry, "threads"));
        if (threads > cores) cores = threads;
    }
    printf("| on all cores | wanted | the worst line has | reached |\n| --- | --- | --- | --- |\n");
    for (const goal *g = fractions; g < fractions + sizeof fractions / sizeof *fractions; g++)
        print_fraction(root, g, cores);
    print_peer(root, "OpenBLAS", 1, cores);
    print_peer(root, "oneDNN, packed", 0.92, cores);
    print_steps(root, cores);
    const json_t *fold = json_object_get(root, "fold");
    if (fold) {
        char text[32];
        const double times = bench_number(fold, "times_the_limit");
        snprintf(text, sizeof text, "%.2f times", times);
        print_goal("folding 64 MiB, beside copying as much", "at most 1.3 times", text, times <= 1.3);
    }
}
