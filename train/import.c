#include "train/import.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/layout.h"
#include "ckpt/staging.h"
#include "ckpt/stream.h"
#include "data/tokenizer.h"
#include "launch/files.h"
#include "launch/memory.h"
#include "launch/options.h"
#include "train/checkpoint.h"
#include "train/import_match.h"
#include "train/inputs.h"
#include "train/published.h"

enum { PIECE = 1 << 20 }; /* elements in memory at a time */

typedef struct importer {
    const char *from, *to, *config_path;
    config c;
    tokenizer *tokenizer;
    weights w;
    params p;
    match_list m;
} importer;

/* ---- the config: the user's, or one made from config.json ---- */

/* What config.json cannot say.  Uniform routing chooses K N / (N + Z) FFN experts, which is the published 8
 * of 12; the rest are placeholders until the user trains. */
static void fill_in(published *p, const importer *x, int has_mtp) {
    char *text, *tokenizer = text_of("%s/tokenizer.json", x->to);
    published_set(p, "run.dir", x->to);
    published_set(p, "data.tokenizer", tokenizer);
    published_set(p, "loss.mtp_coef", has_mtp ? "0.1" : "0");
    published_set(p, "optim.lr", "1e-4");
    published_set(p, "train.steps", "1000");
    published_set(p, "train.micro_batches", "8");
    const char *const key[] = {"model.moe_topk", "model.n_routed_experts", "model.zero_expert_num",
                               "train.seq_len"};
    config c = {0};
    error e;
    for (int i = 0; i < 4; i++) { /* a bad value is config_assemble's to refuse */
        int k = config_key_find(config_keys, config_key_count, key[i]);
        if (p->text[k]) config_value_parse(&config_keys[k], &c, p->text[k], "", key[i], &e);
    }
    double n = (double)c.model.n_routed_experts, all = n + (double)c.model.zero_expert_num;
    published_set(p, "router.expected_ffn_experts",
                  text = text_of("%.17g", (double)c.model.moe_topk * n / all));
    mem_free(text);
    if (c.train.seq_len < 1 || c.train.seq_len > 4096) published_set(p, "train.seq_len", "4096");
    mem_free(tokenizer);
}

static int read_config(importer *x, const options *o, error *e) {
    char *path = text_of("%s/config.json", x->from);
    int has_mtp = match_has_mtp(&x->w);
    published p;
    int code = published_read(&p, path, e);
    if (!code && x->config_path) {
        code = config_load(&x->c, x->config_path, o->overrides, o->override, e);
        if (!code) code = published_compare(&p, &x->c, x->config_path, path, e);
    } else if (!code) {
        fill_in(&p, x, has_mtp);
        code = config_assemble(&x->c, path, p.text, o->overrides, o->override, e);
    }
    published_free(&p);
    mem_free(path);
    if (code) return code;
    int wants = x->c.loss.mtp_coef > 0;
    if (wants && !has_mtp)
        return error_set(e, EXIT_USAGE,
                         "%s: has no MTP head, and the config wants one: --loss.mtp_coef=0 goes on without",
                         x->from);
    if (has_mtp && !wants) notice("%s: its MTP head is left out: loss.mtp_coef is 0", x->from);
    int dir = config_key_find(config_keys, config_key_count, "run.dir");
    return config_value_parse(&config_keys[dir], &x->c, x->to, "command line", "run.dir", e);
}

/* ---- the tokenizer: DIR's, and with a config of the user's the same as the config's ---- */

static int same_tokenizer(const tokenizer *a, const tokenizer *b) {
    int64_t n = tokenizer_vocab_size(a);
    if (n != tokenizer_vocab_size(b) || tokenizer_eos(a) != tokenizer_eos(b)) return 0;
    for (int32_t i = 0; i < n; i++) {
        size_t bytes, others;
        const char *x = tokenizer_token(a, i, &bytes), *y = tokenizer_token(b, i, &others);
        if (bytes != others || memcmp(x, y, bytes)) return 0;
    }
    return 1;
}

