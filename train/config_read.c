/* From YAML and from the command line into the struct, through the table. */
#include <errno.h>
#include <string.h>

#include "launch/files.h"
#include "train/config_reader.h"

void config_origin_text(const config_origin *o, int key, char text[ORIGIN_TEXT]) {
    int line = o->line[key];
    if (line == ORIGIN_COMMAND_LINE) snprintf(text, ORIGIN_TEXT, "command line");
    else if (line == ORIGIN_DEFAULT || line == ORIGIN_FILE) snprintf(text, ORIGIN_TEXT, "%s", o->file);
    else snprintf(text, ORIGIN_TEXT, "%s:%d", o->file, line);
}

int reader_unknown_key(const config_key *keys, int count, const char *where, const char *prefix,
                       const char *name, error *e) {
    const char *nearest = config_key_nearest(keys, count, name);
    if (nearest)
        return error_set(e, EXIT_USAGE, "%s: unknown key %s%.100s; did you mean %s%s?", where, prefix, name,
                         prefix, nearest);
    return error_set(e, EXIT_USAGE, "%s: unknown key %s%.100s; `caracal train --help` lists the keys", where,
                     prefix, name);
}

/* ---- the file: a tree of mappings, with the line of every node ---- */

place reader_place(const reader *r, const yaml_node_t *node) {
    place p = {.line = (int)node->start_mark.line + 1};
    snprintf(p.text, sizeof p.text, "%.480s:%d", r->o->file, p.line);
    return p;
}

yaml_node_t *reader_node(reader *r, int index) {
    return yaml_document_get_node(&r->tree, index);
}

const char *reader_scalar(const yaml_node_t *node) {
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

int reader_set_once(int *line, place at, const char *prefix, const char *name, error *e) {
    if (*line)
        return error_set(e, EXIT_USAGE, "%s: %s%s is said twice, first in line %d", at.text, prefix, name,
                         *line);
    *line = at.line;
    return 0;
}

static int read_source(reader *r, yaml_node_t *node, data_source *source) {
    place at = reader_place(r, node);
    if (node->type != YAML_MAPPING_NODE)
        return error_set(r->e, EXIT_USAGE,
                         "%s: data.sources: an entry must be a mapping {name, train, valid, weight}",
                         at.text);
    char prefix[] = "data.sources: ";
    int line[8] = {0};
    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
        yaml_node_t *key = reader_node(r, p->key), *value = reader_node(r, p->value);
        const char *name = reader_scalar(key), *text = reader_scalar(value);
        at = reader_place(r, key);
        if (!name || !text)
            return error_set(r->e, EXIT_USAGE, "%s: data.sources: %s must be a single value", at.text,
                             name ? name : "a key");
        int k = config_key_find(config_source_keys, config_source_key_count, name);
        if (k < 0)
            return reader_unknown_key(config_source_keys, config_source_key_count, at.text, prefix, name,
                                      r->e);
        if (reader_set_once(&line[k], at, prefix, name, r->e)) return r->e->code;
        char full[128];
        snprintf(full, sizeof full, "%s%s", prefix, name);
        if (config_value_parse(&config_source_keys[k], source, text, at.text, full, r->e)) return r->e->code;
    }
    at = reader_place(r, node);
    for (int k = 0; k < config_source_key_count; k++) {
        const config_key *key = &config_source_keys[k];
        if (line[k] || (key->standard && !*key->standard)) continue;
        if (!key->standard)
            return error_set(r->e, EXIT_USAGE, "%s: data.sources: an entry has no %s", at.text, key->name);
        if (config_value_parse(key, source, key->standard, at.text, key->name, r->e)) return r->e->code;
    }
    if (!strcmp(source->name, "total"))
        return error_set(r->e, EXIT_USAGE,
                         "%s: data.sources: total is what validations call all sources together; another "
                         "name is wanted",
                         at.text);
    for (const data_source *other = r->c->data.source; other < source; other++)
        if (!strcmp(other->name, source->name))
            return error_set(r->e, EXIT_USAGE, "%s: data.sources: two entries are named %s", at.text,
                             source->name);
    return 0;
}

