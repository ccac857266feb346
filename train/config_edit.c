#include "train/config_edit.h"

#include <string.h>
#include <yaml.h>

#include "launch/files.h"
#include "launch/memory.h"

/* libyaml counts characters. */
static size_t byte_of(const char *text, yaml_mark_t mark) {
    const char *p = text;
    for (size_t i = 0; i < mark.index && *p; i++) {
        p++;
        while ((*p & 0xc0) == 0x80) p++;
    }
    return (size_t)(p - text);
}

static size_t line_end(const char *text, size_t at) {
    return at + strcspn(text + at, "\n");
}

/* text with [from, to) replaced. */
static char *replaced(const char *text, size_t from, size_t to, const char *by) {
    return text_of("%.*s%s%s", (int)from, text, by, text + to);
}

/* The pair with this key in a mapping, from `p` on, or NULL. */
static yaml_node_pair_t *find(yaml_document_t *tree, const yaml_node_t *map, yaml_node_pair_t *p,
                              const char *key) {
    for (; p < map->data.mapping.pairs.top; p++) {
        const yaml_node_t *k = yaml_document_get_node(tree, p->key);
        if (k->type == YAML_SCALAR_NODE && !strcmp((const char *)k->data.scalar.value, key)) return p;
    }
    return NULL;
}

static yaml_node_pair_t *first(const yaml_node_t *map) {
    return map->data.mapping.pairs.start;
}

static int is_flow(const yaml_node_t *map) {
    return map->data.mapping.style == YAML_FLOW_MAPPING_STYLE;
}

/* A new pair in a mapping that has no such key: behind `{`, or on a line below the last pair. */
static char *inserted(const char *text, yaml_document_t *tree, const yaml_node_t *map, const char *key,
                      const char *value) {
    const yaml_node_pair_t *last = map->data.mapping.pairs.top - 1;
    char *pair, *out;
    if (is_flow(map)) {
        size_t at = byte_of(text, map->start_mark) + 1;
        pair = text_of("%s: %s%s", key, value, last < first(map) ? "" : ", ");
        out = replaced(text, at, at, pair);
    } else {
        const yaml_node_t *k = yaml_document_get_node(tree, last->key),
                          *v = yaml_document_get_node(tree, last->value);
        /* a nested block ends where the next thing begins: its key's line is a safe place before it */
        int nested = v->type != YAML_SCALAR_NODE && v->end_mark.line != v->start_mark.line;
        size_t at = nested ? byte_of(text, k->start_mark) - k->start_mark.column
                           : line_end(text, byte_of(text, v->end_mark));
        pair = nested ? text_of("%*s%s: %s\n", (int)k->start_mark.column, "", key, value)
                      : text_of("\n%*s%s: %s", (int)k->start_mark.column, "", key, value);
        out = replaced(text, at, at, pair);
    }
    mem_free(pair);
    return out;
}

static char *edited(const char *text, yaml_document_t *tree, const char *section, const char *key,
                    const char *value) {
    const yaml_node_t *root = yaml_document_get_root_node(tree);
    yaml_node_pair_t *begin = find(tree, root, first(root), section), *p = begin;
    if (!begin && is_flow(root)) {
        char *both = text_of("{%s: %s}", key, value), *out = inserted(text, tree, root, section, both);
        mem_free(both);
        return out;
    }
    size_t end = strlen(text);
    if (!begin)
        return text_of("%s%s\n%s:\n  %s: %s\n", text, end && text[end - 1] != '\n' ? "\n" : "", section, key,
                       value);
    for (; p; p = find(tree, root, p + 1, section)) { /* a section may come again */
        const yaml_node_t *map = yaml_document_get_node(tree, p->value);
        const yaml_node_pair_t *pair = NULL;
        if (map->type == YAML_MAPPING_NODE) pair = find(tree, map, first(map), key);
        if (!pair) continue;
        const yaml_node_t *old = yaml_document_get_node(tree, pair->value);
        return replaced(text, byte_of(text, old->start_mark), byte_of(text, old->end_mark), value);
    }
    const yaml_node_t *map = yaml_document_get_node(tree, begin->value);
    if (map->type == YAML_MAPPING_NODE) return inserted(text, tree, map, key, value);
    /* a section in which everything is commented out */
    size_t at = line_end(text, byte_of(text, yaml_document_get_node(tree, begin->key)->end_mark));
    char *line = text_of("\n  %s: %s", key, value), *out = replaced(text, at, at, line);
    mem_free(line);
    return out;
}

char *config_edit(char *text, const char *name, const char *value) {
    const char *dot = strchr(name, '.');
    REQUIRE(dot);
    char *section = text_of("%.*s", (int)(dot - name), name), *out = NULL;
    yaml_parser_t parser;
    yaml_document_t tree;
    if (!yaml_parser_initialize(&parser)) FAULT(EXIT_NO_MEMORY, "no memory for the YAML parser");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, strlen(text));
    if (yaml_parser_load(&parser, &tree)) {
        out = edited(text, &tree, section, dot + 1, value);
        yaml_document_delete(&tree);
    }
    yaml_parser_delete(&parser);
    mem_free(section);
    mem_free(text);
    return out;
}
