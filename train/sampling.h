/* Choosing the next token: temperature, nucleus (Holtzman et al., top-p), and a seed that decides everything.
 */
#ifndef CARACAL_TRAIN_SAMPLING_H
#define CARACAL_TRAIN_SAMPLING_H

#include "kernels/kernels.h"

typedef struct sampling {
    double temperature; /* 0: always the likeliest token, of equals the lower id */
    double top_p;       /* only the likeliest tokens that together reach this probability */
    uint64_t seed;
} sampling;

/* A candidate; scratch of sampling_choose. */
typedef struct sampling_token {
    double probability;
    int32_t id;
} sampling_token;

/* The token that follows: a function of (logits [n], c, text, i), for position i of the text-th text.
 * candidates [n]: scratch. */
int32_t sampling_choose(const sampling *c, const real *logits, int64_t n, uint64_t text, uint64_t i,
                        sampling_token *candidates);

#endif
