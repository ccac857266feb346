#include "data/tokenizer_json.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/byte_level.h"
#include "data/output.h"
#include "launch/memory.h"

/* ---- writing ---- */

/* The piece of a token as tokenizer.json spells it, to be released with mem_free. */
static char *spelling(const bpe *b, const byte_level *table, int32_t id) {
    if (id == b->eos) return mem_string(BPE_EOS_TEXT);
    size_t bytes = (size_t)(b->start[id + 1] - b->start[id]);
    char *s = mem_alloc(2 * bytes + 1, "a piece");
    byte_level_write(table, s, b->text + b->start[id], bytes);
    return s;
}

static json_t *byte_level_settings(void) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0,
                     "use_regex", 0);
}

static json_t *model(const bpe *b) {
    byte_level table;
    byte_level_fill(&table);
    json_t *vocab = json_object(), *merges = json_array();
    for (int32_t id = 0; id < b->vocab_size; id++) {
        char *s = spelling(b, &table, id);
        json_object_set_new(vocab, s, json_integer(id));
        mem_free(s);
    }
    REQUIRE(json_object_size(vocab) == (size_t)b->vocab_size);
    for (int64_t r = 0; r < b->merges; r++) { /* "left right": every version of the library reads this form */
        char *left = spelling(b, &table, b->merge[r].left), *right = spelling(b, &table, b->merge[r].right);
        json_array_append_new(merges, json_sprintf("%s %s", left, right));
        mem_free(left);
        mem_free(right);
    }
    return json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                     "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                     "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab, "merges", merges);
}

int tokenizer_json_write(const bpe *b, const char *pattern, const char *path, error *e) {
    json_t *split = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", pattern,
                              "behavior", "Isolated", "invert", 0);
    json_t *eos = json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", b->eos, "content", BPE_EOS_TEXT,
                            "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
    json_t *root = json_pack(
        "{s:s, s:n, s:n, s:[o], s:n, s:{s:s, s:[o, o]}, s:n, s:o, s:o}", "version", "1.0", "truncation",
        "padding", "added_tokens", eos, "normalizer", "pre_tokenizer", "type", "Sequence", "pretokenizers",
        split, byte_level_settings(), "post_processor", "decoder", byte_level_settings(), "model", model(b));
    REQUIRE(root);
    output o;
    int code = output_open(&o, path, e);
    if (!code) {
        char *text = json_dumps(root, JSON_INDENT(2));
        output_write(&o, text, strlen(text));
        output_write(&o, "\n", 1);
        free(text);
        if (!(code = output_finish(&o, e))) code = output_commit(&o, e);
    }
    if (code) output_discard(&o);
    json_decref(root);
    return code;
}

/* ---- reading ---- */

/* A setting that must have one value, or be absent (null) where that means the same. */
static int setting(const json_t *object, const char *key, const char *wanted, const char *where, error *e) {
    const json_t *v = json_object_get(object, key);
    char *is = v ? json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    int absent = !v || json_is_null(v), empty = !strcmp(wanted, "null") || !strcmp(wanted, "false");
    int good = absent ? empty : !strcmp(is, wanted) || (!strcmp(wanted, "null") && !strcmp(is, "\"\""));
    if (!good)
        error_set(e, EXIT_CORRUPT, "%s.%s is %.60s; only %s is supported", where, key, is ? is : "missing",
                  wanted);
    free(is);
    return good ? 0 : EXIT_CORRUPT;
}

