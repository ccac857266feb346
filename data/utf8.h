/* UTF-8, as Unicode defines it: no overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef CARACAL_DATA_UTF8_H
#define CARACAL_DATA_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the longest well-formed prefix: `bytes` if all of the text is UTF-8, else the place of the first
 * byte that is not. */
size_t utf8_valid_prefix(const char *text, size_t bytes);

/* Writes a code point, 1 to 4 bytes; returns how many. */
int utf8_put(char *out, uint32_t code_point);

/* Reads the code point at the start of well-formed text and sets *bytes to its length. */
uint32_t utf8_get(const char *text, int *bytes);

#endif
