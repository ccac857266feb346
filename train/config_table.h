/* The one table of keys behind train/config.h, and what its readers and writers share. */
#ifndef CARACAL_TRAIN_CONFIG_TABLE_H
#define CARACAL_TRAIN_CONFIG_TABLE_H

#include <stddef.h>

#include "train/config.h"

enum key_type {
    KEY_INT,     /* int64_t; "200", "2e9", "64k", "4GiB"; 0 may have a name of its own, such as auto */
    KEY_REAL,    /* double */
    KEY_SECONDS, /* double; "90", "90s", "10m", "2h" */
    KEY_BOOL,    /* int; true | false */
    KEY_ENUM,    /* int; the position of the word in `words` */
    KEY_WORD,    /* char[size]; one of `words` */
    KEY_TEXT,    /* char *, malloc'ed; no control characters */
};

enum key_decides {
    KEY_FREE,
    KEY_DECIDES, /* changes the numbers of a run */
    KEY_JOINED,  /* so does this one, but its default is left out of digests: those of older configs stay */
};

typedef struct config_key {
    const char *name; /* "section.key", or "key" at the top level */
    enum key_type type;
    size_t offset, size;  /* of the field in its struct */
    double min, max;      /* both allowed; KEY_ABOVE_ZERO and KEY_BELOW_ONE stand for open ends */
    const char *words;    /* "a|b|c"; for KEY_INT the name of 0, or NULL */
    const char *standard; /* what a config that says nothing gets; KEY_REQUIRED: it has to say something */
    int decides;          /* enum key_decides */
    const char *doc;
} config_key;

#define KEY_REQUIRED   NULL
#define KEY_NOTHING    "" /* a KEY_TEXT that may be absent: the field stays NULL */
#define KEY_ABOVE_ZERO 4.9406564584124654e-324
#define KEY_BELOW_ONE  0x1.fffffffffffffp-1
#define KEY_UNBOUNDED  9.3e18 /* also above every int64_t */

enum { CONFIG_MAX_KEYS = 128, CONFIG_VALUE_TEXT = 4096 /* room for a value's text */ };

/* In config_deciding a stage's key is this and the number of steps before it. */
#define CONFIG_STAGE_PREFIX "data.stages after "

extern const config_key config_keys[];
extern const int config_key_count;
extern const config_key config_source_keys[]; /* one entry of data.sources; offsets in data_source */
extern const int config_source_key_count;
extern const config_key config_stage_keys[]; /* one entry of data.stages; offsets in data_stage */
extern const int config_stage_key_count;

/* The index of `name` in a table, or -1. */
int config_key_find(const config_key *keys, int count, const char *name);
/* The key whose name is nearest to a mistyped one, or NULL when none is near. */
const char *config_key_nearest(const config_key *keys, int count, const char *name);

/* Reads `text` into the key's field of *base.  `where` ("file:line" or "command line") and `name` are for the
 * message. */
int config_value_parse(const config_key *key, void *base, const char *text, const char *where,
                       const char *name, error *e);
/* The value as it is written in YAML, in digests and in messages: equal values have equal texts. */
void config_value_text(const config_key *key, const void *base, char *text, size_t size);
/* The shortest text, from six digits on, that reads back as the same number. */
void config_real_text(double x, char *text, size_t size);
/* "an integer from 1 to 64", "true or false", ... */
void config_value_allowed(const config_key *key, char *text, size_t size);

/* Where each key of a config was said. */
typedef struct config_origin {
    const char *file;
    int line[CONFIG_MAX_KEYS]; /* of the file, or an ORIGIN_... below; ORIGIN_FILE: which line is not known */
    int stage_line[DATA_MAX_STAGES];
} config_origin;

enum { ORIGIN_DEFAULT = 0, ORIGIN_COMMAND_LINE = -1, ORIGIN_FILE = -2, ORIGIN_TEXT = 512 };

/* "file:line", "command line" or "file". */
void config_origin_text(const config_origin *o, int key, char text[ORIGIN_TEXT]);
/* Fills *c from the file, then from the overrides (train/config_read.c). */
int config_read_file(config *c, config_origin *o, error *e);
int config_read_override(config *c, config_origin *o, const char *argument, error *e);
/* As config_load, from texts by key (text[k] is config_keys[k]'s, NULL: not said) instead of YAML; `file` is
 * where they stood. */
int config_assemble(config *c, const char *file, char *const *text, int overrides, char **override, error *e);
/* Fills in what stages leave to the stage before, and their positions (train/config_stages.c). */
int config_stages_complete(config *c, const config_origin *o, error *e);
/* Data and tokenizer of a run's config.yaml, wherever it is read from (train/config_paths.c). */
void config_find_paths(config *c, const char *file);
/* Combinations that cannot be, as far as they do not depend on the number of ranks (train/config_check.c). */
int config_check(const config *c, const config_origin *o, error *e);

#endif
