/* tokenizer.json, the file of the `tokenizers` library: byte-level BPE behind a Split and a ByteLevel
 * pre-tokeniser.
 *
 * The library cuts special tokens out of a text unless it is told otherwise; here a text is text, and
 * "<|endoftext|>" spelt in a document does not end it.  With `tokenizer.encode_special_tokens = True` the
 * library does the same, and gives the same ids for every text.
 */
#ifndef CARACAL_DATA_TOKENIZER_JSON_H
#define CARACAL_DATA_TOKENIZER_JSON_H

#include <stddef.h>

#include "data/bpe.h"

/* Reads a vocabulary and the pre-tokeniser's pattern from the text of `path` (named in errors).  Refused,
 * with EXIT_CORRUPT: a piece, an id or a merge that stands twice, a gap in the ids, a missing byte, a merge
 * of unknown pieces, and settings under which the ids would differ from the library's.  The caller owns *b
 * (bpe_free) and *pattern (mem_free). */
int tokenizer_json_read(bpe *b, char **pattern, const char *path, const char *text, size_t bytes, error *e);

/* Writes the file, whole or not at all. */
int tokenizer_json_write(const bpe *b, const char *pattern, const char *path, error *e);

#endif
