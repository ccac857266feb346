/* config.json as the published LongCat-Flash has it, and as transformers, vLLM and others read it. */
#ifndef CARACAL_TRAIN_PUBLISHED_H
#define CARACAL_TRAIN_PUBLISHED_H

#include "train/config_table.h"

/* What a config.json says, as the texts of our keys: text[k] is config_keys[k]'s (mem_free), NULL where it
 * says nothing. */
typedef struct published {
    char *text[CONFIG_MAX_KEYS];
} published;

/* Reads and checks one: missing keys, keys that contradict one another and what this program's model cannot
 * be are errors that name file and key; keys that change nothing here are passed over. */
int published_read(published *p, const char *path, error *e);
void published_free(published *p);
/* Sets what the file does not say; text is copied. */
void published_set(published *p, const char *key, const char *text);
/* Names the model keys in which `c` (read from config_path) differs from what the file says. */
int published_compare(const published *p, const config *c, const char *config_path, const char *path,
                      error *e);

/* Writes one for `c`.  eos: the tokenizer's; dtype: "float32" or "bfloat16".  EXIT_USAGE where the published
 * model cannot be what `c` says. */
int published_write(const config *c, int64_t eos, const char *dtype, int mtp, const char *path, error *e);

#endif
