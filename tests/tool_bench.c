/* The speed of this machine and of the program on it (`make bench`): every kernel as a fraction of limits
 * that are measured in the same run, on one thread and on all cores, and the training steps of runs that were
 * made just before.  A table on the output, and a JSON file.
 *
 *     bench OUT.json [--isa=avx2|avx512] [--seconds=0.1] [--passes=3] [--only=TEXT] [--peers=FILE.jsonl]
 *           [--roofline=CONFIG] [--fold=FILE.json] [RUN,RANKS,THREADS ...]
 *
 * A figure is the median of some passes over all lines, minutes apart, and in each the median of calls before
 * and after which the cores had their usual speed.  The limits, of 12 independent chains of multiply-adds,
 * and of copying with stores that go past the caches, are looked at before every line, and are the medians of
 * that; so is the time in which threads are gathered. */
#include <immintrin.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/comm.h"
#include "launch/host.h"
#include "launch/memory.h"
#include "launch/options.h"
#include "tests/bench.h"
#include "train/jsonl.h"
#include "train/metrics.h"
#include "train/series.h"

enum {
    COPIED = 16 << 20, /* floats of a copy: past every cache */
    COPIES = 5,
    GATHERINGS = 2000,
    MOST_CALLS = 1000,
    MOST_TRIES = 8,
    MOST_RUNS = 16,
};
#define STEADY 0.9 /* of the best peak seen: with less, somebody else is on our cores */
#define NEAR   1.7 /* times the shortest gathering seen: with more, they have no cache in common now */

int bench_wants(const bench *b, const char *name) {
    return !b->only || strstr(name, b->only);
}

float *bench_buffer(arena *a, int64_t n) {
    arena_alloc(a, 832);
    float *x = arena_alloc(a, (size_t)n * sizeof *x);
    uint64_t state = 1;
    for (int64_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(state >> 40) * 0x1p-24f + 0.1f; /* positive: some are second moments */
    }
    return x;
}

static kernels_config backend(const bench *b, kernels_dtype dtype, int variant) {
    kernels_config c = {.device = "cpu", .threads = b->threads[variant], .dtype = dtype};
    snprintf(c.isa, sizeof c.isa, "%s", b->isa);
    return c;
}

static double peak_now(const bench *b, kernels_dtype dtype, int variant) {
    const kernels_config c = backend(b, dtype, variant);
    return kernels_measure_peak(&c);
}

static double gather_now(const bench *b, int variant) {
    const double start = comm_clock();
    for (int i = 0; i < GATHERINGS; i++) {
#pragma omp parallel num_threads(b->threads[variant])
        __asm__ volatile("" ::: "memory");
    }
    return (comm_clock() - start) / GATHERINGS;
}

/* Whether the cores are all there, and near each other.  Those of a virtual machine may for seconds be two
 * halves of one, and then all of them together do what one does; or they are moved to where they share no
 * cache, and all that one leaves for another takes two to three times as long. */
static int undisturbed(const bench *b, int variant) {
    double best = 0, shortest = INFINITY;
    for (int64_t i = 0; i < b->limits; i++) {
        best = fmax(best, b->limit[0][variant][i]);
        shortest = fmin(shortest, b->limit[LIMIT_GATHER][variant][i]);
    }
    return peak_now(b, DTYPE_FLOAT32, variant) > STEADY * best &&
           (b->threads[variant] == 1 || gather_now(b, variant) < NEAR * shortest);
}

static double median_once(const bench *b, void (*run)(void *), void *what) {
    double sample[MOST_CALLS];
    int n = 0, repeat = 1;
    run(what);
    double begin = comm_clock();
    run(what);
    const double once = comm_clock() - begin;
    if (once < b->budget / MOST_CALLS) repeat = 1 + (int)(b->budget / MOST_CALLS / once);
    begin = comm_clock();
    while (n < 3 || (n < MOST_CALLS && comm_clock() - begin < b->budget)) {
        const double start = comm_clock();
        for (int r = 0; r < repeat; r++) run(what);
        sample[n++] = (comm_clock() - start) / repeat;
    }
    return series_quantile(n, sample, 0.5);
}

