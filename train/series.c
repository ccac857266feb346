#include "train/series.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/memory.h"
#include "train/jsonl.h"

static double *filled(int64_t n, double value) {
    double *x = mem_alloc((size_t)n * sizeof *x, "a column of a log");
    for (int64_t i = 0; i < n; i++) x[i] = value;
    return x;
}

static void start(column *c, int64_t width) {
    int64_t n = SERIES_BINS * width;
    c->width = width;
    c->sum = filled(n, 0);
    c->mean = filled(n, NAN);
    c->low = filled(n, INFINITY);
    c->high = filled(n, -INFINITY);
    c->count = mem_alloc((size_t)n * sizeof *c->count, "a column of a log");
    c->last = NAN;
}

static void gather(column *c, int64_t bin, const json_t *value) {
    int64_t width = json_is_array(value) ? (int64_t)json_array_size(value) : 1;
    if (!c->width) {
        if (!width) return;
        start(c, width);
    }
    for (int64_t i = 0; i < c->width && i < width; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, (size_t)i) : value;
        double x = json_is_number(one) ? json_number_value(one) : NAN; /* null stands for a NaN */
        if (!isfinite(x)) continue;
        int64_t at = bin * c->width + i;
        c->sum[at] += x;
        c->low[at] = fmin(c->low[at], x);
        c->high[at] = fmax(c->high[at], x);
        c->count[at]++;
        c->last = x;
    }
}

/* Element i of the column's bins takes what element j has, and j is as new. */
static void move(column *c, int64_t i, int64_t j) {
    c->sum[i] += c->sum[j];
    c->low[i] = fmin(c->low[i], c->low[j]);
    c->high[i] = fmax(c->high[i], c->high[j]);
    c->count[i] += c->count[j];
    c->sum[j] = 0;
    c->low[j] = INFINITY;
    c->high[j] = -INFINITY;
    c->count[j] = 0;
}

/* Twice as many steps a bin. */
static void join_bins(series *s) {
    s->per *= 2;
    for (int k = 0; k < s->columns; k++) {
        column *c = &s->column[k];
        for (int64_t i = c->width; i < SERIES_BINS * c->width; i++) {
            int64_t bin = i / c->width;
            move(c, bin / 2 * c->width + i % c->width, i);
        }
    }
}

static void keep(trace *t, int64_t step, const json_t *value) {
    if (!json_is_number(value)) return;
    if (t->n == t->room) {
        t->room = t->room ? 2 * t->room : 1024;
        t->step = mem_grow(t->step, (size_t)t->room * sizeof *t->step, "steps of a log");
        t->value = mem_grow(t->value, (size_t)t->room * sizeof *t->value, "values of a log");
    }
    t->step[t->n] = step;
    t->value[t->n++] = json_number_value(value);
}

void series_open(series *s, int keys, const char *const *key, const char *whole) {
    REQUIRE(keys <= SERIES_COLUMNS);
    *s = (series){.columns = keys, .whole = whole};
    for (int k = 0; k < keys; k++) s->column[k].key = key[k];
}

void series_row(series *s, const json_t *row) {
    int64_t step = json_integer_value(json_object_get(row, "step"));
    if (!s->rows) s->first = step, s->per = 1;
    else if (step <= s->last) return;
    s->rows++;
    s->last = step;
    while ((step - s->first) / s->per >= SERIES_BINS) join_bins(s);
    for (int k = 0; k < s->columns; k++) {
        const json_t *value = json_object_get(row, s->column[k].key);
        if (value) gather(&s->column[k], (step - s->first) / s->per, value);
    }
    if (s->whole) keep(&s->trace, step, json_object_get(row, s->whole));
}

void series_settle(series *s) {
    if (!s->rows) return;
    s->bins = (s->last - s->first) / s->per + 1;
    for (int64_t b = 0; b < s->bins; b++) {
        int64_t first = s->first + b * s->per, last = first + s->per - 1;
        s->step[b] = ((double)first + (double)(last < s->last ? last : s->last)) / 2;
    }
    for (int k = 0; k < s->columns; k++) {
        column *c = &s->column[k];
        for (int64_t i = 0; i < s->bins * c->width; i++)
            c->mean[i] = c->count[i] ? c->sum[i] / (double)c->count[i] : NAN;
    }
}

int series_read(series *s, const char *path, int keys, const char *const *key, error *e) {
    jsonl log;
    json_t *row;
    series_open(s, keys, key, NULL);
    if (jsonl_open(&log, path, e)) return e->code;
    for (; (row = jsonl_next(&log)); json_decref(row)) series_row(s, row);
    series_settle(s);
    jsonl_close(&log);
    return 0;
}

const column *series_find(const series *s, const char *key) {
    for (int k = 0; k < s->columns; k++)
        if (!strcmp(s->column[k].key, key)) return s->column[k].width ? &s->column[k] : NULL;
    return NULL;
}

void series_free(series *s) {
    for (int k = 0; k < s->columns; k++) {
        column *c = &s->column[k];
        void *of[] = {c->sum, c->count, c->mean, c->low, c->high};
        for (size_t i = 0; i < sizeof of / sizeof *of; i++) mem_free(of[i]);
    }
    mem_free(s->trace.step);
    mem_free(s->trace.value);
    *s = (series){0};
}

void series_smooth(int64_t n, double *out, const double *y, int64_t half) {
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        int64_t count = 0;
        int64_t reach = i < half ? i : half;
        for (int64_t j = i - reach; j < n && j <= i + reach; j++)
            if (isfinite(y[j])) sum += y[j], count++;
        out[i] = isfinite(y[i]) ? sum / (double)count : NAN;
    }
}

int64_t series_window(const series *s, int64_t half) {
    return (2 * half + 1) * s->per;
}

double series_last(int64_t n, const double *y) {
    while (n > 0 && !isfinite(y[n - 1])) n--;
    return n ? y[n - 1] : NAN;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double series_quantile(int64_t n, double *x, double at) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(x[i])) x[count++] = x[i];
    if (!count) return NAN;
    qsort(x, (size_t)count, sizeof *x, ascending);
    return x[(int64_t)(at * (double)(count - 1) + 0.5)];
}