/* Everything around the model that changes ids: it must be what this program does. */
static int check_pipeline(const json_t *root, const char **pattern, error *e) {
    const json_t *pre = json_object_get(root, "pre_tokenizer"), *list = json_object_get(pre, "pretokenizers");
    const json_t *split = json_array_get(list, 0), *bytes = json_array_get(list, 1);
    const json_t *post = json_object_get(root, "post_processor"); /* a ByteLevel one touches no ids */
    if (setting(root, "normalizer", "null", "tokenizer", e) ||
        setting(root, "truncation", "null", "tokenizer", e) ||
        setting(root, "padding", "null", "tokenizer", e) ||
        (post && !json_is_null(post) && setting(post, "type", "\"ByteLevel\"", "post_processor", e)) ||
        setting(pre, "type", "\"Sequence\"", "pre_tokenizer", e) ||
        setting(split, "type", "\"Split\"", "pre_tokenizer[0]", e) ||
        setting(split, "behavior", "\"Isolated\"", "pre_tokenizer[0]", e) ||
        setting(split, "invert", "false", "pre_tokenizer[0]", e) ||
        setting(bytes, "type", "\"ByteLevel\"", "pre_tokenizer[1]", e) ||
        setting(bytes, "add_prefix_space", "false", "pre_tokenizer[1]", e) ||
        setting(bytes, "use_regex", "false", "pre_tokenizer[1]", e) ||
        setting(json_object_get(root, "decoder"), "type", "\"ByteLevel\"", "decoder", e))
        return e->code;
    *pattern = json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
    if (!*pattern || json_array_size(list) != 2)
        return error_set(e, EXIT_CORRUPT,
                         "pre_tokenizer: a Split by a Regex and a ByteLevel are wanted, and no more");

    const json_t *model = json_object_get(root, "model");
    if (setting(model, "type", "\"BPE\"", "model", e) || setting(model, "dropout", "null", "model", e) ||
        setting(model, "unk_token", "null", "model", e) ||
        setting(model, "continuing_subword_prefix", "null", "model", e) ||
        setting(model, "end_of_word_suffix", "null", "model", e) ||
        setting(model, "byte_fallback", "false", "model", e) ||
        setting(model, "ignore_merges", "false", "model", e))
        return e->code;
    return 0;
}

static int read_eos(bpe *b, const json_t *root, const json_t *vocab, error *e) {
    const json_t *added = json_object_get(root, "added_tokens"), *eos = json_array_get(added, 0);
    const char *content = json_string_value(json_object_get(eos, "content"));
    if (json_array_size(added) != 1 || !content || strcmp(content, BPE_EOS_TEXT) ||
        !json_is_true(json_object_get(eos, "special")))
        return error_set(e, EXIT_CORRUPT, "added_tokens: exactly one, the special token %s, is supported",
                         BPE_EOS_TEXT);
    const json_t *number = json_object_get(eos, "id"), *entry = json_object_get(vocab, BPE_EOS_TEXT);
    json_int_t id = json_integer_value(number);
    if (!json_is_integer(number))
        return error_set(e, EXIT_CORRUPT, "added_tokens: the id of %s is not an integer", BPE_EOS_TEXT);
    if (!json_is_integer(entry) || json_integer_value(entry) != id)
        return error_set(e, EXIT_CORRUPT, "added_tokens gives %s the id %lld, model.vocab gives it %s",
                         BPE_EOS_TEXT, (long long)id, entry ? "another" : "none");
    b->eos = (int32_t)id;
    return 0;
}

/* Lays the pieces out in the order of their ids. */
static int read_vocab(bpe *b, json_t *vocab, const byte_level *table, error *e) {
    size_t size = json_object_size(vocab);
    if (!size || size >= INT32_MAX) return error_set(e, EXIT_CORRUPT, "model.vocab is missing or empty");
    b->vocab_size = (int32_t)size;
    const char *name, **piece = mem_alloc(size * sizeof *piece, "a vocabulary");
    json_t *value;
    size_t total = 0;
    int code = 0;
    json_object_foreach(vocab, name, value) {
        json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id >= (json_int_t)size)
            code = error_set(
                e, EXIT_CORRUPT,
                "model.vocab: the id of \"%.60s\" is not one of 0 to %zu (%zu pieces, each id once)", name,
                size - 1, size);
        else if (piece[id])
            code =
                error_set(e, EXIT_CORRUPT, "model.vocab: id %lld stands twice, for \"%.60s\" and \"%.60s\"",
                          (long long)id, piece[id], name);
        else piece[id] = name;
        if (code) break;
        total += strlen(name);
    }
    if (!code) { /* size distinct ids below size: none is missing */
        b->text = mem_alloc(total, "a vocabulary");
        b->start = mem_alloc((size + 1) * sizeof *b->start, "a vocabulary");
        for (int c = 0; c < 256; c++) b->byte_id[c] = -1;
        for (int32_t id = 0; id < b->vocab_size && !code; id++) {
            char *to = b->text + b->start[id];
            long n = strcmp(piece[id], BPE_EOS_TEXT) ? byte_level_read(table, to, piece[id]) : 0;
            if (n < 0)
                code = error_set(e, EXIT_CORRUPT,
                                 "model.vocab: \"%.60s\" has a character that stands for no byte", piece[id]);
            else b->start[id + 1] = b->start[id] + n;
            if (n == 1) b->byte_id[(unsigned char)*to] = id;
        }
        for (int c = 0; c < 256 && !code; c++)
            if (b->byte_id[c] < 0)
                code = error_set(e, EXIT_CORRUPT, "model.vocab: there is no piece for the byte 0x%02X", c);
    }
    mem_free(piece);
    return code;
}

