/* The tables of docs/performance.md, in Markdown, from the file that `make bench` writes.
 *
 *     bench_page BENCH.json limits|goals|gemm|attention|memory_bound|step|roofline
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "launch/error.h"
#include "tests/bench_page.h"

double bench_number(const json_t *entry, const char *key) {
    return json_number_value(json_object_get(entry, key));
}

const char *bench_text(const json_t *entry, const char *key) {
    const char *text = json_string_value(json_object_get(entry, key));
    return text ? text : "";
}

int bench_same_product(const json_t *ours, const json_t *theirs) {
    static const char *const keys[] = {"op", "m", "n", "k"};
    int same = !strcmp(bench_text(ours, "dtype"), "float32");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        same &= json_equal(json_object_get(ours, keys[i]), json_object_get(theirs, keys[i]));
    return same;
}

/* What an entry measures: its name and sizes, without what came out and on how many threads. */
static void describe(const json_t *entry, char *text, size_t size) {
    const char *key;
    json_t *value;
    text[0] = 0;
    json_object_foreach((json_t *)entry, key, value) {
        const size_t n = strlen(text);
        if (json_is_real(value) || !strcmp(key, "threads")) continue;
        if (json_is_string(value))
            snprintf(text + n, size - n, "%s%s", n ? " " : "", json_string_value(value));
        else if (json_is_true(value)) snprintf(text + n, size - n, ", %s", key);
        else snprintf(text + n, size - n, ", %s %lld", key, (long long)json_integer_value(value));
    }
}

/* Speed of a peer on the same product in float32, 0 where there is none. */
static double of_peer(const json_t *peers, const char *name, const json_t *entry) {
    size_t i;
    json_t *peer;
    json_array_foreach((json_t *)peers, i, peer) {
        if (!strcmp(bench_text(peer, "peer"), name) && bench_same_product(entry, peer))
            return bench_number(peer, "gflops");
    }
    return 0;
}

static void print_speed(double speed) {
    if (speed > 0) printf(" %.0f |", speed);
    else printf(" |");
}

/* A row for each pair of entries, on one thread and on all. */
static void print_rates(const json_t *root, const char *section, const char *unit, const char *rate,
                        int with_peers) {
    const json_t *list = json_object_get(root, section), *peers = json_object_get(root, "peers");
    char text[160], next[160];
    printf("| | %s, one thread | of its limit | %s, all cores | of their limit |%s\n", unit, unit,
           with_peers ? " OpenBLAS | oneDNN, packed |" : "");
    printf("| --- | --: | --: | --: | --: |%s\n", with_peers ? " --: | --: |" : "");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i), *all = json_array_get(list, i + 1);
        describe(one, text, sizeof text);
        describe(all, next, sizeof next);
        printf("| %s | %.1f | %.0f%% |", text, bench_number(one, rate), 100 * bench_number(one, "fraction"));
        if (all && !strcmp(text, next)) {
            printf(" **%.1f** | **%.0f%%** |", bench_number(all, rate), 100 * bench_number(all, "fraction"));
            i++;
        } else {
            printf(" | |");
        }
        if (with_peers) {
            print_speed(of_peer(peers, "OpenBLAS", one));
            print_speed(of_peer(peers, "oneDNN, packed", one));
        }
        printf("\n");
    }
}

static void print_steps(const json_t *root) {
    size_t i;
    json_t *entry;
    printf("| | ranks x threads | dtype | tokens/s | of the peak, by model FLOPs |\n"
           "| --- | --- | --- | --: | --: |\n");
    json_array_foreach(json_object_get(root, "step"), i, entry)
        printf("| Caracal | %.0f x %.0f | %s | %.0f | **%.1f%%** |\n", bench_number(entry, "ranks"),
               bench_number(entry, "threads"), bench_text(entry, "dtype"),
               bench_number(entry, "tokens_per_second"), 100 * bench_number(entry, "fraction"));
    json_array_foreach(json_object_get(root, "peers"), i,
                       entry) if (json_object_get(entry, "tokens_per_second"))
        printf("| %s | 1 x %.0f | float32 | %.0f | |\n", bench_text(entry, "peer"),
               bench_number(entry, "threads"), bench_number(entry, "tokens_per_second"));
}

static void print_roofline(const json_t *root) {
    size_t i;
    json_t *entry;
    printf("| operation | calls a step | GFLOP | MB | ms | of the time | of its limit | which is |\n"
           "| --- | --: | --: | --: | --: | --: | --: | --- |\n");
    json_array_foreach(json_object_get(root, "roofline"), i, entry) {
        const json_t *limit = json_object_get(entry, "limit");
        printf("| %s | %.0f | %.2f | %.1f | %.2f | %.1f%% |", bench_text(entry, "op"),
               bench_number(entry, "calls"), bench_number(entry, "gflop"), bench_number(entry, "mbyte"),
               bench_number(entry, "ms"), 100 * bench_number(entry, "share"));
        if (limit)
            printf(" %.0f%% | %s |\n", 100 * bench_number(entry, "fraction"), json_string_value(limit));
        else printf(" | |\n");
    }
}

int main(int argc, char **argv) {
    const char *what = argc == 3 ? argv[2] : "";
    json_error_t why;
    json_t *root = argc == 3 ? json_load_file(argv[1], 0, &why) : NULL;
    if (argc == 3 && !root) FAULT(EXIT_CORRUPT, "%s: %s", argv[1], why.text);
    if (!strcmp(what, "goals")) bench_goals(root);
    else if (!strcmp(what, "gemm")) print_rates(root, what, "GFLOP/s", "gflops", 1);
    else if (!strcmp(what, "attention")) print_rates(root, what, "GFLOP/s", "gflops", 0);
    else if (!strcmp(what, "memory_bound")) print_rates(root, what, "GB/s", "gbps", 0);
    else if (!strcmp(what, "step")) print_steps(root);
    else if (!strcmp(what, "roofline")) print_roofline(root);
    else if (!strcmp(what, "limits"))
        printf("| | one thread | all cores |\n| --- | --: | --: |\n"
               "| multiply-adds, GFLOP/s | %.0f | %.0f |\n| copying, GB/s read and written | %.1f | %.1f |\n"
               "| gathering the threads, us | | %.2f |\n",
               bench_number(root, "fma_peak_gflops_one_thread"), bench_number(root, "fma_peak_gflops"),
               bench_number(root, "copy_gbps_one_thread"), bench_number(root, "copy_gbps"),
               bench_number(root, "gather_microseconds"));
    else
        FAULT(EXIT_USAGE,
              "usage: bench_page BENCH.json limits|goals|gemm|attention|memory_bound|step|roofline");
    json_decref(root);
    return 0;
}
