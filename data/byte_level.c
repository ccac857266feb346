#include "data/byte_level.h"

#include "data/utf8.h"

void byte_level_fill(byte_level *t) {
    for (int c = 0; c < 324; c++) t->byte[c] = -1;
    int next = 256;
    for (int b = 0; b < 256; b++) {
        int printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        int c = printable ? b : next++;
        t->character[b] = (unsigned short)c;
        t->byte[c] = (short)b;
    }
}

void byte_level_write(const byte_level *t, char *out, const char *piece, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) out += utf8_put(out, t->character[(unsigned char)piece[i]]);
    *out = 0;
}

long byte_level_read(const byte_level *t, char *out, const char *text) {
    long count = 0;
    for (int n; *text; text += n) {
        uint32_t c = utf8_get(text, &n);
        if (c >= 324 || t->byte[c] < 0) return -1;
        out[count++] = (char)t->byte[c];
    }
    return count;
}