static int read_sources(reader *r, place at, yaml_node_t *node) {
    if (node->type != YAML_SEQUENCE_NODE)
        return error_set(r->e, EXIT_USAGE,
                         "%s: data.sources must be a list of mappings {name, train, valid, weight}", at.text);
    if (r->c->data.sources) return error_set(r->e, EXIT_USAGE, "%s: data.sources is said twice", at.text);
    for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
        if (r->c->data.sources == DATA_MAX_SOURCES)
            return error_set(r->e, EXIT_USAGE, "%s: data.sources has more than %d entries", at.text,
                             DATA_MAX_SOURCES);
        data_source *source = &r->c->data.source[r->c->data.sources++];
        if (read_source(r, reader_node(r, *i), source)) return r->e->code;
    }
    return 0;
}

static int is_section(const char *name) {
    size_t n = strlen(name);
    for (int k = 0; k < config_key_count; k++)
        if (!strncmp(config_keys[k].name, name, n) && config_keys[k].name[n] == '.') return 1;
    return 0;
}

/* One `key: value` of the top level (section NULL) or of a section. */
static int read_pair(reader *r, const char *section, yaml_node_t *key, yaml_node_t *value) {
    place at = reader_place(r, key);
    const char *leaf = reader_scalar(key), *text = reader_scalar(value);
    if (!leaf) return error_set(r->e, EXIT_USAGE, "%s: a key must be a word", at.text);
    char name[160];
    snprintf(name, sizeof name, "%s%s%.100s", section ? section : "", section ? "." : "", leaf);
    if (!section && is_section(leaf)) {
        if (value->type == YAML_MAPPING_NODE) {
            yaml_node_pair_t *p = value->data.mapping.pairs.start, *end = value->data.mapping.pairs.top;
            for (; p < end; p++)
                if (read_pair(r, leaf, reader_node(r, p->key), reader_node(r, p->value))) return r->e->code;
            return 0;
        }
        if (text && !*text) return 0; /* a section in which everything is commented out */
        return error_set(r->e, EXIT_USAGE, "%s: %s is a section: its keys stand below it, indented", at.text,
                         leaf);
    }
    if (!strcmp(name, "data.sources")) return read_sources(r, at, value);
    if (!strcmp(name, "data.stages")) { /* they name sources, which may stand below */
        if (r->stages) return error_set(r->e, EXIT_USAGE, "%s: data.stages is said twice", at.text);
        r->stages = value;
        return 0;
    }
    int k = config_key_find(config_keys, config_key_count, name);
    if (k < 0) return reader_unknown_key(config_keys, config_key_count, at.text, "", name, r->e);
    if (!text) {
        char allowed[256];
        config_value_allowed(&config_keys[k], allowed, sizeof allowed);
        return error_set(r->e, EXIT_USAGE, "%s: %s = (a list or mapping): must be %s", at.text, name,
                         allowed);
    }
    if (reader_set_once(&r->o->line[k], at, "", name, r->e)) return r->e->code;
    return config_value_parse(&config_keys[k], r->c, text, at.text, name, r->e);
}

static int read_tree(reader *r) {
    yaml_node_t *root = yaml_document_get_root_node(&r->tree);
    if (!root)
        return error_set(r->e, EXIT_USAGE, "%s: is empty; a config is YAML, as in configs/nano.yaml",
                         r->o->file);
    if (root->type != YAML_MAPPING_NODE)
        return error_set(r->e, EXIT_USAGE, "%s:%d: must be a mapping of sections", r->o->file,
                         (int)root->start_mark.line + 1);
    for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top; p++)
        if (read_pair(r, NULL, reader_node(r, p->key), reader_node(r, p->value))) return r->e->code;
    return r->stages ? reader_stages(r, r->stages) : 0;
}

/* Deeper than any key stands.  libyaml's time is quadratic in the depth, but its events come as it reads:
 * they are looked at first. */
enum { MAX_DEPTH = 16 };

static void parser_open(yaml_parser_t *parser, FILE *file) {
    if (!yaml_parser_initialize(parser)) FAULT(EXIT_NO_MEMORY, "no memory for the YAML parser");
    yaml_parser_set_input_file(parser, file);
}

