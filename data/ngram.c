#include "data/ngram.h"

#include <math.h>

#include "data/indexed.h"
#include "data/pair_table.h"
#include "launch/memory.h"

typedef struct corpus {
    int32_t *token;
    int64_t count;
} corpus;

/* p(w | h) = (c(hw) - D(c(hw))) / c(h) + b(h) q(w),   q(w) = (n(w) - d) / N + d types / N / V
 * where D depends on whether the pair was seen once, twice or more often, b(h) is what the discounts took
 * from h, n(w) is the number of different tokens that w follows, N their sum, `types` the number of tokens
 * that follow any, and V the size of the vocabulary. */
typedef struct model {
    int64_t vocab_size, n_sum, types;
    double discount[4]; /* by count, 3 for 3 and more; [0] = 0 */
    double d;
    pair_table pairs;
    int64_t *follows;  /* [V] c(h): how often h is followed by something */
    int64_t *precedes; /* [V] n(w) */
    double *taken;     /* [V] b(h) c(h): the sum of the discounts */
} model;

static int at_most_3(int64_t count) {
    return (int)(count < 3 ? count : 3);
}

/* The discounts for counts of 1, 2 and 3 or more, from how many things were counted once, twice, three and
 * four times (of[1 .. 4]); one half where that is too little to go by. */
static void fit_discounts(double discount[4], const int64_t of[5]) {
    double y = of[1] ? (double)of[1] / ((double)of[1] + 2.0 * (double)of[2]) : 0;
    discount[0] = 0;
    for (int i = 1; i <= 3; i++) {
        double d = of[i] ? i - (i + 1) * y * (double)of[i + 1] / (double)of[i] : 0;
        discount[i] = d > 0 && d < i ? d : 0.5;
    }
}

static void count_pairs(model *m, const corpus *train, int sources) {
    for (int s = 0; s < sources; s++)
        for (int64_t i = 0; i + 1 < train[s].count; i++) {
            int32_t h = train[s].token[i], w = train[s].token[i + 1];
            int64_t *count = pair_table_at(&m->pairs, h, w);
            if (!*count) m->precedes[w]++;
            ++*count;
            m->follows[h]++;
        }
}

static void model_open(model *m, const corpus *train, int sources, int64_t vocab_size) {
    *m = (model){.vocab_size = vocab_size};
    m->follows = mem_alloc((size_t)vocab_size * sizeof *m->follows, "a bigram model");
    m->precedes = mem_alloc((size_t)vocab_size * sizeof *m->precedes, "a bigram model");
    m->taken = mem_alloc((size_t)vocab_size * sizeof *m->taken, "a bigram model");
    count_pairs(m, train, sources);

    int64_t pairs_of[5] = {0}, tokens_of[5] = {0};
    const pair_entry *p = m->pairs.entry, *end = p + m->pairs.slots;
    for (const pair_entry *i = p; i < end; i++)
        if (i->left >= 0 && i->value <= 4) pairs_of[i->value]++;
    for (int64_t w = 0; w < vocab_size; w++) {
        m->n_sum += m->precedes[w];
        m->types += m->precedes[w] > 0;
        if (m->precedes[w] <= 4) tokens_of[m->precedes[w]]++;
    }
    double lower[4];
    fit_discounts(lower, tokens_of);
    m->d = lower[1];
    fit_discounts(m->discount, pairs_of);
    for (const pair_entry *i = p; i < end; i++)
        if (i->left >= 0) m->taken[i->left] += m->discount[at_most_3(i->value)];
}

static void model_close(model *m) {
    pair_table_free(&m->pairs);
    mem_free(m->follows);
    mem_free(m->precedes);
    mem_free(m->taken);
}

