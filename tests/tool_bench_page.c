/* The tables of docs/performance.md, in Markdown, from the file that `make bench` writes.
 *
 *     bench_page BENCH.json limits|gemm|attention|memory_bound|step|roofline
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "launch/error.h"

static double number(const json_t *entry, const char *key) {
    return json_number_value(json_object_get(entry, key));
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
    static const char *const keys[] = {"op", "m", "n", "k"};
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    size_t i;
    json_t *peer;
    if (dtype && strcmp(dtype, "float32")) return 0;
    json_array_foreach((json_t *)peers, i, peer) {
        const char *who = json_string_value(json_object_get(peer, "peer"));
        int same = who && !strcmp(who, name);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            same &= json_equal(json_object_get(peer, keys[k]), json_object_get(entry, keys[k]));
        if (same) return number(peer, "gflops");
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
        printf("| %s | %.1f | %.0f%% |", text, number(one, rate), 100 * number(one, "fraction"));
        if (all && !strcmp(text, next)) {
            printf(" **%.1f** | **%.0f%%** |", number(all, rate), 100 * number(all, "fraction"));
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
        printf("| Caracal | %.0f x %.0f | %s | %.0f | **%.1f%%** |\n", number(entry, "ranks"),
               number(entry, "threads"), json_string_value(json_object_get(entry, "dtype")),
               number(entry, "tokens_per_second"), 100 * number(entry, "fraction"));
    json_array_foreach(json_object_get(root, "peers"), i,
                       entry) if (json_object_get(entry, "tokens_per_second"))
        printf("| %s | 1 x %.0f | float32 | %.0f | |\n", json_string_value(json_object_get(entry, "peer")),
               number(entry, "threads"), number(entry, "tokens_per_second"));
}

static void print_roofline(const json_t *root) {
    size_t i;
    json_t *entry;
    printf("| operation | calls a step | GFLOP | MB | ms | of the time | of its limit | which is |\n"
           "| --- | --: | --: | --: | --: | --: | --: | --- |\n");
    json_array_foreach(json_object_get(root, "roofline"), i, entry) {
        const json_t *limit = json_object_get(entry, "limit");
        printf("| %s | %.0f | %.2f | %.1f | %.2f | %.1f%% |", json_string_value(json_object_get(entry, "op")),
               number(entry, "calls"), number(entry, "gflop"), number(entry, "mbyte"), number(entry, "ms"),
               100 * number(entry, "share"));
        if (limit) printf(" %.0f%% | %s |\n", 100 * number(entry, "fraction"), json_string_value(limit));
        else printf(" | |\n");
    }
}

int main(int argc, char **argv) {
    const char *what = argc == 3 ? argv[2] : "";
    json_error_t why;
    json_t *root = argc == 3 ? json_load_file(argv[1], 0, &why) : NULL;
    if (argc == 3 && !root) FAULT(EXIT_CORRUPT, "%s: %s", argv[1], why.text);
    if (!strcmp(what, "gemm")) print_rates(root, what, "GFLOP/s", "gflops", 1);
    else if (!strcmp(what, "attention")) print_rates(root, what, "GFLOP/s", "gflops", 0);
    else if (!strcmp(what, "memory_bound")) print_rates(root, what, "GB/s", "gbps", 0);
    else if (!strcmp(what, "step")) print_steps(root);
    else if (!strcmp(what, "roofline")) print_roofline(root);
    else if (!strcmp(what, "limits"))
        printf("| | one thread | all cores |\n| --- | --: | --: |\n"
               "| multiply-adds, GFLOP/s | %.0f | %.0f |\n| copying, GB/s read and written | %.1f | %.1f |\n"
               "| gathering the threads, us | | %.2f |\n",
               number(root, "fma_peak_gflops_one_thread"), number(root, "fma_peak_gflops"),
               number(root, "copy_gbps_one_thread"), number(root, "copy_gbps"),
               number(root, "gather_microseconds"));
    else FAULT(EXIT_USAGE, "usage: bench_page BENCH.json limits|gemm|attention|memory_bound|step|roofline");
    json_decref(root);
    return 0;
}
