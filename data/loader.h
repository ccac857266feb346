/* Which sample comes when: sample i of a run is a pure function of (seed, i), found in constant time.
 *
 * A sample of length L is the tokens [iL, iL + L + 2) of its source.  Per block of 1,024 samples each
 * source's count is its share of the weights by largest remainder, the order inside the block is a keyed
 * permutation, and inside a source a keyed permutation per epoch says which sample comes: each once per
 * epoch.
 */
#ifndef CARACAL_DATA_LOADER_H
#define CARACAL_DATA_LOADER_H

#include <stdint.h>

#include "launch/error.h"

enum { DATA_MAX_SOURCES = 64, LOADER_BLOCK = 1024 };

typedef struct data_source {
    char *name;          /* distinct; part of what the order of its samples is drawn from */
    char *train, *valid; /* prefixes of .bin/.idx pairs; valid may be NULL */
    double weight;       /* > 0; shares of the mixture, need not sum to 1 */
} data_source;

typedef struct data_config {
    char *tokenizer; /* path of tokenizer.json */
    int64_t sources;
    data_source source[DATA_MAX_SOURCES];
} data_config;

typedef struct loader loader;

/* Maps every source's token files (train, or valid when `validation`; sources without valid then have no
 * samples) and checks them: layout, token ids below vocab_size (naming file and position), at least one
 * sample each, a weight that gives at least one sample in a block.  Of a file larger than 4 GiB only the
 * first 4 GiB are read here; its other ids are checked when they are used. */
int loader_open(loader **out, const data_config *c, int validation, int64_t seq_len, int64_t vocab_size,
                uint64_t seed, error *e);
void loader_close(loader *l);

/* Sample `position` of the run (training): tokens [seq_len + 2] =; returns the source's index. */
int64_t loader_sample(const loader *l, int64_t position, int32_t *tokens);
/* Sample k of one source in file order (validation): k < loader_source_samples. */
void loader_source_sample(const loader *l, int64_t source, int64_t k, int32_t *tokens);
int64_t loader_source_samples(const loader *l, int64_t source);
int64_t loader_source_tokens(const loader *l, int64_t source);

/* count [sources] = largest-remainder shares of `total`; of equal remainders the earlier source's is served
 * first.  Weights are > 0. */
void loader_shares(int64_t *count, const double *weight, int64_t sources, int64_t total);

#endif
