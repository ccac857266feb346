#include "data/loader.h"

#include <math.h>
#include <string.h>

#include "data/indexed.h"
#include "data/mixture.h"
#include "launch/memory.h"
#include "launch/random.h"

static const int64_t checked_bytes = (int64_t)4 << 30; /* of a file, when it is opened */

typedef struct source {
    indexed_reader file;
    uint64_t stream; /* of its random numbers */
    char digest[33];
} source;

struct loader {
    int64_t vocab_size, sources, stages; /* stages: at least one */
    int validation;
    uint64_t seed;
    mixture *mixture;                     /* training */
    int64_t seq_len[DATA_MAX_STAGES + 1]; /* of each stage */
    source source[DATA_MAX_SOURCES];
};

static int check_config(const data_config *c, error *e) {
    if (c->sources < 1 || c->sources > DATA_MAX_SOURCES)
        return error_set(e, EXIT_USAGE, "data.sources: %lld of them; 1 to %d are allowed",
                         (long long)c->sources, DATA_MAX_SOURCES);
    for (int64_t s = 0; s < c->sources; s++) {
        double weight = c->source[s].weight;
        if (!(weight > 0 && isfinite(weight)))
            return error_set(e, EXIT_USAGE, "data source %s: its weight is %g; it must be above 0",
                             c->source[s].name, weight);
        for (int64_t t = 0; t < s; t++)
            if (!strcmp(c->source[s].name, c->source[t].name))
                return error_set(e, EXIT_USAGE, "data source %s stands twice", c->source[s].name);
    }
    return 0;
}

static int open_source(loader *l, source *s, const data_source *c, error *e) {
    const char *prefix = l->validation ? c->valid : c->train;
    s->stream = random_stream(c->name);
    s->file.bin.data = "";
    if (!prefix && l->validation) return 0;
    if (!prefix) return error_set(e, EXIT_USAGE, "data source %s has no training files", c->name);
    const char *end = strrchr(prefix, '.');
    if (end && (!strcmp(end, ".bin") || !strcmp(end, ".idx")))
        return error_set(e, EXIT_USAGE,
                         "data source %s: %s: leave out %s: the path is that of a pair, .bin and .idx",
                         c->name, prefix, end);
    if (indexed_open(&s->file, prefix, e)) return error_within(e, "data source %s", c->name);
    int64_t most = checked_bytes / s->file.token_bytes;
    if (indexed_check(&s->file, most, l->vocab_size, e)) return error_within(e, "data source %s", c->name);
    indexed_digest(&s->file, most, s->digest); /* of what was just read anyway */
    return 0;
}

/* A source must have a sample of every length at which it is wanted. */
static int check_lengths(const loader *l, const data_config *c, error *e) {
    for (int64_t stage = 0; stage < l->stages; stage++)
        for (int64_t i = 0; i < l->sources; i++) {
            const source *s = &l->source[i];
            int wanted = l->validation ? c->source[i].valid != NULL : mixture_uses(l->mixture, stage, i);
            if (!wanted || loader_source_samples(l, stage, i)) continue;
            return error_set(e, EXIT_USAGE,
                             "data source %s: %s has %lld tokens, and one sample of length %lld takes %lld",
                             c->source[i].name, s->file.path, (long long)s->file.tokens,
                             (long long)l->seq_len[stage], (long long)l->seq_len[stage] + 2);
        }
    return 0;
}

static int open_mixture(loader *l, const data_config *c, error *e) {
    int64_t samples[(DATA_MAX_STAGES + 1) * DATA_MAX_SOURCES];
    for (int64_t stage = 0; stage < l->stages; stage++)
        for (int64_t i = 0; i < l->sources; i++)
            samples[stage * l->sources + i] = loader_source_samples(l, stage, i);
    return mixture_open(&l->mixture, c, l->seq_len[0], samples, l->seed, e);
}

int loader_open(loader **out, const data_config *c, int validation, int64_t seq_len, int64_t vocab_size,
                uint64_t seed, error *e) {
    REQUIRE(seq_len > 0 && c->stages <= DATA_MAX_STAGES);
    if (check_config(c, e)) return e->code;
    loader *l = mem_alloc(sizeof *l, "the loader");
    *l = (loader){.vocab_size = vocab_size, .validation = validation, .seed = seed, .stages = c->stages + 1};
    l->seq_len[0] = seq_len;
    for (int64_t k = 0; k < c->stages; k++) l->seq_len[k + 1] = c->stage[k].seq_len;
    int code = 0;
    for (; l->sources < c->sources && !code; l->sources++)
        code = open_source(l, &l->source[l->sources], &c->source[l->sources], e);
    if (!code && !validation) code = open_mixture(l, c, e);
    if (!code) code = check_lengths(l, c, e);
    if (code) loader_close(l);
    else *out = l;
    return code;
}

void loader_close(loader *l) {
    if (!l) return;
    for (int64_t s = 0; s < l->sources; s++) indexed_close(&l->source[s].file);
    if (l->mixture) mixture_close(l->mixture);
    mem_free(l);
}

int64_t loader_source_samples(const loader *l, int64_t stage, int64_t source_index) {
    int64_t tokens = l->source[source_index].file.tokens, length = l->seq_len[stage];
    return tokens < length + 2 ? 0 : (tokens - 2) / length;
}

const char *loader_source_digest(const loader *l, int64_t source_index) {
    return l->source[source_index].digest;
}

int loader_check_tokenizer(const loader *l, const data_config *c, const tokenizer *t, error *e) {
    for (int64_t i = 0; i < l->sources; i++) {
        const indexed_reader *f = &l->source[i].file;
        if (!*f->tokenizer || !strcmp(f->tokenizer, tokenizer_digest(t))) continue;
        return error_set(
            e, EXIT_USAGE,
            "data source %s: %s was made with another tokenizer than %s: let data.tokenizer name "
            "that one, or make the file again with `caracal data build --tokenizer=%s`",
            c->source[i].name, f->path, c->tokenizer, c->tokenizer);
    }
    return 0;
}

void loader_source_sample(const loader *l, int64_t stage, int64_t source_index, int64_t k, int32_t *tokens) {
    const source *s = &l->source[source_index];
    int64_t length = l->seq_len[stage];
    REQUIRE(k >= 0 && k < loader_source_samples(l, stage, source_index));
    indexed_copy(&s->file, k * length, length + 2, tokens);
    for (int64_t i = 0; i < length + 2; i++) /* not all of a large file was checked */
        if (tokens[i] < 0 || tokens[i] >= l->vocab_size)
            FAULT(EXIT_CORRUPT, "%s: token %lld is %d, and the vocabulary has %lld", s->file.path,
                  (long long)(k * length + i), tokens[i], (long long)l->vocab_size);
}

sample_place loader_place(const loader *l, int64_t stage, int64_t position) {
    REQUIRE(stage >= 0 && stage < l->stages && !l->validation);
    mixture_draw d = mixture_at(l->mixture, stage, position);
    const source *s = &l->source[d.source];
    uint64_t epoch_stream = random_bits(l->seed, s->stream, (uint64_t)d.epoch);
    uint64_t samples = (uint64_t)loader_source_samples(l, stage, d.source);
    int64_t k = (int64_t)random_permute(l->seed, epoch_stream, samples, (uint64_t)d.ordinal);
    return (sample_place){d.source, k, k * l->seq_len[stage]};
}

int64_t loader_sample(const loader *l, int64_t stage, int64_t position, int32_t *tokens) {
    sample_place p = loader_place(l, stage, position);
    loader_source_sample(l, stage, p.source, p.sample, tokens);
    return p.source;
}