double bench_median(const bench *b, int variant, void (*run)(void *), void *what) {
    double median = 0;
    for (int tries = 0, before = undisturbed(b, variant), after; tries < MOST_TRIES;
         tries++, before = after) {
        median = median_once(b, run, what);
        after = undisturbed(b, variant);
        if (before && after) break;
    }
    return median;
}

static double copy_now(const bench *b, int variant) {
    float *to = b->copied[0];
    const float *from = b->copied[1];
    double seen[COPIES];
    for (int c = 0; c < COPIES; c++) {
        const double start = comm_clock();
#pragma omp parallel for num_threads(b->threads[variant]) schedule(static)
        for (int64_t i = 0; i < COPIED; i += 8) _mm256_stream_ps(to + i, _mm256_load_ps(from + i));
        _mm_sfence();
        seen[c] = 8.0 * COPIED / (comm_clock() - start);
    }
    return series_quantile(COPIES, seen, 0.5);
}

void bench_limits(bench *b) {
    for (int v = 0; v < b->variants; v++) {
        double seen[LIMITS] = {0};
        for (int dtype = 0; dtype < b->dtypes; dtype++) seen[dtype] = peak_now(b, dtype, v);
        seen[LIMIT_COPY] = copy_now(b, v);
        seen[LIMIT_GATHER] = gather_now(b, v);
        for (int i = 0; i < LIMITS; i++) {
            b->limit[i][v] = mem_grow(b->limit[i][v], sizeof(double) * (size_t)(b->limits + 1), "limits");
            b->limit[i][v][b->limits] = seen[i];
        }
    }
    b->limits++;
}

/* The medians of what was seen. */
static void settle_limits(bench *b) {
    for (int v = 0; v < b->variants; v++) {
        for (int dtype = 0; dtype < 2; dtype++)
            b->peak[dtype][v] = series_quantile(b->limits, b->limit[dtype][v], 0.5);
        b->copy[v] = series_quantile(b->limits, b->limit[LIMIT_COPY][v], 0.5);
        b->gather[v] = series_quantile(b->limits, b->limit[LIMIT_GATHER][v], 0.5);
    }
}

const kernels *bench_kernels(const bench *b, kernels_dtype dtype, int variant) {
    return dtype == DTYPE_BF16 ? &b->bf16[variant] : &b->kernel[variant];
}

/* The list of that name, begun if need be. */
static json_t *section_of(const bench *b, const char *name) {
    json_t *list = json_object_get(b->root, name);
    if (!list) json_object_set_new(b->root, name, list = json_array());
    return list;
}

void bench_add(bench *b, const char *section, json_t *entry, int variant, double work, double seconds) {
    if (b->line == BENCH_LINES) FAULT(EXIT_BUG, "more than %d lines", BENCH_LINES);
    bench_line *l = b->lines + b->line++;
    if (b->pass == 0) {
        json_object_set_new(entry, "threads", json_integer(b->threads[variant]));
        json_array_append_new(section_of(b, section), entry);
        l->entry = entry;
        l->in_memory = !strcmp(section, "memory_bound");
    } else {
        json_decref(entry);
    }
    l->rate[b->pass] = work / seconds;
    if (l->in_memory) /* memory is twice as fast in one minute as in another */
        l->copy[b->pass] = (b->limit[LIMIT_COPY][variant][b->limits - 1] + copy_now(b, variant)) / 2;
    fprintf(stderr, "."); /* it takes minutes */
}

/* The medians of the passes. */
static void settle_lines(bench *b) {
    for (bench_line *l = b->lines; l < b->lines + b->line; l++) {
        if (l->in_memory) {
            double fraction[BENCH_PASSES];
            for (int64_t pass = 0; pass < b->passes; pass++) fraction[pass] = l->rate[pass] / l->copy[pass];
            json_object_set_new(l->entry, "copy_gbps",
                                json_real(1e-9 * series_quantile(b->passes, l->copy, 0.5)));
            json_object_set_new(l->entry, "fraction", json_real(series_quantile(b->passes, fraction, 0.5)));
        }
        json_object_set_new(l->entry, l->in_memory ? "gbps" : "gflops",
                            json_real(1e-9 * series_quantile(b->passes, l->rate, 0.5)));
    }
}

