#include "data/mixture.h"

#include <math.h>
#include <string.h>

#include "launch/memory.h"
#include "launch/random.h"

enum { RAMP_LEVELS = 1024 }; /* different shares in one ramp; a shorter one has as many as it has blocks */

/* Blocks of the same shares. */
typedef struct stretch {
    int64_t position, block; /* of its first sample; number of its first block */
    int64_t in_block[DATA_MAX_SOURCES];
    int64_t before[DATA_MAX_SOURCES]; /* samples of each source in its part before this stretch */
} stretch;

/* Stages of one length and one mixture, ramp included. */
typedef struct part {
    int64_t position, first, stretches, seq_len;
    int64_t epoch[DATA_MAX_SOURCES];   /* number of the first epoch at this length */
    int64_t samples[DATA_MAX_SOURCES]; /* in an epoch */
    int64_t fresh[DATA_MAX_SOURCES];   /* ordinals below were given out before, but for those left over */
    int64_t *left[DATA_MAX_SOURCES], lefts[DATA_MAX_SOURCES]; /* ordinals that come before the fresh ones */
} part;

struct mixture {
    uint64_t seed, order_stream;
    int64_t sources, parts, stretches;
    int64_t part_of[DATA_MAX_STAGES + 1]; /* by stage */
    part part[DATA_MAX_STAGES + 1];
    stretch *stretch;
};

void mixture_shares(int64_t *count, const double *weight, int64_t sources, int64_t total) {
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

/* ---- finding a position ---- */

static const stretch *stretch_at(const mixture *m, const part *p, int64_t position) {
    const stretch *s = m->stretch + p->first;
    int64_t low = 0, high = p->stretches; /* low begins at or before the position, high behind it */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (s[middle].position <= position) low = middle;
        else high = middle;
    }
    return &s[low];
}

/* Where in its block a sample is drawn: the slots of a block belong to the sources in turn, the first
 * in_block[0] to source 0, and so on. */
static int64_t slot_of(const mixture *m, int64_t block, int64_t i) {
    uint64_t stream = random_bits(m->seed, m->order_stream, (uint64_t)block);
    return (int64_t)random_permute(m->seed, stream, LOADER_BLOCK, (uint64_t)i);
}

/* The ordinal of the j-th sample of a source in a part. */
static int64_t ordinal_of(const part *p, int64_t source, int64_t j) {
    return j < p->lefts[source] ? p->left[source][j] : p->fresh[source] + j - p->lefts[source];
}

mixture_draw mixture_at(const mixture *m, int64_t stage, int64_t position) {
    const part *p = &m->part[m->part_of[stage]];
    REQUIRE(position >= p->position);
    const stretch *s = stretch_at(m, p, position);
    int64_t blocks = (position - s->position) / LOADER_BLOCK, source = 0;
    int64_t slot = slot_of(m, s->block + blocks, (position - s->position) % LOADER_BLOCK);
    for (; slot >= s->in_block[source]; source++) slot -= s->in_block[source];
    int64_t j = s->before[source] + blocks * s->in_block[source] + slot;
    int64_t ordinal = ordinal_of(p, source, j), samples = p->samples[source];
    return (mixture_draw){source, p->epoch[source] + ordinal / samples, ordinal % samples};
}

int mixture_uses(const mixture *m, int64_t stage, int64_t source) {
    const part *p = &m->part[m->part_of[stage]];
    for (int64_t i = 0; i < p->stretches; i++)
        if (m->stretch[p->first + i].in_block[source]) return 1;
    return 0;
}

/* ---- making the table ---- */

/* Appends a stretch of these weights to the part; the one before it has so many blocks. */
static void add_stretch(mixture *m, part *p, const double *weight, int64_t block, int64_t blocks_before) {
    stretch *s = &m->stretch[m->stretches++];
    *s = (stretch){.position = p->position, .block = block};
    mixture_shares(s->in_block, weight, m->sources, LOADER_BLOCK);
    if (p->stretches++) {
        const stretch *last = s - 1;
        s->position = last->position + blocks_before * LOADER_BLOCK;
        s->block = last->block + blocks_before;
        for (int64_t i = 0; i < m->sources; i++)
            s->before[i] = last->before[i] + blocks_before * last->in_block[i];
    }
}

static void to_shares(double *share, const double *weight, int64_t sources) {
    double sum = 0;
    for (int64_t s = 0; s < sources; s++) sum += weight[s];
    for (int64_t s = 0; s < sources; s++) share[s] = weight[s] / sum;
}

static int64_t levels_of(int64_t ramp_samples) {
    int64_t blocks = (ramp_samples + LOADER_BLOCK - 1) / LOADER_BLOCK;
    return blocks < RAMP_LEVELS ? blocks : RAMP_LEVELS;
}

/* The ramp from old weights to new ones, then the new ones for good. */
static void add_stretches(mixture *m, part *p, const double *old, const double *new, int64_t ramp_samples,
                          int64_t block) {
    double from[DATA_MAX_SOURCES], to[DATA_MAX_SOURCES], share[DATA_MAX_SOURCES];
    int64_t blocks = (ramp_samples + LOADER_BLOCK - 1) / LOADER_BLOCK, levels = levels_of(ramp_samples);
    int64_t before = 0;
    to_shares(from, old, m->sources);
    to_shares(to, new, m->sources);
    for (int64_t i = 0; i < levels; i++) {
        int64_t first = blocks * i / levels, end = blocks * (i + 1) / levels;
        double x = 0.5 * (double)(first + end) * LOADER_BLOCK / (double)ramp_samples;
        if (x > 1) x = 1;
        for (int64_t s = 0; s < m->sources; s++) share[s] = (1 - x) * from[s] + x * to[s];
        add_stretch(m, p, share, block, before);
        before = end - first;
    }
    add_stretch(m, p, new, block, before);
}

