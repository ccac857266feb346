#include "data/near_duplicates.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "launch/memory.h"

enum { SHINGLE = 32, BINS = 64, BANDS = 16, ROWS = BINS / BANDS };

/* A document's parent in the union-find forest, and what its group is known by. */
typedef struct member {
    int64_t parent; /* itself: the root of a group */
    int64_t bytes;
    uint64_t text_hash;
} member;

struct band_slot {
    uint64_t key;
    int64_t document; /* + 1; 0: empty */
};

struct near_duplicates {
    member *member;
    int64_t count, room;
    struct band_slot *slot; /* (band, its four minima) -> the first document that had them */
    uint64_t slots, used;
};

near_duplicates *near_duplicates_open(void) {
    return mem_alloc(sizeof(near_duplicates), "the search for near duplicates");
}

void near_duplicates_close(near_duplicates *n) {
    if (!n) return;
    mem_free(n->member);
    mem_free(n->slot);
    mem_free(n);
}

/* A mixer of 64 bits (splitmix64's): every input bit changes every output bit. */
static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static void sketch_shingle(uint64_t bin[BINS], uint64_t rolling) {
    uint64_t h = mix(rolling), *b = &bin[h % BINS];
    if (h < *b) *b = h;
}

/* bin = the minima of the shingles' hashes.  A bin that no shingle fell into takes its neighbour's minimum,
 * so that short documents too are compared in every band. */
static void sketch(uint64_t bin[BINS], const char *text, size_t bytes) {
    static const uint64_t base = 0x9E3779B97F4A7C15u;
    uint64_t leaves = 1; /* base^SHINGLE: the weight of the byte that leaves the window */
    for (int i = 0; i < SHINGLE; i++) leaves *= base;
    unsigned char window[SHINGLE] = {0};
    uint64_t rolling = 0, length = 0;
    for (int b = 0; b < BINS; b++) bin[b] = UINT64_MAX;

    int space = 1;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        int is_space = c == ' ' || (c >= '\t' && c <= '\r');
        if (is_space && space) continue;
        space = is_space;
        if (is_space) c = ' ';
        else if (c >= 'A' && c <= 'Z') c |= 0x20;
        rolling = rolling * base + c + 1;
        if (length >= SHINGLE) rolling -= (window[length % SHINGLE] + 1u) * leaves;
        window[length++ % SHINGLE] = c;
        if (length >= SHINGLE) sketch_shingle(bin, rolling);
    }
    if (length < SHINGLE) sketch_shingle(bin, rolling);

    uint64_t filled[BINS];
    for (int b = 0; b < BINS; b++) {
        int away = 0;
        while (bin[(b + away) % BINS] == UINT64_MAX) away++;
        filled[b] = bin[(b + away) % BINS];
    }
    memcpy(bin, filled, sizeof filled);
}

static int64_t root_of(const near_duplicates *n, int64_t d) {
    while (n->member[d].parent != d) d = n->member[d].parent;
    return d;
}

/* Joins two groups.  The lower root stays, and paths are halved on the way. */
static void join(near_duplicates *n, int64_t a, int64_t b) {
    member *m = n->member;
    while (m[a].parent != a) a = m[a].parent = m[m[a].parent].parent;
    while (m[b].parent != b) b = m[b].parent = m[m[b].parent].parent;
    if (a < b) m[b].parent = a;
    else m[a].parent = b;
}

static struct band_slot *locate(const near_duplicates *n, uint64_t key) {
    for (uint64_t i = key;; i++) {
        struct band_slot *s = &n->slot[i & (n->slots - 1)];
        if (!s->document || s->key == key) return s;
    }
}

static void grow_slots(near_duplicates *n) {
    struct band_slot *old = n->slot;
    uint64_t slots = n->slots;
    n->slots = slots ? 2 * slots : 4096;
    n->slot = mem_alloc(n->slots * sizeof *n->slot, "the search for near duplicates");
    for (uint64_t i = 0; i < slots; i++)
        if (old[i].document) *locate(n, old[i].key) = old[i];
    mem_free(old);
}

void near_duplicates_add(near_duplicates *n, const char *text, size_t bytes) {
    if (n->count == n->room) {
        n->room = 2 * n->room + 1024;
        n->member =
            mem_grow(n->member, (size_t)n->room * sizeof *n->member, "the search for near duplicates");
    }
    int64_t document = n->count++;
    n->member[document] = (member){document, (int64_t)bytes, XXH3_64bits(text, bytes)};
    uint64_t bin[BINS];
    sketch(bin, text, bytes);
    for (int band = 0; band < BANDS; band++) {
        if (2 * n->used >= n->slots) grow_slots(n);
        uint64_t key = XXH3_64bits_withSeed(bin + band * ROWS, ROWS * sizeof *bin, (uint64_t)band);
        struct band_slot *s = locate(n, key);
        if (s->document) join(n, s->document - 1, document);
        else {
            *s = (struct band_slot){key, document + 1};
            n->used++;
        }
    }
}

int64_t near_duplicates_count(const near_duplicates *n) {
    return n->count;
}

/* A group, by its root: its size and its place in the order in which groups are held out. */
typedef struct group {
    int64_t bytes, members;
    uint64_t order; /* the least hash of (text, seed) */
    int taken;
} group;

typedef struct place {
    uint64_t order;
    int64_t group;
} place;

static int compare_places(const void *a, const void *b) {
    const place *p = a, *q = b;
    if (p->order != q->order) return p->order < q->order ? -1 : 1;
    return (p->group > q->group) - (p->group < q->group);
}

static void take_groups(group *g, const place *order, int64_t groups, int64_t all_bytes, double fraction) {
    double limit = fraction * (double)all_bytes;
    int64_t taken = 0, smallest = 0;
    for (int64_t i = 0; i < groups; i++) {
        group *this = &g[order[i].group];
        if (this->bytes < g[order[smallest].group].bytes) smallest = i;
        if ((double)(taken + this->bytes) > limit) continue;
        taken += this->bytes;
        this->taken = 1;
    }
    if (!taken && fraction > 0 && groups > 1) g[order[smallest].group].taken = 1;
}

near_duplicates_split near_duplicates_hold_out(const near_duplicates *n, double fraction, uint64_t seed,
                                               uint8_t *held_out) {
    near_duplicates_split split = {.documents = n->count};
    group *g = mem_alloc((size_t)n->count * sizeof *g, "groups of documents");
    place *order = mem_alloc((size_t)n->count * sizeof *order, "groups of documents");
    for (int64_t d = 0; d < n->count; d++) {
        group *of = &g[root_of(n, d)];
        uint64_t hash = mix(n->member[d].text_hash ^ mix(seed + 1));
        if (!of->members || hash < of->order) of->order = hash;
        of->members++;
        of->bytes += n->member[d].bytes;
        split.bytes += n->member[d].bytes;
    }
    int64_t groups = 0;
    for (int64_t d = 0; d < n->count; d++) {
        if (!g[d].members) continue;
        order[groups++] = (place){g[d].order, d};
        if (g[d].members < 2) continue;
        split.groups++;
        split.grouped += g[d].members;
    }
    qsort(order, (size_t)groups, sizeof *order, compare_places);
    take_groups(g, order, groups, split.bytes, fraction);
    for (int64_t d = 0; d < n->count; d++) {
        held_out[d] = (uint8_t)g[root_of(n, d)].taken;
        split.held_out += held_out[d];
    }
    mem_free(g);
    mem_free(order);
    return split;
}
