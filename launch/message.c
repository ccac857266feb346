#include "launch/message.h"

#include <stdio.h>
#include <string.h>

#include "launch/digest.h"

static void describe(const message *m, size_t begin, size_t bytes, uint64_t was, int sender, error *e) {
    const char *data = (const char *)m->data + begin;
    int64_t bit = digest_changed_bit(data, bytes, was);
    char what[128];
    if (bit >= 0) {
        uint32_t came = 0;
        size_t at = (size_t)bit / 32 * 4, left = bytes - at;
        memcpy(&came, data + at, left < sizeof came ? left : sizeof came); /* a text may end in part of one */
        snprintf(what, sizeof what, "word %zu was sent as 0x%08x and came as 0x%08x", (begin + at) / 4,
                 came ^ 1u << bit % 32, came);
    } else {
        snprintf(what, sizeof what, "something in words %zu to %zu came otherwise than it was sent",
                 begin / 4, (begin + bytes - 1) / 4);
    }
    error_set(e, EXIT_SDC, "in %d bytes from rank %d, %s", m->bytes, sender, what);
}

int message_damaged(const message *m, int sender, error *e) {
    const uint64_t *was = m->digest;
    for (size_t at = 0; at < (size_t)m->bytes; at += DIGEST_BLOCK, was++) {
        size_t left = (size_t)m->bytes - at, bytes = left < DIGEST_BLOCK ? left : DIGEST_BLOCK;
        uint64_t now;
        digest_of(&now, (const char *)m->data + at, bytes);
        if (now == *was) continue;
        describe(m, at, bytes, *was, sender, e);
        return 1;
    }
    return 0;
}
