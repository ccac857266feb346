#include "train/published.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "launch/files.h"
#include "launch/memory.h"

/* Keys with a key of ours.  Some have a second name in some files; without a value the model would not be
 * known, save for the two that are true in every published file. */
static const struct {
    const char *key, *published, *other;
    int optional;
} keys[] = {
    {"model.vocab_size", "vocab_size", NULL, 0},
    {"model.hidden_size", "hidden_size", NULL, 0},
    {"model.num_layers", "num_layers", NULL, 0},
    {"model.num_attention_heads", "num_attention_heads", NULL, 0},
    {"model.q_lora_rank", "q_lora_rank", NULL, 0},
    {"model.kv_lora_rank", "kv_lora_rank", NULL, 0},
    {"model.qk_nope_head_dim", "qk_nope_head_dim", NULL, 0},
    {"model.qk_rope_head_dim", "qk_rope_head_dim", NULL, 0},
    {"model.v_head_dim", "v_head_dim", NULL, 0},
    {"model.ffn_hidden_size", "ffn_hidden_size", "intermediate_size", 0},
    {"model.expert_ffn_hidden_size", "expert_ffn_hidden_size", "moe_intermediate_size", 0},
    {"model.n_routed_experts", "n_routed_experts", "num_local_experts", 0},
    {"model.zero_expert_num", "zero_expert_num", NULL, 0},
    {"model.moe_topk", "moe_topk", "num_experts_per_tok", 0},
    {"model.routed_scaling_factor", "routed_scaling_factor", NULL, 0},
    {"model.rms_norm_eps", "rms_norm_eps", NULL, 0},
    {"model.rope_theta", "rope_theta", NULL, 0},
    {"model.mla_scale_q_lora", "mla_scale_q_lora", NULL, 1},
    {"model.mla_scale_kv_lora", "mla_scale_kv_lora", NULL, 1},
    {"train.seq_len", "max_position_embeddings", NULL, 1},
};
enum { KEYS = sizeof keys / sizeof *keys };

/* Keys that have one value here; absent or null means it. */
static const struct {
    const char *published, *value;
} fixed[] = {
    {"model_type", "\"longcat_flash\""},  {"hidden_act", "\"silu\""}, {"attention_bias", "false"},
    {"attention_method", "\"MLA\""},      {"router_bias", "false"},   {"norm_topk_prob", "false"},
    {"zero_expert_type", "\"identity\""}, {"rope_scaling", "null"},   {"tie_word_embeddings", "false"},
    {"quantization_config", "null"},
};

/* Keys that follow from others: where they are there, they must agree. */
static const struct {
    const char *published, *of, *plus;
} derived[] = {
    {"num_key_value_heads", "num_attention_heads", NULL},
    {"head_dim", "qk_rope_head_dim", NULL},
    {"qk_head_dim", "qk_nope_head_dim", "qk_rope_head_dim"},
};

static const json_t *get(const json_t *root, const char *key) {
    const json_t *v = json_object_get(root, key);
    return json_is_null(v) ? NULL : v;
}

/* The value under either name; both must say the same. */
static int find(const json_t *root, const char *name, const char *other, const json_t **value, error *e) {
    const json_t *second = other ? get(root, other) : NULL;
    *value = get(root, name);
    if (*value && second && !json_equal(*value, second))
        return error_set(e, EXIT_CORRUPT, "%s and %s contradict one another", name, other);
    if (!*value) *value = second;
    return 0;
}

static int read_keys(published *p, const json_t *root, error *e) {
    for (int i = 0; i < KEYS; i++) {
        const json_t *v;
        if (find(root, keys[i].published, keys[i].other, &v, e)) return e->code;
        if (!v && !keys[i].optional) return error_set(e, EXIT_CORRUPT, "%s is missing", keys[i].published);
        if (!v) continue;
        char *text =
            json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT); /* a text keeps its quotes, and is refused */
        published_set(p, keys[i].key, text);
        mem_free(text);
    }
    return 0;
}

static int check_fixed(const json_t *root, error *e) {
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        const json_t *v = get(root, fixed[i].published);
        char *is = v ? json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
        if (is && strcmp(is, fixed[i].value))
            error_set(e, EXIT_CORRUPT, "%s is %.100s; only %s is supported", fixed[i].published, is,
                      fixed[i].value);
        mem_free(is);
        if (e->code) return e->code;
    }
    return 0;
}

static int check_derived(const json_t *root, error *e) {
    for (size_t i = 0; i < sizeof derived / sizeof *derived; i++) {
        const json_t *v = get(root, derived[i].published);
        json_int_t wanted = json_integer_value(get(root, derived[i].of));
        if (derived[i].plus) wanted += json_integer_value(get(root, derived[i].plus));
        if (v && json_integer_value(v) != wanted)
            return error_set(e, EXIT_CORRUPT, "%s is %lld, but %s%s%s make%s it %lld", derived[i].published,
                             (long long)json_integer_value(v), derived[i].of, derived[i].plus ? " + " : "",
                             derived[i].plus ? derived[i].plus : "", derived[i].plus ? "" : "s",
                             (long long)wanted);
    }
    return 0;
}