/* Everything of an entry but its rate, on one line. */
static void print_entry(const json_t *entry) {
    const char *key;
    json_t *value;
    char text[160] = "";
    json_object_foreach((json_t *)entry, key, value) {
        if (json_is_real(value)) continue;
        size_t n = strlen(text);
        if (json_is_string(value)) snprintf(text + n, sizeof text - n, "%s ", json_string_value(value));
        else if (json_is_true(value)) snprintf(text + n, sizeof text - n, "  %s", key);
        else snprintf(text + n, sizeof text - n, " %s %lld", key, (long long)json_integer_value(value));
    }
    printf("%-78s", text);
}

static int is_bf16(const json_t *entry) {
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    return dtype && !strcmp(dtype, bench_dtype[DTYPE_BF16]);
}

/* A section's rates become fractions of a limit, copying or the peak of the entry's dtype, and lines of the
 * table. */
static void finish_section(const bench *b, const char *section, const char *unit) {
    size_t i;
    json_t *entry;
    json_t *list = json_object_get(b->root, section);
    if (json_array_size(list)) printf("\n%s\n", section);
    json_array_foreach(list, i, entry) {
        const int v = json_integer_value(json_object_get(entry, "threads")) != b->threads[0];
        const double rate = json_real_value(json_object_get(entry, unit));
        print_entry(entry);
        if (!json_object_get(entry, "fraction"))
            json_object_set_new(entry, "fraction", json_real(1e9 * rate / b->peak[is_bf16(entry)][v]));
        printf(" %8.1f %s  %5.1f%%\n", rate, unit, 100 * json_real_value(json_object_get(entry, "fraction")));
    }
}

/* The median speed of a run's second half, when the router's budget holds and model FLOPs are what was
 * computed. */
static int add_step(bench *b, const char *what, error *e) {
    char dir[1024], path[1100];
    int ranks, threads;
    config c;
    jsonl log;
    if (sscanf(what, "%1000[^,],%d,%d", dir, &ranks, &threads) != 3)
        return error_set(e, EXIT_USAGE, "%s: expected RUN,RANKS,THREADS", what);
    snprintf(path, sizeof path, "%s/config.yaml", dir);
    if (config_load(&c, path, 0, NULL, e)) return e->code;
    snprintf(path, sizeof path, "%s/timing.jsonl", dir);
    int code = jsonl_open(&log, path, e);
    if (!code && log.rows < 4) code = error_set(e, EXIT_CORRUPT, "%s: fewer than 4 steps", path);
    const size_t most = sizeof(double) * (size_t)(code ? 1 : log.rows);
    double *rate = mem_alloc(most, "speeds"), *exposed = mem_alloc(most, "speeds"), tokens = 0;
    int64_t n = 0;
    json_t *row;
    while (!code && (row = jsonl_next(&log))) {
        if (json_integer_value(json_object_get(row, "step")) > log.rows / 2) {
            exposed[n] = json_number_value(json_object_get(row, "comm_exposed_seconds")) /
                         json_real_value(json_object_get(row, "step_seconds"));
            rate[n++] = json_real_value(json_object_get(row, "tokens_per_second"));
        }
        json_decref(row);
    }
    if (!code) {
        tokens = series_quantile(n, rate, 0.5);
        json_t *list = section_of(b, "step");
        const double *peaks = b->peak[c.kernels.dtype];
        const double peak = ranks * threads > 1 ? peaks[b->variants - 1] : peaks[0];
        json_array_append_new(list, json_pack("{ss si si ss sf sf sf}", "config",
                                              strrchr(dir, '/') ? strrchr(dir, '/') + 1 : dir, "ranks", ranks,
                                              "threads", threads, "dtype", bench_dtype[c.kernels.dtype],
                                              "tokens_per_second", tokens, "fraction",
                                              tokens * metrics_flops_per_token(&c) / peak, "exposed",
                                              series_quantile(n, exposed, 0.5)));
    }
    mem_free(rate);
    mem_free(exposed);
    jsonl_close(&log);
    config_free(&c);
    return code;
}