/* What the part before, which ends at `end`, leaves to the next one of the same length; returns the number of
 * the next block. */
static int64_t leave(const mixture *m, const part *p, int64_t end, part *next) {
    const stretch *s = stretch_at(m, p, end - 1);
    int64_t blocks = (end - s->position) / LOADER_BLOCK, used = (end - s->position) % LOADER_BLOCK;
    char taken[LOADER_BLOCK] = {0}; /* slots of a block that was begun */
    for (int64_t i = 0; i < used; i++) taken[slot_of(m, s->block + blocks, i)] = 1;
    for (int64_t i = 0, slot = 0; i < m->sources; slot += s->in_block[i], i++) {
        int64_t begun = s->before[i] + blocks * s->in_block[i], upto = begun + (used ? s->in_block[i] : 0);
        int64_t old = p->lefts[i] > upto ? p->lefts[i] - upto : 0, n = 0;
        next->left[i] = mem_alloc((size_t)(upto - begun + old + 1) * sizeof(int64_t), "the mixture");
        for (int64_t j = begun; j < upto; j++)
            if (!taken[slot + j - begun]) next->left[i][n++] = ordinal_of(p, i, j);
        for (int64_t j = upto; j < p->lefts[i]; j++) next->left[i][n++] = p->left[i][j];
        next->lefts[i] = n;
        next->fresh[i] = p->fresh[i] + (upto > p->lefts[i] ? upto - p->lefts[i] : 0);
    }
    return s->block + blocks + (used > 0);
}

/* A source cut anew: the epoch at hand is over. */
static void cut_anew(const mixture *m, const part *before, part *p) {
    for (int64_t i = 0; i < m->sources; i++) {
        int64_t samples = before->samples[i];
        p->epoch[i] = before->epoch[i] + (samples ? (p->fresh[i] + samples - 1) / samples : 0);
        p->lefts[i] = p->fresh[i] = 0;
    }
}

static int check_weights(const data_config *c, const mixture *m, const double *weight, error *e) {
    const stretch *last = &m->stretch[m->stretches - 1];
    for (int64_t s = 0; s < m->sources; s++)
        if (weight[s] > 0 && !last->in_block[s])
            return error_set(
                e, EXIT_USAGE,
                "data source %s: its weight %g is less than one sample in %d, so none would come",
                c->source[s].name, weight[s], LOADER_BLOCK);
    return 0;
}

static int64_t most_stretches(const data_config *c) {
    int64_t n = 1;
    for (int64_t k = 0; k < c->stages; k++) n += 1 + levels_of(c->stage[k].ramp_samples);
    return n;
}

/* Stage k: a part of its own, or more of the one before. */
static int add_stage(mixture *m, const data_config *c, int64_t k, int64_t seq_len, const double *weight,
                     const double *old, const int64_t *samples, error *e) {
    const data_stage *g = k ? &c->stage[k - 1] : NULL;
    const part *before = k ? &m->part[m->parts - 1] : NULL;
    int64_t block = 0;
    if (before && before->seq_len == seq_len && !memcmp(old, weight, (size_t)m->sources * sizeof *weight)) {
        m->part_of[k] = m->parts - 1; /* what differs is no concern of the data */
        return 0;
    }
    part *p = &m->part[m->parts];
    m->part_of[k] = m->parts++;
    p->position = g ? g->position : 0;
    p->seq_len = seq_len;
    p->first = m->stretches;
    memcpy(p->samples, samples, (size_t)m->sources * sizeof *samples);
    if (before) {
        memcpy(p->epoch, before->epoch, sizeof p->epoch);
        block = leave(m, before, p->position, p);
        if (seq_len != before->seq_len) cut_anew(m, before, p);
    }
    add_stretches(m, p, old, weight, g ? g->ramp_samples : 0, block);
    return check_weights(c, m, weight, e);
}

int mixture_open(mixture **out, const data_config *c, int64_t seq_len, const int64_t *samples, uint64_t seed,
                 error *e) {
    double first[DATA_MAX_SOURCES];
    const double *old = first;
    mixture *m = mem_alloc(sizeof *m, "the mixture");
    *m = (mixture){.seed = seed, .order_stream = random_stream("data.order"), .sources = c->sources};
    m->stretch = mem_alloc((size_t)most_stretches(c) * sizeof *m->stretch, "the mixture");
    for (int64_t s = 0; s < c->sources; s++) first[s] = c->source[s].weight;
    int code = add_stage(m, c, 0, seq_len, first, first, samples, e);
    for (int64_t k = 1; k <= c->stages && !code; k++) {
        const data_stage *g = &c->stage[k - 1];
        code = add_stage(m, c, k, g->seq_len, g->weight, old, samples + k * c->sources, e);
        if (code) error_within(e, "data.stages: the stage after step %lld", (long long)g->after);
        old = g->weight;
    }
    if (code) mixture_close(m);
    else *out = m;
    return code;
}

void mixture_close(mixture *m) {
    for (int64_t k = 0; k < m->parts; k++)
        for (int64_t s = 0; s < m->sources; s++) mem_free(m->part[k].left[s]);
    mem_free(m->stretch);
    mem_free(m);
}
