#include "train/compare_stats.h"

#include <math.h>

#include "launch/memory.h"

enum { MOST_POINTS = 200 };

estimate estimate_of(int64_t n, const double *d) {
    estimate x = {NAN, NAN, NAN, n};
    double sum = 0, square = 0, lagged = 0;
    for (int64_t i = 0; i < n; i++) sum += d[i];
    if (n) x.mean = sum / (double)n;
    if (n < 3) return x;
    for (int64_t i = 0; i < n; i++) {
        square += (d[i] - x.mean) * (d[i] - x.mean);
        if (i) lagged += (d[i] - x.mean) * (d[i - 1] - x.mean);
    }
    double r = square > 0 ? fmin(fmax(lagged / square, 0), 0.99) : 0;
    double independent = fmax((double)n * (1 - r) / (1 + r), 2);
    double half = 1.96 * sqrt(square / (double)(n - 1) / independent);
    x.low = x.mean - half;
    x.high = x.mean + half;
    return x;
}

void difference_of(difference *d, const trace *a, const trace *b) {
    *d = (difference){.equal = 1, .last = estimate_of(0, NULL)};
    int64_t most = a->n < b->n ? a->n : b->n;
    double *at = mem_alloc((size_t)most * sizeof *at, "a comparison"),
           *diff = mem_alloc((size_t)most * sizeof *diff, "a comparison");
    for (int64_t i = 0, j = 0; i < a->n && j < b->n;) {
        if (a->step[i] == b->step[j]) {
            at[d->pairs] = (double)a->step[i];
            diff[d->pairs] = b->value[j++] - a->value[i++];
            d->equal &= diff[d->pairs++] == 0;
        } else if (a->step[i] < b->step[j]) i++;
        else j++;
    }
    d->window = d->pairs / 12 > 10 ? d->pairs / 12 : 10;
    if (d->window > d->pairs) d->window = d->pairs;
    int64_t places = d->pairs - d->window + 1;
    d->points = d->pairs == 0 ? 0 : places < MOST_POINTS ? places : MOST_POINTS;
    double **out[] = {&d->step, &d->mean, &d->low, &d->high};
    for (int i = 0; i < 4; i++) *out[i] = mem_alloc((size_t)d->points * sizeof(double), "a comparison");
    for (int64_t p = 0; p < d->points; p++) {
        int64_t first = d->points > 1 ? p * (places - 1) / (d->points - 1) : 0;
        estimate x = estimate_of(d->window, diff + first);
        d->step[p] = (at[first] + at[first + d->window - 1]) / 2;
        d->mean[p] = x.mean;
        d->low[p] = x.low;
        d->high[p] = x.high;
        d->last = x;
    }
    mem_free(at);
    mem_free(diff);
}

void difference_free(difference *d) {
    mem_free(d->step);
    mem_free(d->mean);
    mem_free(d->low);
    mem_free(d->high);
    *d = (difference){0};
}
