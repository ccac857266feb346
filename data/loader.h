/* Which sample comes when: sample i of a run is a pure function of (seed, i, stages), found in constant time.
 *
 * A sample of length L is the tokens [iL, iL + L + 2) of its source.  Per block of 1,024 samples each
 * source's count is its share of the weights by largest remainder, the order inside the block is a keyed
 * permutation, and inside a source a keyed permutation per epoch says which sample comes: each once per
 * epoch.  How stages change weights and lengths on the way: data/mixture.h.
 */
#ifndef CARACAL_DATA_LOADER_H
#define CARACAL_DATA_LOADER_H

#include <stdint.h>

#include "data/tokenizer.h"
#include "launch/error.h"

enum { DATA_MAX_SOURCES = 64, DATA_MAX_STAGES = 64, LOADER_BLOCK = 1024 };

typedef struct data_source {
    char *name;          /* distinct; part of what the order of its samples is drawn from */
    char *train, *valid; /* prefixes of .bin/.idx pairs; valid may be NULL */
    double weight;       /* > 0; shares of the mixture, need not sum to 1 */
} data_source;

/* What is different from some step on.  The first stage of a run is what the config says elsewhere; the list
 * has the later ones, complete: what a stage does not say is as in the stage before. */
typedef struct data_stage {
    int64_t after;                   /* steps done before it begins */
    double weight[DATA_MAX_SOURCES]; /* one for each source, 0: none of it; not all 0 */
    int64_t ramp;                    /* steps over which the shares move there linearly; 0: at once */
    int64_t seq_len, micro_batches, micro_batch_size;
    double rope_theta;
    int64_t position, ramp_samples; /* what `after` and `ramp` are in samples of the run */
} data_stage;

typedef struct data_config {
    char *tokenizer; /* path of tokenizer.json */
    int64_t sources, stages;
    data_source source[DATA_MAX_SOURCES];
    data_stage stage[DATA_MAX_STAGES]; /* stage k of the run is stage[k - 1] */
} data_config;

typedef struct loader loader;

/* Maps every source's token files (train, or valid when `validation`; sources without valid then have no
 * samples) and checks them: layout, token ids below vocab_size (naming file and position), at least one
 * sample each at the length of every stage that uses it, a weight that gives at least one sample in a block.
 * Of a file larger than 4 GiB only the first 4 GiB are read here; its other ids are checked when they are
 * used.  seq_len: of the first stage. */
int loader_open(loader **out, const data_config *c, int validation, int64_t seq_len, int64_t vocab_size,
                uint64_t seed, error *e);
void loader_close(loader *l);

/* Sample `position` of the run (training), of a step in stage `stage` (0: before all of data.stages): tokens
 * [the stage's seq_len + 2] =; returns the source's index.  A run that skipped samples is further on than its
 * steps say: its stages go on past where they would have ended. */
int64_t loader_sample(const loader *l, int64_t stage, int64_t position, int32_t *tokens);
/* Where that sample comes from, for people: its source, which of the source's samples it is, and the number
 * of its first token in the source's file. */
typedef struct sample_place {
    int64_t source, sample, token;
} sample_place;
sample_place loader_place(const loader *l, int64_t stage, int64_t position);
/* Sample k of one source in file order, cut for a stage (validation): k < loader_source_samples. */
void loader_source_sample(const loader *l, int64_t stage, int64_t source, int64_t k, int32_t *tokens);
int64_t loader_source_samples(const loader *l, int64_t stage, int64_t source);
/* 32 hex digits that tell a source's tokens from others, "" where it has none.  Of a file larger than 4 GiB
 * only the first 4 GiB count, and the lengths of all its documents. */
const char *loader_source_digest(const loader *l, int64_t source);
/* EXIT_USAGE where token files say that they were made with another tokenizer than `t`, of the path
 * c->tokenizer. Files that `data build` did not write say nothing. */
int loader_check_tokenizer(const loader *l, const data_config *c, const tokenizer *t, error *e);

#endif
