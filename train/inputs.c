#include "train/inputs.h"

#include <string.h>

static const char train_key[] = "train", valid_key[] = "valid";

static void record(json_t *source, const char *key, const loader *l, int64_t i) {
    const char *digest = l ? loader_source_digest(l, i) : "";
    if (*digest) json_object_set_new(source, key, json_string(digest));
}

json_t *inputs_record(const data_config *c, const tokenizer *t, const loader *train, const loader *valid) {
    json_t *inputs = json_pack("{s:s}", INPUTS_TOKENIZER, tokenizer_digest(t));
    if (!train && !valid) return inputs;
    json_t *data = json_object();
    for (int64_t i = 0; i < c->sources; i++) {
        json_t *source = json_object();
        record(source, train_key, train, i);
        record(source, valid_key, valid, i);
        json_object_set_new(data, c->source[i].name, source);
    }
    json_object_set_new(inputs, INPUTS_DATA, data);
    return inputs;
}

static const char *recorded(const json_t *inputs, const char *source, const char *key) {
    const json_t *data = json_object_get(inputs, INPUTS_DATA);
    return json_string_value(json_object_get(json_object_get(data, source), key));
}

static int compare_file(const char *source, const char *key, const char *prefix, const json_t *ours,
                        const json_t *about, error *e) {
    const char *is = recorded(ours, source, key), *was = recorded(about, source, key);
    if (!is || !was || !strcmp(is, was)) return 0;
    return error_set(
        e, EXIT_USAGE,
        "data source %s: %s.bin has other tokens than the run has had there (another text, split "
        "or tokenizer): give it those again; `caracal grow CKPT OUT --times=1` makes a run that "
        "goes on with the new ones, --init-from=CKPT takes the weights alone",
        source, prefix);
}

int inputs_compare(const data_config *c, const json_t *ours, const json_t *about, error *e) {
    const char *was = json_string_value(json_object_get(about, INPUTS_TOKENIZER));
    if (!was || strcmp(was, json_string_value(json_object_get(ours, INPUTS_TOKENIZER))))
        return error_set(e, EXIT_USAGE, "it was trained with another tokenizer than %s", c->tokenizer);
    for (int64_t i = 0; i < c->sources; i++) {
        const data_source *s = &c->source[i];
        if (compare_file(s->name, train_key, s->train, ours, about, e) ||
            compare_file(s->name, valid_key, s->valid, ours, about, e))
            return e->code;
    }
    return 0;
}
