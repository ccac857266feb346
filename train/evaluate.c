#include "train/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/math.h"
#include "launch/memory.h"
#include "launch/options.h"
#include "launch/progress.h"
#include "train/checkpoint.h"
#include "train/choices.h"
#include "train/session.h"

/* A sample's place in the list of all: sources one after the other. */
typedef struct sample {
    int64_t source, k;
} sample;

static int64_t count_of(const state *s, const loader *l, int64_t source, int64_t samples) {
    int64_t n = loader_source_samples(l, s->stage, source);
    return n < samples ? n : samples;
}

static sample sample_at(const state *s, const loader *l, int64_t i, int64_t samples) {
    int64_t source = 0, sources = s->c.data.sources;
    while (source < sources && i >= count_of(s, l, source, samples)) i -= count_of(s, l, source++, samples);
    return (sample){source, i};
}

/* Sums over one sample or more; they add up exactly in the same order on any number of ranks. */
enum { LOSS, TOKENS, BYTES, OFFERED, ACCEPTED, SUMS };

/* Row b of the micro-batch that model_evaluate has just seen. */
static void sum_row(const state *s, const tokenizer *t, int64_t b, const real *token_loss, double *sum) {
    const model *m = &s->model;
    const token_rows *r = &m->host_rows;
    int64_t seq = s->c.train.seq_len;
    for (int64_t i = b * seq; i < (b + 1) * seq; i++) {
        size_t bytes = 0;
        sum[LOSS] += (double)token_loss[i];
        if (r->target_T[i] < 0) continue;
        tokenizer_token(t, r->target_T[i], &bytes);
        sum[TOKENS]++;
        sum[BYTES] += (double)bytes;
    }
    for (int64_t i = b * seq; m->mtp_on && i + 1 < (b + 1) * seq; i++) {
        if (r->target2_T[i] < 0) continue;
        sum[OFFERED]++;
        sum[ACCEPTED] += r->best2_T[i] == r->best_T[i + 1];
    }
}

static held_out figures_of(const double *sum) {
    return (held_out){.loss = sum[TOKENS] > 0 ? sum[LOSS] / sum[TOKENS] : NAN,
                      .bits_per_byte = sum[BYTES] > 0 ? sum[LOSS] / sum[BYTES] / fixed_log(2) : NAN,
                      .mtp_acceptance = sum[OFFERED] > 0 ? sum[ACCEPTED] / sum[OFFERED] : NAN};
}

void evaluate(state *s, const loader *valid, const tokenizer *tok, int64_t samples, int32_t *tokens,
              held_out *out, int show) {
    const train_config *t = &s->c.train;
    int64_t sources = s->c.data.sources, all = 0, row = t->seq_len + 2;
    for (int64_t i = 0; i < sources; i++) all += count_of(s, valid, i, samples);
    double *sum = mem_alloc((size_t)(SUMS * all + 1) * sizeof *sum, "held-out losses"); /* of each sample */
    real *token_loss =
        mem_alloc((size_t)(t->micro_batch_size * t->seq_len) * sizeof *token_loss, "held-out losses");
    int64_t stride = s->mesh.ranks * t->micro_batch_size;
    progress shown = progress_begin("held-out text", "samples", (double)all);
    for (int64_t first = 0; first < all; first += stride) { /* every rank runs as often: experts are shared */
        int64_t mine = first + s->mesh.rank * t->micro_batch_size;
        memset(tokens, 0, (size_t)(t->micro_batch_size * row) * sizeof *tokens);
        for (int64_t b = 0; b < t->micro_batch_size && mine + b < all; b++) {
            sample x = sample_at(s, valid, mine + b, samples);
            loader_source_sample(valid, s->stage, x.source, x.k, tokens + b * row);
        }
        model_forward(&s->model, tokens, t->micro_batch_size, t->seq_len, 1);
        model_evaluate(&s->model, token_loss);
        for (int64_t b = 0; b < t->micro_batch_size && mine + b < all; b++)
            sum_row(s, tok, b, token_loss, sum + SUMS * (mine + b));
        if (show && s->mesh.rank == 0) progress_at(&shown, (double)(first + stride));
    }
    progress_end(&shown);
    comm_sum_disjoint_f64(s->mesh.world, "held-out losses", sum, (size_t)(SUMS * all));
    double total[SUMS] = {0};
    for (int64_t source = 0, i = 0; source < sources; source++) {
        double part[SUMS] = {0};
        for (int64_t end = i + count_of(s, valid, source, samples); i < end; i++)
            for (int k = 0; k < SUMS; k++) part[k] += sum[SUMS * i + k];
        out[source] = figures_of(part);
        for (int k = 0; k < SUMS; k++) total[k] += part[k];
    }
    out[sources] = figures_of(total);
    mem_free(sum);
    mem_free(token_loss);
}

