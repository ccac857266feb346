/* timeline check FILE: a trace of `caracal train --trace=STEPS` parses, its spans have names and times, and
 * in every row of every rank they lie inside one another or apart.  Prints what there is. timeline draw FILE
 * LAYER PHASE: an SVG of one layer's forward or backward, on rank 0. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/error.h"
#include "launch/memory.h"

typedef struct span {
    const char *name;
    int rank, row;
    int64_t number;
    double began, ended;
} span;

typedef struct spans {
    json_t *file;
    span *span;
    size_t n;
} spans;

static int order(const void *a, const void *b) { /* rows together; what contains comes first */
    const span *x = a, *y = b;
    if (x->rank != y->rank) return x->rank - y->rank;
    if (x->row != y->row) return x->row - y->row;
    if (x->began != y->began) return x->began < y->began ? -1 : 1;
    return (x->ended < y->ended) - (x->ended > y->ended);
}

static spans read_spans(const char *path) {
    json_error_t bad;
    spans s = {.file = json_load_file(path, 0, &bad)};
    if (!s.file) FAULT(EXIT_CORRUPT, "%s:%d: %s", path, bad.line, bad.text);
    const json_t *all = json_object_get(s.file, "traceEvents");
    s.span = mem_alloc(json_array_size(all) * sizeof *s.span, "spans");
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *e = json_array_get(all, i),
                     *number = json_object_get(json_object_get(e, "args"), "number");
        const char *kind = json_string_value(json_object_get(e, "ph"));
        if (!kind) FAULT(EXIT_CORRUPT, "%s: event %zu has no ph", path, i);
        if (strcmp(kind, "X")) continue;
        double began = json_number_value(json_object_get(e, "ts"));
        s.span[s.n++] = (span){json_string_value(json_object_get(e, "name")),
                               (int)json_integer_value(json_object_get(e, "pid")),
                               (int)json_integer_value(json_object_get(e, "tid")),
                               number ? json_integer_value(number) : -1,
                               began,
                               began + json_number_value(json_object_get(e, "dur"))};
        const span *x = &s.span[s.n - 1];
        if (!x->name || !(x->began >= 0) || !(x->ended >= x->began))
            FAULT(EXIT_CORRUPT, "%s: event %zu has no name or no time", path, i);
    }
    qsort(s.span, s.n, sizeof *s.span, order);
    return s;
}

/* Microseconds are written with three decimals: that much may be lost at an end. */
static const double ROUNDING = 0.002;

static void check(const spans *s) {
    enum { DEEP = 64 };
    double end[DEEP];
    int depth = 0, ranks = 0, rows = 0;
    for (size_t i = 0; i < s->n; i++) {
        const span *x = &s->span[i];
        if (!i || x->rank != x[-1].rank || x->row != x[-1].row) {
            depth = 0;
            rows++;
            ranks = x->rank >= ranks ? x->rank + 1 : ranks;
        }
        while (depth && end[depth - 1] <= x->began + ROUNDING) depth--;
        if (depth && x->ended > end[depth - 1] + ROUNDING)
            FAULT(EXIT_CORRUPT, "rank %d, row %d: %s ends at %.3f, after what it is inside of (%.3f)",
                  x->rank, x->row, x->name, x->ended, end[depth - 1]);
        REQUIRE(depth < DEEP);
        end[depth++] = x->ended;
    }
    printf("%zu spans, %d ranks, %d rows\n", s->n, ranks, rows);
}

/* ---- drawing ---- */

static const span *phase_of_layer(const spans *s, int64_t layer, const char *phase) {
    const span *inside = NULL;
    for (size_t i = 0; i < s->n; i++) {
        const span *x = &s->span[i];
        if (x->rank || x->row) continue;
        if (!strcmp(x->name, phase)) inside = x;
        if (inside && !strcmp(x->name, "layer") && x->number == layer && x->began >= inside->began &&
            x->ended <= inside->ended)
            return x;
    }
    FAULT(EXIT_USAGE, "there is no layer %lld in a %s here", (long long)layer, phase);
}

static const char *color_of(const span *x) {
    if (!strncmp(x->name, "wait", 4)) return "#d1495b";
    if (x->row) return "#edae49";
    if (!strcmp(x->name, "attention 0") || !strcmp(x->name, "attention 1")) return "#30638e";
    if (!strncmp(x->name, "FFN", 3)) return "#5f8fb8";
    return "#66a182";
}

static void draw(const spans *s, int64_t layer, const char *phase) {
    enum { WIDTH = 1000, ROW = 30, LEFT = 90 };
    const span *all = phase_of_layer(s, layer, phase);
    double scale = (WIDTH - LEFT - 10) / (all->ended - all->began);
    int line = 0, last_row = -1, lines = 2;
    char *body = NULL;
    size_t size;
    FILE *out = open_memstream(&body, &size);
    if (!out) FAULT(EXIT_NO_MEMORY, "no memory for a picture");
    for (size_t i = 0; i < s->n; i++) {
        const span *x = &s->span[i];
        int apart = x->ended <= all->began || x->began >= all->ended;
        if (x->rank || apart || x->row == 1 || (!x->row && (x->ended - x->began >= all->ended - all->began)))
            continue;
        if (x->row != last_row) {
            line = last_row < 0 ? 0 : lines;
            lines = line + (x->row ? 1 : 2);
            last_row = x->row;
            fprintf(out, "<text x=\"4\" y=\"%d\">%s</text>\n", ROW * line + 48,
                    x->row ? "in flight" : "computing");
            if (!x->row) fprintf(out, "<text x=\"4\" y=\"%d\">waiting</text>\n", ROW * (line + 1) + 48);
        }
        int waits = !strncmp(x->name, "wait", 4);
        double from = x->began > all->began ? x->began : all->began,
               to = x->ended < all->ended ? x->ended : all->ended;
        double at = LEFT + (from - all->began) * scale, wide = (to - from) * scale;
        fprintf(out,
                "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"><title>%s, %.3f "
                "ms</title></rect>\n",
                at, ROW * (line + waits) + 30, wide < 0.7 ? 0.7 : wide, ROW - 4, color_of(x), x->name,
                (x->ended - x->began) * 1e-3);
        if (wide > 7.5 * (double)strlen(x->name))
            fprintf(out, "<text x=\"%.1f\" y=\"%d\" fill=\"white\">%s</text>\n", at + 3,
                    ROW * (line + waits) + 48, x->name);
    }
    fclose(out);
    printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" "
           "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
           "<text x=\"4\" y=\"18\">layer %lld, %s, rank 0: %.2f ms</text>\n%s</svg>\n",
           WIDTH, ROW * lines + 40, (long long)layer, phase, (all->ended - all->began) * 1e-3, body);
    free(body);
}

int main(int argc, char **argv) {
    int draws = argc == 5 && !strcmp(argv[1], "draw");
    if (!draws && (argc != 3 || strcmp(argv[1], "check")))
        FAULT(EXIT_USAGE, "usage: timeline check FILE\n       timeline draw FILE LAYER forward|backward");
    spans s = read_spans(argv[2]);
    if (draws) draw(&s, atoll(argv[3]), argv[4]);
    else check(&s);
    mem_free(s.span);
    json_decref(s.file);
    return 0;
}