static int check_tokenizer(importer *x, error *e) {
    if (tokenizer_vocab_size(x->tokenizer) > x->c.model.vocab_size)
        return error_set(e, EXIT_CORRUPT, "%s has %" PRId64 " tokens, but vocab_size is %" PRId64,
                         x->c.data.tokenizer, tokenizer_vocab_size(x->tokenizer), x->c.model.vocab_size);
    return 0;
}

/* x->c.data.tokenizer comes to name the file that the run will use; *copy the one to be copied there. */
static int read_tokenizer(importer *x, char **copy, error *e) {
    char *theirs = text_of("%s/tokenizer.json", x->from), *ours = text_of("%s/tokenizer.json", x->to);
    tokenizer *other = NULL;
    int made = !strcmp(x->c.data.tokenizer, ours), there = path_exists(theirs);
    if (made && !there) error_set(e, EXIT_USAGE, "%s: is not there; --data.tokenizer=FILE names one", theirs);
    else if (!tokenizer_open(&x->tokenizer, made ? theirs : x->c.data.tokenizer, e) && !made && there &&
             !tokenizer_open(&other, theirs, e) && !same_tokenizer(x->tokenizer, other))
        error_set(e, EXIT_USAGE, "%s and %s give texts other ids: the model knows those of the first", theirs,
                  x->c.data.tokenizer);
    tokenizer_close(other);
    if (!e->code && made) *copy = mem_string(theirs);
    mem_free(theirs);
    mem_free(ours);
    return e->code ? e->code : check_tokenizer(x, e);
}

/* ---- the checkpoint ---- */

static int check_finite(const match *m, int64_t at, const float *values, int64_t n, error *e) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return error_set(e, EXIT_CORRUPT, "%s: element %" PRId64 " is %g", m->name, at + i,
                             (double)values[i]);
    return 0;
}

static int copy_tensor(const char *from, ckpt_stream *k, const match *m, float *values, error *e) {
    for (int64_t at = 0; at < m->count; at += PIECE) {
        int64_t n = m->count - at < PIECE ? m->count - at : PIECE;
        if (safetensors_read_f32(m->from, m->offset + at, n, values, e) || check_finite(m, at, values, n, e))
            return error_within(e, "%s", from);
        if (ckpt_stream_append(k, values, n, e)) return e->code;
    }
    return 0;
}

/* Weights as they are, moments and the controllers' history zero. */
static int write_tensors(importer *x, ckpt_stream *k, const ckpt_tensor *tensor, int64_t n, error *e) {
    static const char prefix[] = "weights/";
    float *values = mem_alloc(PIECE * sizeof *values, "a piece of a tensor");
    int code = 0;
    for (int64_t i = 0; i < n && !code; i++) {
        const char *name = tensor[i].name;
        if (strncmp(name, prefix, strlen(prefix)))
            code = ckpt_stream_append(k, NULL, ckpt_elements(&tensor[i]), e);
        else code = copy_tensor(x->from, k, match_find(&x->m, name + strlen(prefix)), values, e);
    }
    mem_free(values);
    return code;
}

static int write_checkpoint(importer *x, const char *run, error *e) {
    ckpt_stream *k;
    int64_t n;
    ckpt_tensor *tensor = checkpoint_tensors(&x->p, &n);
    char *directory = text_of("%s/checkpoints", run);
    json_t *inputs = inputs_record(&x->c.data, x->tokenizer, NULL, NULL);
    json_t *about = checkpoint_describe_fresh(&x->c, inputs);
    error ignored = {0};
    int code = ckpt_stream_create(&k, directory, 0, x->c.checkpoint.shards, tensor, n, e);
    if (!code) {
        code = write_tensors(x, k, tensor, n, e);
        if (code) ckpt_stream_finish(k, about, 1, &ignored);
        else code = ckpt_stream_finish(k, about, 0, e);
    }
    json_decref(about);
    json_decref(inputs);
    mem_free(directory);
    checkpoint_tensors_free(tensor, n);
    return code;
}

