/* The config as text: the resolved file, the help, and what a resume compares. */
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#include "ckpt/files.h"
#include "launch/memory.h"
#include "train/config_table.h"

enum { VALUE_TEXT = 4096 };

/* A value as YAML: plain where nothing can be misread, otherwise in single quotes. */
static void write_value(FILE *out, const char *text) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-:";
    if (*text && strspn(text, plain) == strlen(text) && text[strlen(text) - 1] != ':' &&
        !strchr("-:", *text)) {
        fputs(text, out);
        return;
    }
    putc('\'', out);
    for (; *text; text++) {
        if (*text == '\'') putc('\'', out);
        putc(*text, out);
    }
    putc('\'', out);
}

static void write_sources(FILE *out, const data_config *data) {
    char text[VALUE_TEXT];
    fputs(data->sources ? "  sources:\n" : "  sources: []\n", out);
    for (int64_t s = 0; s < data->sources; s++) {
        for (int k = 0; k < config_source_key_count; k++) {
            config_value_text(&config_source_keys[k], &data->source[s], text, sizeof text);
            if (!*text) continue;
            fprintf(out, "    %s %s: ", k ? " " : "-", config_source_keys[k].name);
            write_value(out, text);
            putc('\n', out);
        }
    }
}

int config_write(const config *c, FILE *out) {
    char text[VALUE_TEXT], section[32] = "";
    for (int k = 0; k < config_key_count; k++) {
        const config_key *key = &config_keys[k];
        const char *dot = strchr(key->name, '.');
        size_t n = dot ? (size_t)(dot - key->name) : 0;
        if (strlen(section) != n || strncmp(section, key->name, n)) {
            if (k) putc('\n', out);
            if (dot) fprintf(out, "%.*s:\n", (int)n, key->name);
            snprintf(section, sizeof section, "%.*s", (int)n, key->name);
        }
        config_value_text(key, c, text, sizeof text);
        fprintf(out, "%s%s: ", dot ? "  " : "", dot ? dot + 1 : key->name);
        write_value(out, text);
        if (*key->doc) fprintf(out, "  # %s", key->doc);
        putc('\n', out);
        if (!strcmp(key->name, "data.tokenizer")) write_sources(out, &c->data);
    }
    return ferror(out) ? -1 : 0;
}

int config_save(const config *c, const char *directory, error *e) {
    char *text = NULL, *path = text_of("%s/config.yaml", directory);
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out || config_write(c, out) || fclose(out)) FAULT(EXIT_NO_MEMORY, "out of memory: %s", path);
    int code = write_file(path, text, bytes, e);
    mem_free(text);
    mem_free(path);
    return code;
}

void config_help(FILE *out) {
    for (int k = 0; k < config_key_count; k++) {
        const config_key *key = &config_keys[k];
        char allowed[256];
        config_value_allowed(key, allowed, sizeof allowed);
        fprintf(out, "  %-30s %s", key->name, allowed);
        if (key->standard) fprintf(out, " [%s]", key->standard);
        if (*key->doc) fprintf(out, ": %s", key->doc);
        putc('\n', out);
    }
    fprintf(
        out,
        "  %-30s a list of {name, train, valid, weight}; on the command line data.sources.NAME.weight=2\n",
        "data.sources");
}

/* "english 2, c 1": names, weights and their order decide which sample comes when; paths do not. */
static char *sources_text(const data_config *data) {
    size_t size = 1, used = 0;
    for (int64_t s = 0; s < data->sources; s++) size += strlen(data->source[s].name) + 64;
    char *text = mem_alloc(size, "the list of sources");
    const config_key *key =
        &config_source_keys[config_key_find(config_source_keys, config_source_key_count, "weight")];
    for (int64_t s = 0; s < data->sources; s++) {
        char weight[64];
        config_value_text(key, &data->source[s], weight, sizeof weight);
        used += (size_t)snprintf(text + used, size - used, "%s%s %s", s ? ", " : "", data->source[s].name,
                                 weight);
    }
    return text;
}

json_t *config_deciding(const config *c) {
    json_t *deciding = json_object();
    char text[VALUE_TEXT];
    for (int k = 0; k < config_key_count; k++) {
        if (!config_keys[k].decides) continue;
        config_value_text(&config_keys[k], c, text, sizeof text);
        json_object_set_new(deciding, config_keys[k].name, json_string(text));
    }
    char *sources = sources_text(&c->data);
    json_object_set_new(deciding, "data.sources", json_string(sources));
    mem_free(sources);
    return deciding;
}

void config_digest(const config *c, char hex[33]) {
    json_t *deciding = config_deciding(c), *value;
    const char *key;
    char *text = NULL;
    size_t used = 0;
    json_object_foreach(deciding, key, value) {
        size_t more = strlen(key) + json_string_length(value) + 2; /* key=value\n */
        text = mem_grow(text, used + more + 1, "the digest of the config");
        snprintf(text + used, more + 1, "%s=%s\n", key, json_string_value(value));
        used += more;
    }
    XXH128_hash_t hash = XXH3_128bits(text, used);
    snprintf(hex, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64, (uint64_t)hash.low64);
    mem_free(text);
    json_decref(deciding);
}

int config_compare(const config *c, const json_t *deciding, error *e) {
    json_t *ours = config_deciding(c), *value;
    const char *key;
    char list[1024] = "";
    size_t used = 0;
    json_object_foreach(ours, key, value) {
        const char *was = json_string_value(json_object_get(deciding, key));
        if ((was && !strcmp(was, json_string_value(value))) || used >= sizeof list) continue;
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s is %s, was %s", used ? "; " : "", key,
                                 json_string_value(value), was ? was : "not there");
    }
    json_object_foreach((json_t *)deciding, key, value) {
        if (json_object_get(ours, key) || used >= sizeof list) continue;
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s is no longer a key", used ? "; " : "",
                                 key);
    }
    json_decref(ours);
    if (!used) return 0;
    return error_set(e, EXIT_USAGE, "this config gives other numbers than the checkpoint's: %s", list);
}