static double probability(const model *m, int32_t h, int32_t w) {
    double n = (double)m->precedes[w], uniform = 1.0 / (double)m->vocab_size;
    double q = ((n > 0 ? n - m->d : 0) + m->d * (double)m->types * uniform) / (double)m->n_sum;
    if (!m->follows[h]) return q;
    const int64_t *count = pair_table_find(&m->pairs, h, w);
    double kept = count ? (double)*count - m->discount[at_most_3(*count)] : 0;
    return (kept + m->taken[h] * q) / (double)m->follows[h];
}

/* The sum over all tokens but the first. */
static double bigram_sum(const model *m, const corpus *c) {
    double sum = 0;
    for (int64_t i = 0; i + 1 < c->count; i++) sum -= log(probability(m, c->token[i], c->token[i + 1]));
    return sum;
}

static double entropy(const corpus *c, int sources, int64_t vocab_size) {
    int64_t *times = mem_alloc((size_t)vocab_size * sizeof *times, "token counts"), all = 0;
    for (int s = 0; s < sources; s++)
        for (int64_t i = 0; i < c[s].count; i++, all++) times[c[s].token[i]]++;
    double sum = 0;
    for (int64_t w = 0; w < vocab_size; w++)
        if (times[w]) sum -= (double)times[w] * log((double)times[w] / (double)all);
    mem_free(times);
    return sum / (double)all;
}

static int read_corpus(corpus *c, const char *prefix, int64_t *vocab_size, error *e) {
    indexed_reader r;
    if (indexed_open(&r, prefix, e)) return e->code;
    int code = indexed_check(&r, r.tokens, INT32_MAX, e);
    if (!code && r.tokens < 2)
        code =
            error_set(e, EXIT_CORRUPT, "%s has %lld tokens: too few to measure", r.path, (long long)r.tokens);
    if (!code) {
        c->count = r.tokens;
        c->token = mem_alloc((size_t)r.tokens * sizeof *c->token, "tokens");
        indexed_copy(&r, 0, r.tokens, c->token);
        for (int64_t i = 0; i < r.tokens; i++)
            if (c->token[i] >= *vocab_size) *vocab_size = (int64_t)c->token[i] + 1;
    }
    indexed_close(&r);
    return code;
}

static void measure(ngram_loss *loss, ngram_loss *total, const corpus *train, const corpus *valid,
                    int sources, int64_t vocab_size) {
    model all, own;
    int64_t predicted = 0;
    *total = (ngram_loss){.unigram = entropy(valid, sources, vocab_size)};
    model_open(&all, train, sources, vocab_size);
    for (int s = 0; s < sources; s++) {
        double n = (double)(valid[s].count - 1);
        model_open(&own, &train[s], 1, vocab_size);
        double sum = bigram_sum(&all, &valid[s]), sum_own = bigram_sum(&own, &valid[s]);
        model_close(&own);
        loss[s] = (ngram_loss){train[s].count, valid[s].count, entropy(&valid[s], 1, vocab_size), sum / n,
                               sum_own / n};
        total->train_tokens += train[s].count;
        total->valid_tokens += valid[s].count;
        total->bigram += sum;
        total->bigram_own += sum_own;
        predicted += valid[s].count - 1;
    }
    model_close(&all);
    total->bigram /= (double)predicted;
    total->bigram_own /= (double)predicted;
}

int ngram_measure(ngram_loss *loss, ngram_loss *total, const ngram_files *files, int sources, error *e) {
    corpus *train = mem_alloc((size_t)sources * sizeof *train, "tokens");
    corpus *valid = mem_alloc((size_t)sources * sizeof *valid, "tokens");
    int64_t vocab_size = 0;
    int code = 0;
    for (int s = 0; s < sources && !code; s++) {
        code = read_corpus(&train[s], files[s].train, &vocab_size, e);
        if (!code) code = read_corpus(&valid[s], files[s].valid, &vocab_size, e);
    }
    if (!code) measure(loss, total, train, valid, sources, vocab_size);
    for (int s = 0; s < sources; s++) {
        mem_free(train[s].token);
        mem_free(valid[s].token);
    }
    mem_free(train);
    mem_free(valid);
    return code;
}