/* The published files carry the embedding twice; the MTP head here shares the first. */
static int compare_embeddings(const importer *x, error *e) {
    const safetensor *a = weights_find(&x->w, "model.embed_tokens.weight"),
                     *b = weights_find(&x->w, "model.mtp.embed_tokens.weight");
    if (!b || !x->p.mtp) return 0;
    int differs = a->count != b->count;
    float *values = mem_alloc(2 * PIECE * sizeof *values, "a piece of a tensor");
    for (int64_t at = 0; at < a->count && !differs; at += PIECE) {
        int64_t n = a->count - at < PIECE ? a->count - at : PIECE;
        if (safetensors_read_f32(a, at, n, values, e) || safetensors_read_f32(b, at, n, values + PIECE, e))
            break;
        differs = memcmp(values, values + PIECE, (size_t)n * sizeof *values) != 0;
    }
    mem_free(values);
    if (differs && !e->code)
        notice("%s: model.mtp.embed_tokens.weight is not equal to model.embed_tokens.weight, which "
               "is used",
               x->from);
    return e->code;
}

/* ---- the run directory ---- */

static int copy_tokenizer(const char *from, const char *run, error *e) {
    char *text, *path = text_of("%s/tokenizer.json", run);
    size_t bytes;
    int code = read_file(from, &text, &bytes, e);
    if (!code) {
        code = write_file(path, text, bytes, e);
        mem_free(text);
    }
    mem_free(path);
    return code;
}

static int write_run(importer *x, const char *tokenizer, error *e) {
    char *run;
    if (staging_begin(x->to, &run, e)) return e->code;
    int code = config_save(&x->c, run, e);
    if (!code && tokenizer) code = copy_tokenizer(tokenizer, run, e);
    if (!code) code = write_checkpoint(x, run, e);
    if (!code) code = staging_commit(run, e);
    if (code) staging_abandon(run);
    mem_free(run);
    return code;
}

/* ---- the command ---- */

static int run(importer *x, const options *o, error *e) {
    char *tokenizer = NULL;
    int code = weights_open(&x->w, x->from, e);
    if (!code) code = read_config(x, o, e);
    if (!code) code = read_tokenizer(x, &tokenizer, e);
    if (!code) {
        params_create(&x->p, &x->c.model, x->c.loss.mtp_coef > 0, 1, 0);
        code = match_create(&x->m, &x->p, &x->w, x->from, e);
    }
    if (!code) code = compare_embeddings(x, e);
    if (!code) code = write_run(x, tokenizer, e);
    mem_free(tokenizer);
    return code;
}

static void report(const importer *x) {
    printf("%s/checkpoints/step-00000000: %.1f M parameters%s from %" PRId64 " file%s\n", x->to,
           params_total(&x->c.model) / 1e6, x->p.mtp ? " and an MTP head" : "", x->w.files,
           x->w.files == 1 ? "" : "s");
    if (!x->c.data.sources)
        printf("To evaluate or to train it, set data.sources (and optim, train, router) in %s/config.yaml.\n",
               x->to);
}

int import_command(int argc, char **argv) {
    importer x = {0};
    const option known[] = {{"config", .text = &x.config_path}, {0}};
    options o = {.usage = "usage: caracal import DIR RUN_DIR [--config=CONFIG] [--section.key=value ...]\n",
                 .known = known,
                 .min_words = 2,
                 .max_words = 2,
                 .config = 1};
    error e = {0};
    if (!options_read(&o, argc, argv)) return o.code;
    x.from = o.word[0];
    x.to = o.word[1];
    int code = run(&x, &o, &e);
    if (code) error_print(&e);
    else report(&x);
    match_free(&x.m);
    params_free(&x.p);
    weights_close(&x.w);
    tokenizer_close(x.tokenizer);
    config_free(&x.c);
    return code;
}
