/* Text to token ids and back, by a tokenizer.json. */
#ifndef CARACAL_DATA_TOKENIZER_H
#define CARACAL_DATA_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "launch/error.h"

typedef struct tokenizer tokenizer;

/* A growing list of ids; {0} to start, mem_free(id) to end. */
typedef struct id_list {
    int32_t *id;
    int64_t count, room;
} id_list;
void id_list_add(id_list *l, int32_t id);

/* Errors name the file and what is wrong with it (tokenizer_json.h).  Not for two threads at once: encoding
 * keeps a cache. */
int tokenizer_open(tokenizer **out, const char *path, error *e);
void tokenizer_close(tokenizer *t);

/* Appends the text's ids.  Any bytes can be encoded; decoding gives them back.  Never appends eos. */
void tokenizer_encode(tokenizer *t, const char *text, size_t bytes, id_list *ids);

/* The bytes of one token, owned by the tokenizer; eos has none.  NULL if there is no such token. */
const char *tokenizer_token(const tokenizer *t, int32_t id, size_t *bytes);
/* *text = the bytes of all tokens and a final 0, owned by the caller (mem_free).  An id that is not in the
 * vocabulary is an error that names its position. */
int tokenizer_decode(const tokenizer *t, const int32_t *ids, int64_t count, char **text, size_t *bytes,
                     error *e);

int64_t tokenizer_vocab_size(const tokenizer *t);
int32_t tokenizer_eos(const tokenizer *t);
/* XXH3-128 of the file, 32 hexadecimal digits. */
const char *tokenizer_digest(const tokenizer *t);

#endif