static int check_depth(const config_origin *o, FILE *file, error *e) {
    yaml_parser_t parser;
    yaml_event_t event;
    parser_open(&parser, file);
    int depth = 0, last = 0, code = 0;
    while (!last && !code &&
           yaml_parser_parse(&parser, &event)) { /* what is not YAML is for the reader to say */
        const int type = event.type;
        last = type == YAML_STREAM_END_EVENT;
        depth += type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT;
        depth -= type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT;
        if (depth > MAX_DEPTH)
            code = error_set(e, EXIT_USAGE, "%s:%d: is nested deeper than %d levels", o->file,
                             (int)event.start_mark.line + 1, MAX_DEPTH);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    rewind(file);
    return code;
}

int config_read_file(config *c, config_origin *o, error *e) {
    const char *why;
    FILE *file = open_text(o->file, &why);
    if (!file) return error_set(e, EXIT_USAGE, "%s: cannot be read: %s", o->file, why);
    if (check_depth(o, file, e)) {
        fclose(file);
        return e->code;
    }
    reader r = {.c = c, .o = o, .e = e};
    yaml_parser_t parser;
    parser_open(&parser, file);
    int code;
    errno = 0;
    if (yaml_parser_load(&parser, &r.tree)) {
        code = read_tree(&r);
        yaml_document_delete(&r.tree);
    } else if (ferror(file)) {
        code = error_set(e, EXIT_USAGE, "%s: cannot be read: %s", o->file, strerror(errno));
    } else {
        const char *problem = parser.problem ? parser.problem : "unreadable";
        code = error_set(e, EXIT_USAGE, "%s:%d: not YAML: %s%s", o->file, (int)parser.problem_mark.line + 1,
                         problem, strstr(problem, "any token") ? "; a tab? only spaces indent" : "");
    }
    yaml_parser_delete(&parser);
    fclose(file);
    return code;
}

/* ---- the command line ---- */

/* data.sources.NAME.field */
static int override_source(config *c, const char *name, const char *text, error *e) {
    const char *where = "command line", *rest = name + strlen("data.sources.");
    const char *dot = strrchr(rest, '.');
    size_t n = dot ? (size_t)(dot - rest) : 0;
    for (int64_t s = 0; s < c->data.sources; s++) {
        data_source *source = &c->data.source[s];
        if (!dot || strlen(source->name) != n || strncmp(source->name, rest, n)) continue;
        int k = config_key_find(config_source_keys, config_source_key_count, dot + 1);
        if (k == 0) return error_set(e, EXIT_USAGE, "%s: %s: a source keeps its name", where, name);
        if (k > 0) return config_value_parse(&config_source_keys[k], source, text, where, name, e);
        return reader_unknown_key(config_source_keys, config_source_key_count, where, "data.sources.NAME.",
                                  dot + 1, e);
    }
    return error_set(e, EXIT_USAGE,
                     "%s: %s: no such source; write data.sources.NAME.weight, .train or .valid", where, name);
}

int config_read_override(config *c, config_origin *o, const char *argument, error *e) {
    const char *equals = strchr(argument, '=');
    size_t n = equals ? (size_t)(equals - argument) : 0;
    char name[160];
    if (strncmp(argument, "--", 2) || n < 3 || n - 2 >= sizeof name)
        return error_set(e, EXIT_USAGE, "command line: %.100s: must be --section.key=value", argument);
    memcpy(name, argument + 2, n - 2);
    name[n - 2] = 0;
    if (!strncmp(name, "data.sources.", strlen("data.sources.")))
        return override_source(c, name, equals + 1, e);
    if (!strncmp(name, "data.stages", strlen("data.stages")))
        return error_set(e, EXIT_USAGE, "command line: %s: stages are a list, said in the file", name);
    int k = config_key_find(config_keys, config_key_count, name);
    if (k < 0) return reader_unknown_key(config_keys, config_key_count, "command line", "", name, e);
    o->line[k] = ORIGIN_COMMAND_LINE;
    return config_value_parse(&config_keys[k], c, equals + 1, "command line", name, e);
}