/* "left right", or ["left", "right"] as newer files have it.  NULL if it is neither. */
static char *merge_text(const json_t *entry) {
    if (json_is_string(entry)) return mem_string(json_string_value(entry));
    const char *left = json_string_value(json_array_get(entry, 0));
    const char *right = json_string_value(json_array_get(entry, 1));
    if (json_array_size(entry) != 2 || !left || !right) return NULL;
    size_t n = strlen(left) + strlen(right) + 2;
    char *s = mem_alloc(n, "a merge");
    snprintf(s, n, "%s %s", left, right);
    return s;
}

static int read_merge(bpe *b, const json_t *vocab, int64_t r, char *text, error *e) {
    char *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return error_set(e, EXIT_CORRUPT, "model.merges[%lld] is not a pair of pieces", (long long)r);
    *space = 0;
    const json_t *left = json_object_get(vocab, text), *right = json_object_get(vocab, space + 1);
    const char *missing = !left ? text : !right ? space + 1 : NULL;
    if (missing)
        return error_set(e, EXIT_CORRUPT, "model.merges[%lld]: \"%.60s\" is not in the vocabulary",
                         (long long)r, missing);
    bpe_merge m = {.left = (int32_t)json_integer_value(left), .right = (int32_t)json_integer_value(right)};
    const int64_t *before = pair_table_find(&b->rank, m.left, m.right);
    if (before)
        return error_set(e, EXIT_CORRUPT, "model.merges[%lld] stands twice: it is also merge %lld",
                         (long long)r, (long long)*before);
    memmove(space, space + 1, strlen(space + 1) + 1); /* the two joined */
    const json_t *into = json_object_get(vocab, text);
    if (!into)
        return error_set(e, EXIT_CORRUPT,
                         "model.merges[%lld] makes \"%.60s\", which is not in the vocabulary", (long long)r,
                         text);
    m.into = (int32_t)json_integer_value(into);
    b->merge[r] = m;
    *pair_table_at(&b->rank, m.left, m.right) = r;
    return 0;
}

int tokenizer_json_read(bpe *b, char **pattern, const char *path, const char *text, size_t bytes, error *e) {
    *b = (bpe){0};
    json_error_t why;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return error_set(e, EXIT_CORRUPT, "%s, line %d: not a valid tokenizer.json: %s", path, why.line,
                         why.text);
    byte_level table;
    byte_level_fill(&table);
    const char *found = NULL;
    const json_t *model = json_object_get(root, "model"), *merges = json_object_get(model, "merges");
    json_t *vocab = json_object_get(model, "vocab");
    int code = check_pipeline(root, &found, e);
    if (!code) code = read_vocab(b, vocab, &table, e);
    if (!code) code = read_eos(b, root, vocab, e);
    if (!code && !json_is_array(merges)) code = error_set(e, EXIT_CORRUPT, "model.merges is not a list");
    if (!code) {
        b->merges = (int64_t)json_array_size(merges);
        b->merge = mem_alloc((size_t)b->merges * sizeof *b->merge, "merges");
    }
    for (int64_t r = 0; !code && r < b->merges; r++) {
        char *merge = merge_text(json_array_get(merges, (size_t)r));
        code = read_merge(b, vocab, r, merge, e);
        mem_free(merge);
    }
    if (code) {
        bpe_free(b);
        error_within(e, "%s", path);
    } else *pattern = mem_string(found);
    json_decref(root);
    return code;
}
