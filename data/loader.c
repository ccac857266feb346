#include "data/loader.h"

#include <math.h>
#include <string.h>

#include "data/indexed.h"
#include "launch/memory.h"
#include "launch/random.h"

static const int64_t checked_bytes = (int64_t)4 << 30; /* of a file, when it is opened */

typedef struct source {
    indexed_reader file;
    uint64_t stream;  /* of its random numbers */
    int64_t samples;  /* in the file: one epoch */
    int64_t in_block; /* how many of a block of samples are its */
} source;

struct loader {
    int64_t seq_len, vocab_size, sources;
    int validation;
    uint64_t seed, order_stream;
    source source[DATA_MAX_SOURCES];
};

void loader_shares(int64_t *count, const double *weight, int64_t sources, int64_t total) {
    double sum = 0, remainder[DATA_MAX_SOURCES];
    int64_t given = 0;
    for (int64_t s = 0; s < sources; s++) sum += weight[s];
    for (int64_t s = 0; s < sources; s++) {
        double exact = weight[s] / sum * (double)total;
        count[s] = (int64_t)floor(exact);
        remainder[s] = exact - (double)count[s];
        given += count[s];
    }
    for (; given < total; given++) {
        int64_t most = 0;
        for (int64_t s = 1; s < sources; s++)
            if (remainder[s] > remainder[most]) most = s;
        count[most]++;
        remainder[most] = -1;
    }
}

static int check_config(const data_config *c, int64_t *in_block, error *e) {
    double weight[DATA_MAX_SOURCES];
    if (c->sources < 1 || c->sources > DATA_MAX_SOURCES)
        return error_set(e, EXIT_USAGE, "data.sources: %lld of them; 1 to %d are allowed",
                         (long long)c->sources, DATA_MAX_SOURCES);
    for (int64_t s = 0; s < c->sources; s++) {
        weight[s] = c->source[s].weight;
        if (!(weight[s] > 0 && isfinite(weight[s])))
            return error_set(e, EXIT_USAGE, "data source %s: its weight is %g; it must be above 0",
                             c->source[s].name, weight[s]);
        for (int64_t t = 0; t < s; t++)
            if (!strcmp(c->source[s].name, c->source[t].name))
                return error_set(e, EXIT_USAGE, "data source %s stands twice", c->source[s].name);
    }
    loader_shares(in_block, weight, c->sources, LOADER_BLOCK);
    for (int64_t s = 0; s < c->sources; s++)
        if (!in_block[s])
            return error_set(
                e, EXIT_USAGE,
                "data source %s: its weight %g is less than one sample in %d, so none would come",
                c->source[s].name, weight[s], LOADER_BLOCK);
    return 0;
}

static int open_source(loader *l, source *s, const data_source *c, error *e) {
    const char *prefix = l->validation ? c->valid : c->train;
    s->stream = random_stream(c->name);
    s->file.bin.data = "";
    if (!prefix && l->validation) return 0;
    if (!prefix) return error_set(e, EXIT_USAGE, "data source %s has no training files", c->name);
    if (indexed_open(&s->file, prefix, e)) return error_within(e, "data source %s", c->name);
    if (indexed_check(&s->file, checked_bytes / s->file.token_bytes, l->vocab_size, e))
        return error_within(e, "data source %s", c->name);
    s->samples = s->file.tokens < l->seq_len + 2 ? 0 : (s->file.tokens - 2) / l->seq_len;
    if (s->samples) return 0;
    return error_set(
        e, EXIT_USAGE, "data source %s: %s has %lld tokens, and one sample of length %lld takes %lld",
        c->name, s->file.path, (long long)s->file.tokens, (long long)l->seq_len, (long long)l->seq_len + 2);
}

int loader_open(loader **out, const data_config *c, int validation, int64_t seq_len, int64_t vocab_size,
                uint64_t seed, error *e) {
    REQUIRE(seq_len > 0);
    int64_t in_block[DATA_MAX_SOURCES];
    if (check_config(c, in_block, e)) return e->code;
    loader *l = mem_alloc(sizeof *l, "the loader");
    l->seq_len = seq_len;
    l->vocab_size = vocab_size;
    l->validation = validation;
    l->seed = seed;
    l->order_stream = random_stream("data.order");
    int code = 0;
    for (; l->sources < c->sources && !code; l->sources++) {
        l->source[l->sources].in_block = in_block[l->sources];
        code = open_source(l, &l->source[l->sources], &c->source[l->sources], e);
    }
    if (code) loader_close(l);
    else *out = l;
    return code;
}

void loader_close(loader *l) {
    if (!l) return;
    for (int64_t s = 0; s < l->sources; s++) indexed_close(&l->source[s].file);
    mem_free(l);
}

int64_t loader_source_samples(const loader *l, int64_t source_index) {
    return l->source[source_index].samples;
}
int64_t loader_source_tokens(const loader *l, int64_t source_index) {
    return l->source[source_index].file.tokens;
}

void loader_source_sample(const loader *l, int64_t source_index, int64_t k, int32_t *tokens) {
    const source *s = &l->source[source_index];
    REQUIRE(k >= 0 && k < s->samples);
    indexed_copy(&s->file, k * l->seq_len, l->seq_len + 2, tokens);
    for (int64_t i = 0; i < l->seq_len + 2; i++) /* not all of a large file was checked */
        if (tokens[i] < 0 || tokens[i] >= l->vocab_size)
            FAULT(EXIT_CORRUPT, "%s: token %lld is %d, and the vocabulary has %lld", s->file.path,
                  (long long)(k * l->seq_len + i), tokens[i], (long long)l->vocab_size);
}

int64_t loader_sample(const loader *l, int64_t position, int32_t *tokens) {
    REQUIRE(position >= 0 && !l->validation);
    uint64_t block = (uint64_t)position / LOADER_BLOCK, in_block = (uint64_t)position % LOADER_BLOCK;
    uint64_t stream = random_bits(l->seed, l->order_stream, block);
    int64_t slot = (int64_t)random_permute(l->seed, stream, LOADER_BLOCK, in_block);

    /* the slots of a block belong to the sources in turn: the first in_block[0] to source 0, and so on */
    int64_t which = 0;
    for (; slot >= l->source[which].in_block; which++) slot -= l->source[which].in_block;
    const source *s = &l->source[which];

    uint64_t ordinal = block * (uint64_t)s->in_block + (uint64_t)slot; /* of all samples of this source */
    uint64_t epoch = ordinal / (uint64_t)s->samples, i = ordinal % (uint64_t)s->samples;
    uint64_t epoch_stream = random_bits(l->seed, s->stream, epoch);
    int64_t k = (int64_t)random_permute(l->seed, epoch_stream, (uint64_t)s->samples, i);
    loader_source_sample(l, which, k, tokens);
    return which;
}
