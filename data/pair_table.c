#include "data/pair_table.h"

#include "launch/memory.h"

/* The entry of the pair, or the empty one where it would go. */
static pair_entry *locate(const pair_table *t, int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    for (uint64_t i = h ^ h >> 32;; i++) {
        pair_entry *p = &t->entry[i & (t->slots - 1)];
        if (p->left < 0 || (p->left == left && p->right == right)) return p;
    }
}

static void grow(pair_table *t) {
    pair_table old = *t;
    t->slots = old.slots ? 2 * old.slots : 1024;
    t->entry = mem_alloc(t->slots * sizeof *t->entry, "a table of token pairs");
    for (uint64_t i = 0; i < t->slots; i++) t->entry[i].left = -1;
    for (uint64_t i = 0; i < old.slots; i++)
        if (old.entry[i].left >= 0) *locate(t, old.entry[i].left, old.entry[i].right) = old.entry[i];
    mem_free(old.entry);
}

int64_t *pair_table_at(pair_table *t, int32_t left, int32_t right) {
    if (2 * t->used >= t->slots) grow(t);
    pair_entry *p = locate(t, left, right);
    if (p->left < 0) {
        *p = (pair_entry){left, right, 0};
        t->used++;
    }
    return &p->value;
}

const int64_t *pair_table_find(const pair_table *t, int32_t left, int32_t right) {
    if (!t->slots) return NULL;
    const pair_entry *p = locate(t, left, right);
    return p->left < 0 ? NULL : &p->value;
}

void pair_table_free(pair_table *t) {
    mem_free(t->entry);
    *t = (pair_table){0};
}