/* Newer files have {"rope_parameters": {"rope_theta": .., "rope_type": "default"}}. */
static int unfold_rope(json_t *root, error *e) {
    const json_t *rope = get(root, "rope_parameters"), *theta = get(rope, "rope_theta"),
                 *type = get(rope, "rope_type"), *plain = get(root, "rope_theta");
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "default")))
        return error_set(e, EXIT_CORRUPT, "rope_parameters.rope_type: only \"default\" is supported");
    if (theta && plain && json_number_value(theta) != json_number_value(plain))
        return error_set(e, EXIT_CORRUPT, "rope_theta and rope_parameters.rope_theta contradict one another");
    if (theta) json_object_set(root, "rope_theta", (json_t *)theta);
    return 0;
}

int published_read(published *p, const char *path, error *e) {
    char *text;
    size_t bytes;
    json_error_t why;
    *p = (published){0};
    *e = (error){0};
    if (read_file(path, &text, &bytes, e)) return e->code;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
    mem_free(text);
    if (!root) return error_set(e, EXIT_CORRUPT, "%s, line %d: not JSON: %s", path, why.line, why.text);
    if (check_fixed(root, e) || unfold_rope(root, e) || read_keys(p, root, e) || check_derived(root, e)) {
        error_within(e, "%s", path);
        published_free(p);
    }
    json_decref(root);
    return e->code;
}

void published_free(published *p) {
    for (int k = 0; k < CONFIG_MAX_KEYS; k++) mem_free(p->text[k]);
    *p = (published){0};
}

static int key_index(const char *name) {
    int k = config_key_find(config_keys, config_key_count, name);
    REQUIRE(k >= 0);
    return k;
}

void published_set(published *p, const char *key, const char *text) {
    int k = key_index(key);
    mem_free(p->text[k]);
    p->text[k] = mem_string(text);
}

int published_compare(const published *p, const config *c, const char *config_path, const char *path,
                      error *e) {
    for (int i = 0; i < KEYS; i++) {
        int k = key_index(keys[i].key);
        config theirs = {0};
        char ours[64], other[64];
        if (!p->text[k] || strncmp(keys[i].key, "model.", 6)) continue;
        if (config_value_parse(&config_keys[k], &theirs, p->text[k], path, keys[i].published, e))
            return e->code;
        config_value_text(&config_keys[k], c, ours, sizeof ours);
        config_value_text(&config_keys[k], &theirs, other, sizeof other);
        if (strcmp(ours, other))
            return error_set(e, EXIT_USAGE, "%s: %s = %s, but %s has %s = %s", config_path, keys[i].key, ours,
                             path, keys[i].published, other);
    }
    return 0;
}

/* ---- writing ---- */

static int check_publishable(const config *c, error *e) {
    if (c->model.moe_input != MOE_SHORTCUT)
        return error_set(e, EXIT_USAGE,
                         "model.moe_input = sequential: the published format has no such model, and other "
                         "programs would compute the shortcut");
    if (c->model.latent_norm_eps != 1e-6)
        return error_set(
            e, EXIT_USAGE,
            "model.latent_norm_eps = %g: the published format has no such key, and other programs "
            "compute with 1e-6",
            c->model.latent_norm_eps);
    return 0;
}

static json_t *value_of(const config *c, const char *name) {
    const config_key *key = &config_keys[key_index(name)];
    const void *field = (const char *)c + key->offset;
    if (key->type == KEY_BOOL) return json_boolean(*(const int *)field);
    return key->type == KEY_INT ? json_integer(*(const int64_t *)field) : json_real(*(const double *)field);
}

/* With how many digits all of its numbers read back. */
static int digits_of(const config *c) {
    int digits = 15;
    for (int i = 0; i < KEYS; i++) {
        const config_key *key = &config_keys[key_index(keys[i].key)];
        const double *value = (const void *)((const char *)c + key->offset);
        char text[64];
        for (; key->type == KEY_REAL && digits < 17; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, *value);
            if (strtod(text, NULL) == *value) break;
        }
    }
    return digits;
}

int published_write(const config *c, int64_t eos, const char *dtype, int mtp, const char *path, error *e) {
    if (check_publishable(c, e)) return e->code;
    json_t *root =
        json_pack("{s[s]ss}", "architectures", "LongcatFlashForCausalLM", "model_type", "longcat_flash");
    for (int i = 0; i < KEYS; i++) json_object_set_new(root, keys[i].published, value_of(c, keys[i].key));
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (!json_object_get(root, fixed[i].published))
            json_object_set_new(root, fixed[i].published, json_loads(fixed[i].value, JSON_DECODE_ANY, NULL));
    json_object_del(root, "quantization_config"); /* even null counts as quantized for some */
    const model_config *m = &c->model;
    int64_t per_head = m->qk_nope_head_dim + m->qk_rope_head_dim;
    /* no num_hidden_layers, as in the published files: some read it as the layers, some as the attentions */
    json_t *rest =
        json_pack("{sI sI sI ss sb si sn sn sI}", "num_key_value_heads", (json_int_t)m->num_attention_heads,
                  "head_dim", (json_int_t)m->qk_rope_head_dim, "qk_head_dim", (json_int_t)per_head,
                  "torch_dtype", dtype, "use_cache", 1, "num_nextn_predict_layers", mtp, "bos_token_id",
                  "pad_token_id", "eos_token_id", (json_int_t)eos);
    REQUIRE(root && rest);
    json_object_update(root, rest);
    json_decref(rest);
    char *json = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(digits_of(c))),
         *text = text_of("%s\n", json);
    int code = write_file(path, text, strlen(text), e);
    mem_free(text);
    mem_free(json);
    json_decref(root);
    return code;
}
