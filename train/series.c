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

/* `mean` holds sums until finish(). */
static void start(column *c, int64_t bins, int64_t width) {
    c->width = width;
    c->mean = filled(bins * width, 0);
    c->low = filled(bins * width, INFINITY);
    c->high = filled(bins * width, -INFINITY);
    c->last = NAN;
}

static void gather(column *c, int64_t **count, int64_t bins, int64_t bin, const json_t *value) {
    int64_t width = json_is_array(value) ? (int64_t)json_array_size(value) : 1;
    if (!c->width) {
        if (!width) return;
        start(c, bins, width);
        *count = mem_alloc((size_t)(bins * width) * sizeof **count, "counts of a log");
    }
    for (int64_t i = 0; i < c->width && i < width; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, (size_t)i) : value;
        double x = json_is_number(one) ? json_number_value(one) : NAN; /* null stands for a NaN */
        if (!isfinite(x)) continue;
        int64_t at = bin * c->width + i;
        c->mean[at] += x;
        c->low[at] = fmin(c->low[at], x);
        c->high[at] = fmax(c->high[at], x);
        (*count)[at]++;
        c->last = x;
    }
}

static void finish(column *c, const int64_t *count, int64_t bins) {
    for (int64_t i = 0; i < bins * c->width; i++) {
        if (count[i]) c->mean[i] /= (double)count[i];
        else c->mean[i] = c->low[i] = c->high[i] = NAN;
    }
}

int series_read(series *s, const char *path, int keys, const char *const *key, error *e) {
    REQUIRE(keys <= SERIES_COLUMNS);
    *s = (series){.columns = keys};
    for (int k = 0; k < keys; k++) s->column[k].key = key[k];
    jsonl log;
    if (jsonl_open(&log, path, e)) return e->code;
    s->broken = log.broken;
    s->rows = log.rows;
    if (log.rows) {
        s->first = log.step[0];
        s->last = log.step[log.rows - 1];
        int64_t span = s->last - s->first + 1, *count[SERIES_COLUMNS] = {0};
        s->bins = span < SERIES_BINS ? span : SERIES_BINS;
        s->step = mem_alloc((size_t)s->bins * sizeof *s->step, "steps of a series");
        for (int64_t b = 0; b < s->bins; b++)
            s->step[b] = (double)s->first + ((double)b + 0.5) * (double)span / (double)s->bins - 0.5;
        json_t *row;
        while ((row = jsonl_next(&log))) {
            int64_t bin =
                (int64_t)((double)(log.step[log.next - 1] - s->first) * (double)s->bins / (double)span);
            for (int k = 0; k < keys; k++) {
                const json_t *value = json_object_get(row, key[k]);
                if (value) gather(&s->column[k], &count[k], s->bins, bin, value);
            }
            json_decref(row);
        }
        for (int k = 0; k < keys; k++) {
            finish(&s->column[k], count[k], s->bins);
            mem_free(count[k]);
        }
    }
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
        mem_free(s->column[k].mean);
        mem_free(s->column[k].low);
        mem_free(s->column[k].high);
    }
    mem_free(s->step);
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