/* ---- caracal evaluate ---- */

static void print_row(const char *name, const held_out *h, int mtp) {
    if (h->loss != h->loss) return;
    printf("%-16s %10.4f %12.2f %14.4f", name, h->loss, exp(h->loss), h->bits_per_byte);
    if (mtp) printf(" %13.1f%%", 100 * h->mtp_acceptance);
    putchar('\n');
}

static void evaluate_held_out(session *x, int64_t step, int64_t samples) {
    const train_config *c = &x->s.c.train; /* of the last step's stage */
    int64_t sources = x->c.data.sources;
    held_out *out = mem_alloc((size_t)(sources + 1) * sizeof *out, "held-out losses");
    int32_t *tokens = mem_alloc((size_t)(c->micro_batch_size * (c->seq_len + 2)) * sizeof *tokens, "tokens");
    evaluate(&x->s, x->valid, x->tokenizer, samples, tokens, out, 1);
    if (comm_rank(x->world) == 0) {
        int mtp = x->s.model.mtp_on;
        printf("held-out text after step %lld\n%-16s %10s %12s %14s%s\n", (long long)step, "", "loss",
               "perplexity", "bits per byte", mtp ? " MTP acceptance" : "");
        for (int64_t i = 0; i < sources; i++) print_row(x->c.data.source[i].name, &out[i], mtp);
        print_row("all tokens", &out[sources], mtp);
    }
    mem_free(out);
    mem_free(tokens);
}

static int run(session *x, const char *path, int64_t samples, const char *questions, error *e) {
    ckpt *k;
    if (!x->valid && !questions)
        return error_set(e, EXIT_USAGE, "no source of the config has held-out text (data.sources: valid)");
    if (session_checkpoint(x, path, &k, e)) return e->code;
    int64_t step = ckpt_step(k);
    int code = checkpoint_init_from(&x->s, k, e);
    ckpt_close(k);
    if (code) return code;
    state_enter(&x->s, step > 0 ? step - 1 : 0);
    x->s.k.hold(x->s.k.ctx, x->s.model.p.weights, x->s.model.weights); /* for good */
    if (questions) return choices_evaluate(&x->s, x->tokenizer, questions, e);
    evaluate_held_out(x, step, samples);
    return 0;
}

int evaluate_command(int argc, char **argv) {
    int64_t samples = INT64_MAX;
    const char *questions = NULL;
    const option known[] = {
        {"samples", .integer = &samples, .min = 1, .max = 1e15}, {"choices", .text = &questions}, {0}};
    options o = {
        .usage =
            "usage: caracal evaluate CKPT [--samples=N | --choices=FILE.jsonl] [--section.key=value ...]\n"
            "Held-out text of each source, all of it or its first N samples.  Or questions, one a line:\n"
            "  {\"question\": \"2 + 2 =\", \"choices\": [\" 4\", \" 5\"], \"answer\": 0}\n",
        .known = known,
        .min_words = 1,
        .max_words = 1,
        .config = 1};
    if (!options_read(&o, argc, argv)) return o.code;
    if (questions && samples != INT64_MAX)
        return options_refuse(&o, "--samples counts held-out text, not --choices: one of them");
    session x;
    error e;
    int code = session_open(&x, o.word[0], o.overrides, o.override, SESSION_VALID, &e);
    if (code) return code;
    code = run(&x, o.word[0], samples, questions, &e);
    session_report(&x, &e);
    session_close(&x);
    return code;
}
