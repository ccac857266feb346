/* The config as text: the resolved file, the help, and what decides numbers. */
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#include "launch/files.h"
#include "launch/memory.h"
#include "train/config_table.h"

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
    char text[CONFIG_VALUE_TEXT];
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

static void write_stages(FILE *out, const data_config *data) {
    char text[CONFIG_VALUE_TEXT];
    if (data->stages) fputs("  stages:\n", out);
    for (int64_t i = 0; i < data->stages; i++) {
        for (int k = 0; k < config_stage_key_count; k++) {
            config_value_text(&config_stage_keys[k], &data->stage[i], text, sizeof text);
            fprintf(out, "    %s %s: %s\n", k ? " " : "-", config_stage_keys[k].name, text);
        }
        fputs("      weights:\n", out);
        for (int64_t s = 0; s < data->sources; s++) {
            fputs("        ", out);
            write_value(out, data->source[s].name);
            config_real_text(data->stage[i].weight[s], text, sizeof text);
            fprintf(out, ": %s\n", text);
        }
    }
}

int config_write(const config *c, FILE *out) {
    char text[CONFIG_VALUE_TEXT], section[32] = "";
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
        if (!strcmp(key->name, "data.tokenizer")) {
            write_sources(out, &c->data);
            write_stages(out, &c->data);
        }
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
    fprintf(out,
            "  %-30s a list of {after, weights, ramp, seq_len, rope_theta, micro_batches, "
            "micro_batch_size}; what a stage does not say stays as it was\n",
            "data.stages");
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

/* "seq_len 256, micro_batches 8, ..., english 2, c 1" */
static char *stage_text(const data_config *data, const data_stage *stage) {
    char value[64], *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) FAULT(EXIT_NO_MEMORY, "no memory for the text of a stage");
    for (int k = 1; k < config_stage_key_count; k++) { /* after stands in the key */
        config_value_text(&config_stage_keys[k], stage, value, sizeof value);
        fprintf(out, "%s %s, ", config_stage_keys[k].name, value);
    }
    for (int64_t s = 0; s < data->sources; s++) {
        config_real_text(stage->weight[s], value, sizeof value);
        fprintf(out, "%s%s %s", s ? ", " : "", data->source[s].name, value);
    }
    fclose(out);
    return text;
}

json_t *config_deciding(const config *c) {
    json_t *deciding = json_object();
    char text[CONFIG_VALUE_TEXT];
    for (int k = 0; k < config_key_count; k++) {
        if (config_keys[k].decides == KEY_FREE) continue;
        config_value_text(&config_keys[k], c, text, sizeof text);
        if (config_keys[k].decides == KEY_JOINED && !strcmp(text, config_keys[k].standard)) continue;
        json_object_set_new(deciding, config_keys[k].name, json_string(text));
    }
    char *sources = sources_text(&c->data);
    json_object_set_new(deciding, "data.sources", json_string(sources));
    mem_free(sources);
    for (int64_t i = 0; i < c->data.stages; i++) {
        char key[64];
        snprintf(key, sizeof key, CONFIG_STAGE_PREFIX "%" PRId64, c->data.stage[i].after);
        char *stage = stage_text(&c->data, &c->data.stage[i]);
        json_object_set_new(deciding, key, json_string(stage));
        mem_free(stage);
    }
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
    digest_text(XXH3_128bits(text, used), hex);
    mem_free(text);
    json_decref(deciding);
}