static void print_steps(const bench *b) {
    size_t i;
    json_t *entry;
    json_t *list = json_object_get(b->root, "step");
    if (list) printf("\ntraining steps\n");
    json_array_foreach(list, i, entry) {
        print_entry(entry);
        printf(" %8.0f tok/s   %5.1f%%  waiting for ranks %.1f%%\n",
               json_real_value(json_object_get(entry, "tokens_per_second")),
               100 * json_real_value(json_object_get(entry, "fraction")),
               100 * json_real_value(json_object_get(entry, "exposed")));
    }
}

/* What bench_fold measured. */
static int add_fold(bench *b, const char *path, error *e) {
    json_t *entry = json_load_file(path, 0, NULL);
    if (!entry) return error_set(e, EXIT_CORRUPT, "%s: no JSON of bench_fold", path);
    json_object_set_new(b->root, "fold", entry);
    printf("\nfold\n");
    print_entry(entry);
    printf(" %8.2f ms, %.2f times the limit\n", json_number_value(json_object_get(entry, "milliseconds")),
           json_number_value(json_object_get(entry, "times_the_limit")));
    return 0;
}

static double speed_of(const json_t *peer) {
    const json_t *flops = json_object_get(peer, "gflops");
    return json_number_value(flops ? flops : json_object_get(peer, "tokens_per_second"));
}

/* The entry that is of the same as this one, whatever speed they have; NULL: there is none. */
static json_t *same_entry(const json_t *list, const json_t *entry) {
    size_t i;
    json_t *other, *value;
    const char *key;
    json_array_foreach((json_t *)list, i, other) {
        int same = 1;
        json_object_foreach((json_t *)entry, key, value) same &=
            json_is_real(value) || json_equal(value, json_object_get(other, key));
        if (same) return other;
    }
    return NULL;
}

/* What other programs reached, one JSON object a line; of several that are of the same, the fastest counts.
 */
static int add_peers(bench *b, const char *path, error *e) {
    FILE *f = fopen(path, "r");
    if (!f) return error_set(e, EXIT_IO, "%s cannot be opened", path);
    char *line = NULL;
    size_t room = 0, i;
    json_t *list = json_array(), *entry;
    json_object_set_new(b->root, "peers", list);
    while (getline(&line, &room, f) > 0) {
        if (!(entry = json_loads(line, 0, NULL))) continue;
        json_t *other = same_entry(list, entry);
        if (!other) json_array_append(list, entry);
        else if (speed_of(entry) > speed_of(other)) json_object_update(other, entry);
        json_decref(entry);
    }
    free(line);
    fclose(f);
    printf("\npeers\n");
    json_array_foreach(list, i, entry) {
        print_entry(entry);
        printf(" %8.*f %s\n", json_object_get(entry, "gflops") ? 1 : 0, speed_of(entry),
               json_object_get(entry, "gflops") ? "gflops" : "tok/s");
    }
    return 0;
}

