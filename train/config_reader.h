/* The YAML file under the reader's eye, for those who read a part of it (train/config_read.c, and
 * train/config_stages.c for data.stages). */
#ifndef CARACAL_TRAIN_CONFIG_READER_H
#define CARACAL_TRAIN_CONFIG_READER_H

#include <yaml.h>

#include "train/config_table.h"

typedef struct reader {
    config *c;
    config_origin *o;
    yaml_document_t tree;
    yaml_node_t *stages; /* data.stages, read last */
    error *e;
} reader;

typedef struct place {
    char text[ORIGIN_TEXT]; /* file:line */
    int line;
} place;

place reader_place(const reader *r, const yaml_node_t *node);
yaml_node_t *reader_node(reader *r, int index);
/* The text of a single value, or NULL. */
const char *reader_scalar(const yaml_node_t *node);
/* Notes the line in which a key stands; an error when it has one already. */
int reader_set_once(int *line, place at, const char *prefix, const char *name, error *e);
int reader_unknown_key(const config_key *keys, int count, const char *where, const char *prefix,
                       const char *name, error *e);

/* Reads data.stages; all sources are known. */
int reader_stages(reader *r, yaml_node_t *node);

#endif
