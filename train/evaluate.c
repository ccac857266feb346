#include "train/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "launch/memory.h"
#include "launch/options.h"
#include "train/checkpoint.h"
#include "train/session.h"

/* A sample's place in the list of all: sources one after the other. */
typedef struct sample {
    int64_t source, k;
} sample;

static int64_t count_of(const loader *l, int64_t source, int64_t samples) {
    int64_t n = loader_source_samples(l, source);
    return n < samples ? n : samples;
}

static sample sample_at(const loader *l, int64_t i, int64_t sources, int64_t samples) {
    int64_t source = 0;
    while (source < sources && i >= count_of(l, source, samples)) i -= count_of(l, source++, samples);
    return (sample){source, i};
}

void evaluate(state *s, const loader *held_out, int64_t samples, int32_t *tokens, double *loss,
              double *total) {
    const train_config *t = &s->c.train;
    int64_t sources = s->c.data.sources, all = 0, row = t->seq_len + 2;
    for (int64_t i = 0; i < sources; i++) all += count_of(held_out, i, samples);
    double *sum = mem_alloc((size_t)(2 * all + 1) * sizeof *sum,
                            "held-out losses"); /* loss and counted tokens of each */
    real *token_loss =
        mem_alloc((size_t)(t->micro_batch_size * t->seq_len) * sizeof *token_loss, "held-out losses");
    int64_t stride = s->mesh.ranks * t->micro_batch_size;
    for (int64_t first = 0; first < all; first += stride) { /* every rank runs as often: experts are shared */
        int64_t mine = first + s->mesh.rank * t->micro_batch_size;
        memset(tokens, 0, (size_t)(t->micro_batch_size * row) * sizeof *tokens);
        for (int64_t b = 0; b < t->micro_batch_size && mine + b < all; b++) {
            sample x = sample_at(held_out, mine + b, sources, samples);
            loader_source_sample(held_out, x.source, x.k, tokens + b * row);
        }
        model_forward(&s->model, tokens, t->micro_batch_size, t->seq_len, 1);
        model_evaluate(&s->model, token_loss, NULL);
        for (int64_t b = 0; b < t->micro_batch_size && mine + b < all; b++)
            for (int64_t i = b * t->seq_len; i < (b + 1) * t->seq_len; i++) {
                sum[2 * (mine + b)] += (double)token_loss[i];
                sum[2 * (mine + b) + 1] += s->model.target_T[i] >= 0;
            }
    }
    comm_sum_disjoint_f64(s->mesh.world, "held-out losses", sum, (size_t)(2 * all));
    double all_loss = 0, all_count = 0;
    for (int64_t source = 0, i = 0; source < sources; source++) {
        double source_loss = 0, count = 0;
        for (int64_t end = i + count_of(held_out, source, samples); i < end; i++) {
            source_loss += sum[2 * i];
            count += sum[2 * i + 1];
        }
        loss[source] = count > 0 ? source_loss / count : NAN;
        all_loss += source_loss;
        all_count += count;
    }
    *total = all_count > 0 ? all_loss / all_count : NAN;
    mem_free(sum);
    mem_free(token_loss);
}

/* ---- caracal evaluate ---- */

static int run(session *x, const char *path, int64_t samples, error *e) {
    const train_config *c = &x->c.train;
    ckpt *k;
    if (!x->valid)
        return error_set(e, EXIT_USAGE, "no source of the config has held-out text (data.sources: valid)");
    if (session_checkpoint(x, path, &k, e)) return e->code;
    int64_t step = ckpt_step(k);
    int code = checkpoint_init_from(&x->s, k, e);
    ckpt_close(k);
    if (code) return code;
    double *loss = mem_alloc((size_t)x->c.data.sources * sizeof *loss, "held-out losses"), total;
    int32_t *tokens = mem_alloc((size_t)(c->micro_batch_size * (c->seq_len + 2)) * sizeof *tokens, "tokens");
    evaluate(&x->s, x->valid, samples, tokens, loss, &total);
    if (comm_rank(x->world) == 0) {
        printf("%-16s %10s %12s\n", "held-out text", "loss", "perplexity");
        for (int64_t i = 0; i < x->c.data.sources; i++)
            if (loss[i] == loss[i])
                printf("%-16s %10.4f %12.2f\n", x->c.data.source[i].name, loss[i], exp(loss[i]));
        printf("%-16s %10.4f %12.2f  after step %lld\n", "all tokens", total, exp(total), (long long)step);
    }
    mem_free(loss);
    mem_free(tokens);
    return 0;
}

int evaluate_command(int argc, char **argv) {
    int64_t samples = INT64_MAX;
    const option known[] = {{"samples", .integer = &samples, .min = 1, .max = INT64_MAX}, {0}};
    options o = {.usage = "usage: caracal evaluate CKPT [--samples=N] [--section.key=value ...]\n",
                 .known = known,
                 .min_words = 1,
                 .max_words = 1,
                 .config = 1};
    if (!options_read(&o, argc, argv)) return o.code;
    char config_path[4096];
    session x;
    error e;
    session_config_of(o.word[0], config_path, sizeof config_path);
    int code = session_open(&x, config_path, o.overrides, o.override, SESSION_VALID, &e);
    if (code) return code;
    code = run(&x, o.word[0], samples, &e);
    session_report(&x, &e);
    session_close(&x);
    return code;
}