int main(int argc, char **argv) {
    bench b = {.isa = "auto", .budget = 0.1, .passes = 3, .root = json_object()};
    const char *peers = NULL, *config = NULL, *fold = NULL;
    const option known[] = {{"isa", .text = &b.isa},
                            {"seconds", .real = &b.budget, .min = 1e-3, .max = 60},
                            {"passes", .integer = &b.passes, .min = 1, .max = BENCH_PASSES},
                            {"only", .text = &b.only},
                            {"peers", .text = &peers},
                            {"fold", .text = &fold},
                            {"roofline", .text = &config},
                            {0}};
    options o = {.usage =
                     "usage: bench OUT.json [--isa=avx2|avx512] [--seconds=0.1] [--passes=3] [--only=TEXT] "
                     "[--peers=FILE.jsonl] [--roofline=CONFIG] [--fold=FILE.json] [RUN,RANKS,THREADS ...]\n",
                 .known = known,
                 .min_words = 1,
                 .max_words = 1 + MOST_RUNS};
    if (!options_read(&o, argc, argv)) return o.code;
    const cpu_set_t own = host_own_cores();
    const int cores = CPU_COUNT(&own);
    if (!cores) FAULT(EXIT_BUG, "which processors are there?");
    b.variants = cores > 1 ? 2 : 1;
    b.dtypes = strcmp(b.isa, "avx2") && __builtin_cpu_supports("avx512bf16") ? 2 : 1;
    error e = {0};
    for (int v = 0; v < b.variants; v++) {
        b.threads[v] = v ? cores : 1;
        for (int dtype = 0; dtype < b.dtypes; dtype++) {
            const kernels_config c = backend(&b, dtype, v);
            if (kernels_open(dtype == DTYPE_BF16 ? &b.bf16[v] : &b.kernel[v], &c, &e)) {
                fprintf(stderr, "bench: %s\n", e.text);
                return e.code;
            }
        }
    }
    arena copies = arena_create("copies", 2 * sizeof(float) * COPIED);
    for (int i = 0; i < 2; i++) b.copied[i] = arena_alloc(&copies, sizeof(float) * COPIED);
    bench_limits(&b);
    for (; b.pass < b.passes; b.pass++) {
        b.line = 0;
        bench_gemm(&b);
        if (bench_wants(&b, "attention")) bench_attention(&b);
        bench_memory(&b);
    }
    if (config) bench_roofline(&b, config, &e);
    fprintf(stderr, "\n");

    settle_limits(&b);
    settle_lines(&b);
    const int last = b.variants - 1;
    printf("%s, %d cores: %.1f GFLOP/s of multiply-adds (%.1f on one), %.1f GB/s of copying (%.1f on one)\n",
           b.kernel[0].name, cores, 1e-9 * b.peak[0][last], 1e-9 * b.peak[0][0], 1e-9 * b.copy[last],
           1e-9 * b.copy[0]);
    if (b.dtypes > 1)
        printf("%.1f GFLOP/s of dot products in bf16 (%.1f on one)\n", 1e-9 * b.peak[1][last],
               1e-9 * b.peak[1][0]);
    if (last) printf("%.2f us in which all threads begin and end together\n", 1e6 * b.gather[last]);
    json_object_set_new(b.root, "fma_peak_gflops", json_real(1e-9 * b.peak[0][last]));
    json_object_set_new(b.root, "fma_peak_gflops_one_thread", json_real(1e-9 * b.peak[0][0]));
    json_object_set_new(b.root, "bf16_peak_gflops", json_real(1e-9 * b.peak[1][last]));
    json_object_set_new(b.root, "bf16_peak_gflops_one_thread", json_real(1e-9 * b.peak[1][0]));
    json_object_set_new(b.root, "copy_gbps", json_real(1e-9 * b.copy[last]));
    json_object_set_new(b.root, "copy_gbps_one_thread", json_real(1e-9 * b.copy[0]));
    json_object_set_new(b.root, "gather_microseconds", json_real(1e6 * b.gather[last]));
    finish_section(&b, "gemm", "gflops");
    finish_section(&b, "attention", "gflops");
    finish_section(&b, "memory_bound", "gbps");
    bench_roofline_finish(&b);
    for (int i = 1; i < o.words && !e.code; i++) add_step(&b, o.word[i], &e);
    print_steps(&b);
    if (!e.code && fold) add_fold(&b, fold, &e);
    if (!e.code && peers) add_peers(&b, peers, &e);
    if (!e.code && json_dump_file(b.root, o.word[0], JSON_INDENT(1) | JSON_REAL_PRECISION(6)))
        error_set(&e, EXIT_IO, "%s cannot be written", o.word[0]);
    if (e.code) fprintf(stderr, "bench: %s\n", e.text);
    json_decref(b.root);
    arena_destroy(&copies);
    for (int v = 0; v < b.variants; v++) {
        kernels_close(&b.kernel[v]);
        if (b.dtypes > 1) kernels_close(&b.bf16[v]);
        for (int i = 0; i < LIMITS; i++) mem_free(b.limit[i][v]);
    }
    return e.code;
}
