/* Token files in the layout of Megatron-LM's indexed datasets.
 *
 *   PREFIX.bin   the tokens of all sequences, one after the other: uint16 or int32, little-endian
 *   PREFIX.idx   "MMIDIDX\0\0", uint64 version 1, uint8 type (4: int32, 8: uint16), uint64 sequences,
 *                uint64 documents + 1, int32 length of each sequence, int64 byte offset of each sequence,
 *                int64 number of each document's first sequence and, last, the number of sequences
 *
 * Files written here have one sequence a document, and behind all that the .idx may say with which tokenizer
 * they were made, where readers of the layout do not look: "CARACAL\0" and its digest, 32 hex digits.
 */
#ifndef CARACAL_DATA_INDEXED_H
#define CARACAL_DATA_INDEXED_H

#include <stdint.h>

#include "data/input.h"
#include "data/output.h"
#include "launch/error.h"

typedef struct indexed_reader {
    char *path; /* of the .bin file, for messages */
    input bin;
    int token_bytes; /* 2 or 4 */
    int64_t tokens, sequences, documents;
    uint64_t index;     /* digest of the .idx but for the tokenizer's */
    char tokenizer[33]; /* digest of the tokenizer that made it; "": it does not say */
} indexed_reader;

/* Maps PREFIX.bin and checks it against PREFIX.idx.  EXIT_IO: a file cannot be read; EXIT_CORRUPT: a file is
 * cut short, foreign, or the two do not belong together.  Messages name the file. */
int indexed_open(indexed_reader *r, const char *prefix, error *e);
void indexed_close(indexed_reader *r);

/* out [count] = the tokens from `at` on; at + count <= tokens. */
void indexed_copy(const indexed_reader *r, int64_t at, int64_t count, int32_t *out);
/* Which document of PREFIX token number `token` belongs to, both from 0, and how many tokens of the document
 * come before it.  Reads the index. */
int indexed_place(const char *prefix, int64_t token, int64_t *document, int64_t *within, error *e);
/* An error (EXIT_CORRUPT) if one of the first `most` tokens is not in 0 .. vocab_size - 1; it names the file
 * and the token's place. */
int indexed_check(const indexed_reader *r, int64_t most, int64_t vocab_size, error *e);
/* 32 hex digits that are others where one of the first `most` tokens is another, or any sequence or document
 * has another length. */
void indexed_digest(const indexed_reader *r, int64_t most, char hex[33]);

typedef struct indexed_writer {
    char *prefix;
    char tokenizer[33];
    output bin, idx;
    int token_bytes;
    int32_t *length; /* of each document, in tokens */
    int64_t documents, room, tokens;
} indexed_writer;

/* Starts PREFIX.bin under a temporary name; ids are stored as uint16 if the vocabulary allows it.  tokenizer:
 * the digest of the one that makes the ids, "" where it is not to be said. */
int indexed_create(indexed_writer *w, const char *prefix, const char *tokenizer, int64_t vocab_size,
                   error *e);
/* Appends one document of fewer than 2^31 tokens; a failed write is found by indexed_finish. */
void indexed_add(indexed_writer *w, const int32_t *ids, int64_t count);
/* Makes both files durable, still under their temporary names. */
int indexed_finish(indexed_writer *w, error *e);
/* Gives both files their names.  The .idx, without which a .bin cannot be read, is removed first and comes
 * last, so that there is never an old one beside a new .bin. */
int indexed_commit(indexed_writer *w, error *e);
/* Removes what was written; does nothing to a writer that is {0} or committed. */
void indexed_discard(indexed_writer *w);
/* Removes both files of a prefix, if they are there. */
void indexed_remove(const char *prefix);

#endif
