#include "data/piece_table.h"

#include <string.h>
#include <xxhash.h>

#include "launch/memory.h"

/* The slot of a piece, or the empty one where it would go. */
static struct piece_slot *locate(const piece_table *t, uint64_t hash, const char *piece, size_t bytes) {
    for (uint64_t i = hash;; i++) {
        struct piece_slot *s = &t->slot[i & (t->slots - 1)];
        if (!s->piece) return s;
        const int64_t *start = &t->start[s->piece - 1];
        if (s->hash == hash && (size_t)(start[1] - start[0]) == bytes &&
            !memcmp(t->text + start[0], piece, bytes))
            return s;
    }
}

static void grow_slots(piece_table *t) {
    piece_table old = *t;
    t->slots = old.slots ? 2 * old.slots : 1024;
    t->slot = mem_alloc(t->slots * sizeof *t->slot, "a table of pieces");
    for (uint64_t i = 0; i < old.slots; i++) {
        if (!old.slot[i].piece) continue;
        uint64_t at = old.slot[i].hash;
        while (t->slot[at & (t->slots - 1)].piece) at++;
        t->slot[at & (t->slots - 1)] = old.slot[i];
    }
    mem_free(old.slot);
}

int64_t piece_table_number(piece_table *t, const char *piece, size_t bytes) {
    if (2 * (uint64_t)t->count >= t->slots) grow_slots(t);
    uint64_t hash = XXH3_64bits(piece, bytes);
    struct piece_slot *s = locate(t, hash, piece, bytes);
    if (s->piece) return s->piece - 1;

    if (t->count + 2 > t->start_room) {
        t->start_room = 2 * t->start_room + 1024;
        t->start = mem_grow(t->start, (size_t)t->start_room * sizeof *t->start, "a table of pieces");
        t->start[0] = 0;
    }
    int64_t from = t->start[t->count], to = from + (int64_t)bytes;
    if (to > t->text_room) {
        t->text_room = 2 * to + 4096;
        t->text = mem_grow(t->text, (size_t)t->text_room, "a table of pieces");
    }
    memcpy(t->text + from, piece, bytes);
    t->start[++t->count] = to;
    *s = (struct piece_slot){hash, t->count};
    return t->count - 1;
}

void piece_table_clear(piece_table *t) {
    t->count = 0;
    if (t->slots) memset(t->slot, 0, t->slots * sizeof *t->slot);
}

void piece_table_free(piece_table *t) {
    mem_free(t->text);
    mem_free(t->start);
    mem_free(t->slot);
    *t = (piece_table){0};
}
