#include "train/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/staging.h"
#include "ckpt/weights.h"
#include "launch/files.h"
#include "launch/memory.h"
#include "launch/options.h"
#include "train/published.h"
#include "train/session.h"
#include "train/stages.h"

enum { PIECE = 1 << 20 }; /* elements in memory at a time */

static const char prefix[] = "weights/", embedding[] = "model.embed_tokens.weight";

/* What is to be written, in order: where each tensor comes from. */
typedef struct listing {
    safetensor_spec *spec;
    int64_t *from; /* tensor of the checkpoint; -1: zeros */
    int64_t n;
    int mtp;
} listing;

typedef struct exporter {
    session x; /* of which only the ranks are opened */
    config c;
    tokenizer *tokenizer;
    ckpt *k;
    listing l;
    const char *dtype, *layout;
    int64_t max_bytes;
} exporter;

/* ---- the list of tensors ---- */

static void list(listing *l, const char *name, const ckpt_tensor *t, int64_t from, const char *dtype) {
    l->spec = mem_grow(l->spec, (size_t)(l->n + 1) * sizeof *l->spec, "the list of tensors");
    l->from = mem_grow(l->from, (size_t)(l->n + 1) * sizeof *l->from, "the list of tensors");
    safetensor_spec *s = &l->spec[l->n];
    /* the router decides by small differences: it stays in float32 */
    *s = (safetensor_spec){
        .name = mem_string(name), .dtype = strstr(name, ".router.") ? "F32" : dtype, .rank = t->rank};
    for (int i = 0; i < t->rank; i++) s->shape[i] = t->shape[i];
    l->from[l->n++] = from;
}

/* transformers 5 has rows of gate_up_proj for the identity experts too, which nothing reads. */
static void list_identity_rows(listing *l, const model_config *c, const char *dtype) {
    const ckpt_tensor rows = {.rank = 2, .shape = {c->expert_ffn_hidden_size, c->hidden_size}};
    for (int64_t layer = 0; layer < c->num_layers; layer++)
        for (int64_t i = c->n_routed_experts; i < c->n_routed_experts + c->zero_expert_num; i++)
            for (int up = 0; up < 2; up++) {
                char *name = text_of("model.layers.%lld.mlp.experts.%lld.%s_proj.weight", (long long)layer,
                                     (long long)i, up ? "up" : "gate");
                list(l, name, &rows, -1, dtype);
                mem_free(name);
            }
}

static void list_tensors(exporter *x) {
    const ckpt_tensor *all;
    const char *dtype = strcmp(x->dtype, "bf16") ? "F32" : "BF16";
    int64_t n = ckpt_tensors(x->k, &all), shared = -1;
    for (int64_t i = 0; i < n; i++) {
        if (strncmp(all[i].name, prefix, strlen(prefix))) continue;
        const char *name = all[i].name + strlen(prefix);
        list(&x->l, name, &all[i], i, dtype);
        if (!strcmp(name, embedding)) shared = i;
        x->l.mtp |= !strncmp(name, "model.mtp.", 10);
    }
    if (x->l.mtp && shared >= 0) list(&x->l, "model.mtp.embed_tokens.weight", &all[shared], shared, dtype);
    if (strcmp(x->layout, "published")) list_identity_rows(&x->l, &x->c.model, dtype);
}

/* ---- writing ---- */

static int write_tensor(exporter *x, weights_writer *w, int64_t i, float *values, error *e) {
    const safetensor_spec *s = &x->l.spec[i];
    int64_t count = 1;
    for (int k = 0; k < s->rank; k++) count *= s->shape[k];
    for (int64_t at = 0; at < count; at += PIECE) {
        int64_t n = count - at < PIECE ? count - at : PIECE;
        ckpt_slice slice = {x->l.from[i], at, n, values};
        if (slice.tensor < 0) memset(values, 0, (size_t)n * sizeof *values);
        else if (ckpt_read(x->k, &slice, 1, e)) return e->code;
        if (weights_append(w, values, n, e)) return e->code;
    }
    return 0;
}

static int write_tensors(exporter *x, const char *directory, int64_t *files, error *e) {
    weights_writer *w;
    if (weights_create(&w, directory, x->l.spec, x->l.n, x->max_bytes, e)) return e->code;
    *files = weights_files(w);
    float *values = mem_alloc(PIECE * sizeof *values, "a piece of a tensor");
    int code = 0;
    for (int64_t i = 0; i < x->l.n && !code; i++) code = write_tensor(x, w, i, values, e);
    mem_free(values);
    error ignored = {0};
    if (code) weights_finish(w, 1, &ignored);
    return code ? code : weights_finish(w, 0, e);
}

/* tokenizer.json as it is, and what transformers' AutoTokenizer wants beside it. */
static int write_tokenizer(const exporter *x, const char *directory, error *e) {
    static const char settings[] = "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n"
                                   "  \"eos_token\": \"<|endoftext|>\",\n"
                                   "  \"model_input_names\": [\"input_ids\", \"attention_mask\"],\n"
                                   "  \"clean_up_tokenization_spaces\": false\n}\n";
    char *text = NULL, *json = text_of("%s/tokenizer.json", directory),
         *beside = text_of("%s/tokenizer_config.json", directory);
    size_t bytes;
    int code = read_file(x->c.data.tokenizer, &text, &bytes, e);
    if (!code) code = write_file(json, text, bytes, e);
    if (!code) code = write_file(beside, settings, strlen(settings), e);
    mem_free(text);
    mem_free(json);
    mem_free(beside);
    return code;
}

