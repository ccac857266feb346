#include "data/utf8.h"

#include <string.h>

/* Bytes of the well-formed sequence at s, or 0.  Table 3-7 of the Unicode standard: the second byte's range
 * depends on the first, all others are 80..BF. */
static size_t sequence(const unsigned char *s, size_t left) {
    unsigned char low = 0x80, high = 0xBF;
    size_t n;
    if (s[0] < 0x80) return 1;
    if (s[0] < 0xC2 || s[0] > 0xF4) return 0;
    if (s[0] < 0xE0) n = 2;
    else if (s[0] < 0xF0) {
        n = 3;
        if (s[0] == 0xE0) low = 0xA0;
        if (s[0] == 0xED) high = 0x9F;
    } else {
        n = 4;
        if (s[0] == 0xF0) low = 0x90;
        if (s[0] == 0xF4) high = 0x8F;
    }
    if (left < n || s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    return n;
}

size_t utf8_valid_prefix(const char *text, size_t bytes) {
    const unsigned char *s = (const unsigned char *)text;
    size_t at = 0;
    while (at < bytes) {
        uint64_t eight; /* most text is ASCII: eight bytes at once */
        if (bytes - at >= sizeof eight) {
            memcpy(&eight, s + at, sizeof eight);
            if (!(eight & 0x8080808080808080u)) {
                at += sizeof eight;
                continue;
            }
        }
        size_t n = sequence(s + at, bytes - at);
        if (!n) break;
        at += n;
    }
    return at;
}

int utf8_put(char *out, uint32_t c) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00 >> n & 0xF0) | c); /* C0, E0 or F0: n ones, then the highest bits */
    return n;
}

uint32_t utf8_get(const char *text, int *bytes) {
    const unsigned char *s = (const unsigned char *)text;
    int n = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    uint32_t c = n == 1 ? s[0] : s[0] & (0x7Fu >> n);
    for (int i = 1; i < n; i++) c = c << 6 | (s[i] & 0x3F);
    *bytes = n;
    return c;
}
