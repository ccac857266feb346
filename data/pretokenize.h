/* Cutting text into pieces before byte-pair encoding: merges never cross a piece's border.
 *
 * The pattern is GPT-4's with two changes: runs of CJK characters (Han, Hiragana, Katakana, Hangul) are cut
 * apart from other letters, and every digit stands alone.  It is stored in tokenizer.json, where the
 * `tokenizers` library runs it too.
 */
#ifndef CARACAL_DATA_PRETOKENIZE_H
#define CARACAL_DATA_PRETOKENIZE_H

#include <stddef.h>

#include "launch/error.h"

extern const char pretokenize_pattern[];

typedef struct pretokenizer pretokenizer;

/* Compiles a pattern; one that PCRE2 refuses is an error (EXIT_CORRUPT: patterns come from files). */
int pretokenizer_open(pretokenizer **out, const char *pattern, error *e);
void pretokenizer_close(pretokenizer *p);

/* Where a walk over a text stands; start with {.text = text, .bytes = bytes}. */
typedef struct piece_walk {
    const char *text;
    size_t bytes, at;
    size_t valid_from, valid_to; /* the well-formed stretch that `at` lies in */
} piece_walk;

/* The next piece: 1 and *piece, *bytes (inside the text), or 0 at the end.  Pieces tile the text.  A byte
 * that is not part of well-formed UTF-8 is a piece of its own. */
int pretokenize_next(pretokenizer *p, piece_walk *walk, const char **piece, size_t *bytes);

#endif
