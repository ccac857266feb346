#include "train/spike_batch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/indexed.h"
#include "data/utf8.h"
#include "launch/files.h"
#include "launch/memory.h"

typedef struct ranked {
    int64_t sample; /* of the batch */
    double loss;
} ranked;

/* The greatest loss first, one that is no number before all; then the order of the batch. */
static int worse_first(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    int nan_x = isnan(x->loss) != 0, nan_y = isnan(y->loss) != 0;
    if (nan_x != nan_y) return nan_y - nan_x;
    if (!nan_x && x->loss != y->loss) return x->loss < y->loss ? 1 : -1;
    return (x->sample > y->sample) - (x->sample < y->sample);
}

/* Each line after a bar; bytes that are no UTF-8 (a sample may begin inside a character) as U+FFFD. */
static void write_text(FILE *out, const char *text, size_t bytes) {
    fputs("| ", out);
    for (size_t at = 0; at < bytes;) {
        size_t good = utf8_valid_prefix(text + at, bytes - at);
        for (size_t i = at; i < at + good; i++) {
            unsigned char c = (unsigned char)text[i];
            if (c == '\n') fputs("\n| ", out);
            else if (c == '\t' || (c >= ' ' && c != 127)) putc(c, out);
            else fputs("\xef\xbf\xbd", out); /* what a terminal would obey */
        }
        at += good;
        if (at < bytes) fputs("\xef\xbf\xbd", out), at++;
    }
    putc('\n', out);
}

static void write_ids(FILE *out, const int32_t *ids, int64_t n) {
    for (int64_t i = 0; i < n; i++) fprintf(out, "%s%d", i % 20 ? " " : i ? "\n  " : "  ", ids[i]);
    putc('\n', out);
}

static void write_sample(FILE *out, const session *x, int64_t position, const ranked *q, int32_t *ids) {
    const state *s = &x->s;
    const train_config *c = &s->c.train;
    sample_place p = loader_place(x->train, s->stage, position);
    const data_source *source = &x->c.data.source[p.source];
    int64_t document, within, n = c->seq_len + 2;
    char *text = NULL;
    size_t bytes = 0;
    error ignored = {0};
    loader_sample(x->train, s->stage, position, ids);
    fprintf(
        out,
        "\nsample %lld of the run, in micro-batch %lld: loss %.4f\nsource %s, tokens %lld to %lld of %s.bin",
        (long long)position, (long long)(q->sample / c->micro_batch_size), q->loss, source->name,
        (long long)p.token, (long long)(p.token + n - 1), source->train);
    if (!indexed_place(source->train, p.token, &document, &within, &ignored))
        fprintf(out, "; begins at token %lld of document %lld", (long long)within, (long long)document);
    fputs("\ntext\n", out);
    if (tokenizer_decode(x->tokenizer, ids, n, &text, &bytes, &ignored)) fprintf(out, "  %s\n", ignored.text);
    else write_text(out, text, bytes);
    fputs("ids\n", out);
    write_ids(out, ids, n);
    mem_free(text);
}

static void write_figure(FILE *out, const char *name, double x, const recent *r, int64_t n, double limit) {
    double mean, deviation;
    fprintf(out, "%-14s %.6g", name, x);
    if (isfinite(limit)) {
        recent_mean(r, n, &mean, &deviation);
        fprintf(out, "; mean %.6g, deviation %.3g, limit %.6g%s", mean, deviation, limit,
                x > limit ? ": above it" : "");
    }
    putc('\n', out);
}

int spike_batch_write(const session *x, const step_result *r, int64_t attempt, char **path, error *e) {
    const state *s = &x->s;
    const train_config *c = &s->c.train;
    int64_t samples = c->micro_batches * c->micro_batch_size;
    *path = NULL;
    comm_sum_disjoint_f64(x->world, "losses of samples", s->sample_loss, (size_t)samples);
    if (s->mesh.rank) return 0;
    ranked *order = mem_alloc((size_t)samples * sizeof *order, "losses of samples");
    for (int64_t i = 0; i < samples; i++) order[i] = (ranked){i, s->sample_loss[i]};
    qsort(order, (size_t)samples, sizeof *order, worse_first);
    int32_t *ids = mem_alloc((size_t)(c->seq_len + 2) * sizeof *ids, "a sample");
    char *text = NULL, again[32] = "", *directory = text_of("%s/spikes", x->c.run_dir);
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) FAULT(EXIT_NO_MEMORY, "no memory for a batch as text");
    fprintf(out, "step %lld\n", (long long)s->step);
    write_figure(out, "LM loss", r->lm, &s->spikes.loss, s->spikes.seen, r->spike.loss_limit);
    write_figure(out, "gradient norm", r->grad_norm, &s->spikes.grad, s->spikes.seen, r->spike.grad_limit);
    for (int64_t i = 0; i < samples; i++)
        write_sample(out, x, s->position - samples + order[i].sample, &order[i], ids);
    fclose(out);
    if (attempt) snprintf(again, sizeof again, "-%lld", (long long)attempt + 1);
    *path = text_of("%s/step-%08lld%s.txt", directory, (long long)s->step, again);
    if (!make_directories(directory, e)) write_file(*path, text, bytes, e);
    mem_free(directory);
    mem_free(order);
    mem_free(text);
    mem_free(ids);
    return e->code;
}