static int write_all_of_it(exporter *x, const char *directory, int64_t *files, error *e) {
    char *path = text_of("%s/config.json", directory);
    const char *dtype = strcmp(x->dtype, "bf16") ? "float32" : "bfloat16";
    int code = published_write(&x->c, tokenizer_eos(x->tokenizer), dtype, x->l.mtp, path, e);
    if (!code) code = write_tokenizer(x, directory, e);
    if (!code) code = write_tensors(x, directory, files, e);
    mem_free(path);
    return code;
}

/* ---- the command ---- */

/* The model is what the checkpoint says it is, whatever became of config.yaml since, and sees as far as in
 * its last step. */
static int take_model_keys(exporter *x, error *e) {
    const json_t *said = json_object_get(ckpt_state(x->k), "config");
    for (int k = 0; k < config_key_count; k++) {
        const char *text = json_string_value(json_object_get(said, config_keys[k].name));
        if (!text || strncmp(config_keys[k].name, "model.", 6)) continue;
        if (config_value_parse(&config_keys[k], &x->c, text, ckpt_path(x->k), config_keys[k].name, e))
            return e->code;
    }
    int64_t step = ckpt_step(x->k);
    batch_shape b = stage_batch(&x->c, stage_of(&x->c, step > 0 ? step - 1 : 0));
    x->c.train.seq_len = b.seq_len;
    x->c.model.rope_theta = b.rope_theta;
    return 0;
}

static int open_all(exporter *x, const options *o, error *e) {
    char path[4096];
    if (comm_open(&x->x.world, 600, e)) return e->code;
    if (comm_size(x->x.world) > 1)
        return error_set(e, EXIT_USAGE, "export is one process: start it without mpirun");
    if (session_config_of(o->word[0], path, sizeof path, e) ||
        config_load(&x->c, path, o->overrides, o->override, e) ||
        session_checkpoint(&x->x, o->word[0], &x->k, e) || take_model_keys(x, e))
        return e->code;
    if (tokenizer_open(&x->tokenizer, x->c.data.tokenizer, e)) return error_within(e, "data.tokenizer");
    const char *digest = json_string_value(json_object_get(ckpt_state(x->k), "tokenizer_digest"));
    if (!digest || strcmp(digest, tokenizer_digest(x->tokenizer)))
        return error_set(
            e, EXIT_USAGE,
            "%s: is not the tokenizer that %s was trained with; --data.tokenizer=FILE names another",
            x->c.data.tokenizer, ckpt_path(x->k));
    list_tensors(x);
    if (!x->c.model.mla_scale_q_lora || !x->c.model.mla_scale_kv_lora)
        notice("model.mla_scale_q_lora or mla_scale_kv_lora is false: config.json says so, but "
               "transformers scales both");
    return 0;
}

static void close_all(exporter *x) {
    for (int64_t i = 0; i < x->l.n; i++) mem_free((char *)x->l.spec[i].name);
    mem_free(x->l.spec);
    mem_free(x->l.from);
    tokenizer_close(x->tokenizer);
    ckpt_close(x->k);
    config_free(&x->c);
    if (x->x.world) comm_close(x->x.world);
}

/* "5GB", "500MB": powers of 1000, as transformers reads it. */
static int parse_size(const char *text, int64_t *bytes) {
    static const char *const unit[] = {"B", "KB", "MB", "GB", "TB"};
    char *end;
    double n = strtod(text, &end);
    for (int i = 0; i < 5; i++, n *= 1000)
        if (end != text && !strcmp(end, unit[i]) && n >= 1 && n < 1e18) {
            *bytes = (int64_t)n;
            return 1;
        }
    return 0;
}

static int run(exporter *x, const options *o, error *e) {
    char *directory = NULL;
    int64_t files = 0;
    int code = open_all(x, o, e);
    if (!code) code = staging_begin(o->word[1], &directory, e);
    if (!code) {
        code = write_all_of_it(x, directory, &files, e);
        if (!code) code = staging_commit(directory, e);
        if (code) staging_abandon(directory);
    }
    mem_free(directory);
    if (!code)
        printf("%s: the model after step %lld, %lld tensors in %lld file%s%s\n", o->word[1],
               (long long)ckpt_step(x->k), (long long)x->l.n, (long long)files, files == 1 ? "" : "s",
               x->l.mtp ? ", MTP head included" : "");
    else error_print(e);
    return code;
}

int export_command(int argc, char **argv) {
    exporter x = {.dtype = "float32", .layout = "published"};
    const char *size = "5GB";
    const option known[] = {
        {"dtype", .text = &x.dtype}, {"max-shard-size", .text = &size}, {"layout", .text = &x.layout}, {0}};
    options o = {.usage = "usage: caracal export CKPT DIR [--dtype=float32|bf16] [--max-shard-size=5GB] "
                          "[--layout=published|transformers-5] [--section.key=value ...]\n",
                 .known = known,
                 .min_words = 2,
                 .max_words = 2,
                 .config = 1};
    error e = {0};
    if (!options_read(&o, argc, argv)) return o.code;
    if (strcmp(x.dtype, "float32") && strcmp(x.dtype, "bf16"))
        return options_refuse(&o, "--dtype=%s: must be float32 or bf16", x.dtype);
    if (strcmp(x.layout, "published") && strcmp(x.layout, "transformers-5"))
        return options_refuse(&o, "--layout=%s: must be published or transformers-5", x.layout);
    if (!parse_size(size, &x.max_bytes))
        return options_refuse(&o, "--max-shard-size=%s: must be a size such as 5GB or 500MB", size);
    int code = run(&x, &o, &e);
    close_all(&x);
    return code;
}
