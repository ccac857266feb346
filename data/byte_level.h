/* How byte strings stand in tokenizer.json: every byte as one printable character (GPT-2's table).  Printable
 * Latin-1 bytes stand for themselves, the other 68 are U+0100, U+0101, ... in order. */
#ifndef CARACAL_DATA_BYTE_LEVEL_H
#define CARACAL_DATA_BYTE_LEVEL_H

#include <stddef.h>

typedef struct byte_level {
    unsigned short character[256];
    short byte[324]; /* of a character, or -1 */
} byte_level;

void byte_level_fill(byte_level *t);

/* out [2 * bytes + 1] = the characters, as UTF-8 with a final 0. */
void byte_level_write(const byte_level *t, char *out, const char *piece, size_t bytes);
/* out [strlen(text)] = the bytes; returns how many, or -1 if a character stands for none. */
long byte_level_read(const byte_level *t, char *out, const char *text);

#endif
