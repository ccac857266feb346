#include "train/config.h"

#include "launch/memory.h"
#include "train/config_table.h"

static int fill_defaults(config *c, const config_origin *o, error *e) {
    for (int k = 0; k < config_key_count; k++) {
        const config_key *key = &config_keys[k];
        if (o->line[k] != ORIGIN_DEFAULT) continue;
        if (key->standard == KEY_REQUIRED) {
            char allowed[256];
            config_value_allowed(key, allowed, sizeof allowed);
            return error_set(e, EXIT_USAGE, "%s: %s is missing; it must be %s", o->file, key->name, allowed);
        }
        int code = config_value_parse(key, c, key->standard, "the table of keys", key->name, e);
        REQUIRE(code == 0);
    }
    return 0;
}

/* After the file, read with `code`: the command line, the defaults, and whether all that goes together. */
static int complete(config *c, config_origin *o, int overrides, char **override, int code, error *e) {
    for (int i = 0; i < overrides && !code; i++) code = config_read_override(c, o, override[i], e);
    if (!code) code = fill_defaults(c, o, e);
    if (!code) code = config_check(c, o, e);
    if (!code) code = config_stages_complete(c, o, e);
    if (code) config_free(c);
    return code;
}

int config_load(config *c, const char *path, int overrides, char **override, error *e) {
    *c = (config){0};
    config_origin origin = {.file = path};
    int code = complete(c, &origin, overrides, override, config_read_file(c, &origin, e), e);
    if (!code) config_find_paths(c, path);
    return code;
}

int config_assemble(config *c, const char *file, char *const *text, int overrides, char **override,
                    error *e) {
    *c = (config){0};
    config_origin origin = {.file = file};
    int code = 0;
    for (int k = 0; k < config_key_count && !code; k++) {
        if (!text[k]) continue;
        origin.line[k] = ORIGIN_FILE;
        code = config_value_parse(&config_keys[k], c, text[k], file, config_keys[k].name, e);
    }
    return complete(c, &origin, overrides, override, code, e);
}

static void free_texts(const config_key *keys, int count, void *base) {
    for (int k = 0; k < count; k++)
        if (keys[k].type == KEY_TEXT) mem_free(*(char **)((char *)base + keys[k].offset));
}

void config_free(config *c) {
    free_texts(config_keys, config_key_count, c);
    for (int64_t s = 0; s < c->data.sources; s++)
        free_texts(config_source_keys, config_source_key_count, &c->data.source[s]);
    *c = (config){0};
}
