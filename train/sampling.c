#include "train/sampling.h"

#include <stdlib.h>

#include "kernels/math.h"
#include "launch/random.h"

static int32_t likeliest(const real *logits, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

static int likelier_first(const void *a, const void *b) {
    const sampling_token *x = a, *y = b;
    if (x->probability != y->probability) return x->probability > y->probability ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

int32_t sampling_choose(const sampling *c, const real *logits, int64_t n, uint64_t text, uint64_t i,
                        sampling_token *candidates) {
    int32_t best = likeliest(logits, n);
    if (c->temperature == 0) return best;
    double sum = 0, nucleus = 0, at = 0;
    for (int64_t k = 0; k < n; k++) {
        double p = fixed_exp(((double)logits[k] - (double)logits[best]) / c->temperature);
        candidates[k] = (sampling_token){p, (int32_t)k};
        sum += p;
    }
    qsort(candidates, (size_t)n, sizeof *candidates, likelier_first);
    int64_t kept = 0;
    while (kept < n && (kept == 0 || nucleus < c->top_p * sum)) nucleus += candidates[kept++].probability;

    double drawn = nucleus * random_uniform(c->seed, text, i);
    for (int64_t k = 0; k < kept; k++) {
        at += candidates[k].probability;
        if (drawn < at) return candidates[k].id;
    }
    return candidates[kept - 1].id;
}
