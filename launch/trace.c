#include "launch/trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/comm.h"
#include "launch/files.h"
#include "launch/memory.h"

typedef struct span {
    const char *name;
    double began, ended;
    int64_t number;
    int row, waits;
} span;

struct trace {
    span *spans;
    int64_t n, room;
};

trace *trace_open(void) {
    return mem_alloc(sizeof(trace), "a trace");
}

void trace_close(trace *t) {
    if (!t) return;
    mem_free(t->spans);
    mem_free(t);
}

double trace_begin(const trace *t) {
    return t ? comm_clock() : 0;
}

static void add(trace *t, span s) {
    if (t->n == t->room) {
        t->room = t->room ? 2 * t->room : 1 << 14;
        t->spans = mem_grow(t->spans, (size_t)t->room * sizeof *t->spans, "a trace");
    }
    t->spans[t->n++] = s;
}

void trace_end(trace *t, const char *name, int64_t number, double began) {
    if (t) add(t, (span){name, began, comm_clock(), number, TRACE_COMPUTE, 0});
}

void trace_wait(trace *t, const char *operation, int64_t layer, double began) {
    if (t) add(t, (span){operation, began, comm_clock(), layer, TRACE_COMPUTE, 1});
}

void trace_span(trace *t, int row, const char *name, int64_t number, double began, double ended) {
    if (t) add(t, (span){name, began, ended, number, row, 0});
}

/* ---- writing ---- */

/* A group of ranks has rows for as many exchanges as may be under way in it. */
static void name_row(FILE *out, int rank, int row) {
    char name[32] = "compute";
    if (row == TRACE_SAVE) snprintf(name, sizeof name, "checkpoint");
    if (row >= TRACE_EXCHANGES)
        snprintf(name, sizeof name, "exchange %d.%d", (row - TRACE_EXCHANGES) / COMM_REQUESTS,
                 (row - TRACE_EXCHANGES) % COMM_REQUESTS);
    fprintf(out,
            "{\"ph\": \"M\", \"name\": \"thread_name\", \"pid\": %d, \"tid\": %d, \"args\": {\"name\": "
            "\"%s\"}},\n"
            "{\"ph\": \"M\", \"name\": \"thread_sort_index\", \"pid\": %d, \"tid\": %d, \"args\": "
            "{\"sort_index\": "
            "%d}},\n",
            rank, row, name, rank, row, row);
}

static void name_rows(FILE *out, const trace *t, int rank) {
    int rows = 0;
    for (int64_t i = 0; i < t->n; i++) rows = t->spans[i].row >= rows ? t->spans[i].row + 1 : rows;
    char *used = mem_alloc((size_t)rows, "a trace");
    for (int64_t i = 0; i < t->n; i++) used[t->spans[i].row] = 1;
    for (int row = 0; row < rows; row++)
        if (used[row]) name_row(out, rank, row);
    mem_free(used);
}

/* This rank's events, each with a comma behind it. */
static char *events(const trace *t, int rank, double zero, size_t *size) {
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    if (!out) FAULT(EXIT_NO_MEMORY, "no memory for a trace");
    fprintf(out,
            "{\"ph\": \"M\", \"name\": \"process_name\", \"pid\": %d, \"args\": {\"name\": \"rank %d\"}},\n",
            rank, rank);
    name_rows(out, t, rank);
    for (int64_t i = 0; i < t->n; i++) {
        const span *s = &t->spans[i];
        fprintf(out,
                "{\"ph\": \"X\", \"name\": \"%s%s\", \"pid\": %d, \"tid\": %d, \"ts\": %.3f, \"dur\": %.3f",
                s->waits ? "wait for " : "", s->name, rank, s->row, (s->began - zero) * 1e6,
                (s->ended - s->began) * 1e6);
        if (s->number >= 0) fprintf(out, ", \"args\": {\"number\": %" PRId64 "}", s->number);
        fprintf(out, "},\n");
    }
    fclose(out);
    return text;
}

static int write_events(const char *path, int ranks, char *const *text, const size_t *size, error *e) {
    FILE *out = fopen(path, "w");
    if (!out) return path_error(e, path, "cannot be created");
    fprintf(out, "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n");
    for (int r = 0; r < ranks; r++) fwrite(text[r], 1, r + 1 < ranks ? size[r] : size[r] - 2, out);
    fprintf(out, "\n]}\n");
    int bad = ferror(out);
    if (fclose(out) || bad) return error_set(e, EXIT_IO, "%s: not written whole: is the disk full?", path);
    return 0;
}

int trace_write(const trace *t, comm *world, const char *path, error *e) {
    int ranks = comm_size(world), rank = comm_rank(world);
    double zero = t->n ? t->spans[0].began : 0, *zeros = mem_alloc((size_t)ranks * sizeof *zeros, "a trace");
    size_t *size = mem_alloc((size_t)ranks * sizeof *size, "a trace"), mine;
    char **text = mem_alloc((size_t)ranks * sizeof *text, "a trace");
    comm_part *part = mem_alloc((size_t)ranks * sizeof *part, "a trace");
    for (int64_t i = 0; i < t->n; i++) zero = t->spans[i].began < zero ? t->spans[i].began : zero;
    /* ranks of one host have one clock; where hosts differ, each counts from its own first span */
    comm_all_gather(world, "trace", zeros, &zero, sizeof zero);
    for (int r = 0; r < ranks; r++)
        if (zeros[r] < zero && zero - zeros[r] < 60) zero = zeros[r];
    text[rank] = events(t, rank, zero, &mine);
    comm_all_gather(world, "trace", size, &mine, sizeof mine);
    for (int r = 1; rank == 0 && r < ranks; r++) {
        text[r] = mem_alloc(size[r], "a trace");
        part[r - 1] = (comm_part){r, text[r], size[r]};
    }
    comm_part own = {0, text[rank], mine};
    comm_wait(world, comm_exchange(world, "trace", rank != 0, &own, rank == 0 ? ranks - 1 : 0, part));
    if (rank == 0) write_events(path, ranks, text, size, e);
    for (int r = 0; r < ranks; r++) free(text[r]);
    mem_free(zeros);
    mem_free(size);
    mem_free(text);
    mem_free(part);
    return comm_agree(world, e);
}
