#include "data/bpe.h"

#include <string.h>

#include "launch/memory.h"

static int64_t length_of(const bpe *b, int32_t id) {
    return b->start[id + 1] - b->start[id];
}

void bpe_from_merges(bpe *b, const bpe_merge *merge, int64_t merges) {
    *b = (bpe){.vocab_size = (int32_t)(BPE_FIRST_MERGED_ID + merges), .eos = BPE_EOS_ID, .merges = merges};
    b->merge = mem_alloc((size_t)merges * sizeof *b->merge, "merges");
    b->start = mem_alloc(((size_t)b->vocab_size + 1) * sizeof *b->start, "a vocabulary");
    for (int c = 0; c < 256; c++) {
        b->byte_id[c] = BPE_FIRST_BYTE_ID + c;
        b->start[BPE_FIRST_BYTE_ID + c + 1] = c + 1;
    }
    for (int64_t r = 0; r < merges; r++) {
        int32_t into = (int32_t)(BPE_FIRST_MERGED_ID + r), left = merge[r].left, right = merge[r].right;
        REQUIRE(left < into && right < into);
        b->merge[r] = (bpe_merge){left, right, into};
        *pair_table_at(&b->rank, left, right) = r;
        b->start[into + 1] = b->start[into] + length_of(b, left) + length_of(b, right);
    }
    b->text = mem_alloc((size_t)b->start[b->vocab_size], "a vocabulary");
    for (int c = 0; c < 256; c++) b->text[c] = (char)c;
    for (int64_t r = 0; r < merges; r++) {
        bpe_merge m = b->merge[r];
        char *to = b->text + b->start[m.into];
        memcpy(to, b->text + b->start[m.left], (size_t)length_of(b, m.left));
        memcpy(to + length_of(b, m.left), b->text + b->start[m.right], (size_t)length_of(b, m.right));
    }
}

void bpe_free(bpe *b) {
    mem_free(b->text);
    mem_free(b->start);
    mem_free(b->merge);
    pair_table_free(&b->rank);
    *b = (bpe){0};
}

void bpe_scratch_free(bpe_scratch *s) {
    mem_free(s->token);
    mem_free(s->previous);
    mem_free(s->next);
    mem_free(s->heap);
    *s = (bpe_scratch){0};
}

static void reserve(bpe_scratch *s, size_t bytes) {
    if (bytes <= s->room) return;
    s->room = 2 * bytes + 64;
    s->token = mem_grow(s->token, s->room * sizeof *s->token, "encoding");
    s->previous = mem_grow(s->previous, s->room * sizeof *s->previous, "encoding");
    s->next = mem_grow(s->next, s->room * sizeof *s->next, "encoding");
    /* at the start every pair may be in the heap, and each of the merges, fewer than bytes, adds two */
    s->heap = mem_grow(s->heap, 3 * s->room * sizeof *s->heap, "encoding");
}

static void heap_push(bpe_scratch *s, uint64_t value) {
    size_t i = s->heap_used++;
    for (; i && s->heap[(i - 1) / 2] > value; i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = value;
}

static uint64_t heap_pop(bpe_scratch *s) {
    uint64_t least = s->heap[0], last = s->heap[--s->heap_used];
    size_t i = 0, n = s->heap_used;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && s->heap[child + 1] < s->heap[child]) child++;
        if (last <= s->heap[child]) break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = last;
    return least;
}

/* The rank of the pair that starts at a position, or -1. */
static int64_t rank_at(const bpe *b, const bpe_scratch *s, int32_t at) {
    if (s->token[at] < 0 || s->next[at] < 0) return -1; /* merged away, or the last */
    const int64_t *rank = pair_table_find(&b->rank, s->token[at], s->token[s->next[at]]);
    return rank ? *rank : -1;
}

static void consider(const bpe *b, bpe_scratch *s, int32_t at) {
    int64_t rank = rank_at(b, s, at);
    if (rank >= 0) heap_push(s, (uint64_t)rank << 32 | (uint32_t)at);
}

size_t bpe_encode(const bpe *b, bpe_scratch *s, const char *piece, size_t bytes, int32_t *ids) {
    REQUIRE(bytes > 0 && bytes < INT32_MAX);
    reserve(s, bytes);
    s->heap_used = 0;
    int32_t n = (int32_t)bytes;
    for (int32_t i = 0; i < n; i++) {
        s->token[i] = b->byte_id[(unsigned char)piece[i]];
        s->previous[i] = i - 1;
        s->next[i] = i + 1 < n ? i + 1 : -1;
    }
    for (int32_t i = 0; i + 1 < n; i++) consider(b, s, i);
    while (s->heap_used) {
        uint64_t best = heap_pop(s);
        int64_t rank = (int64_t)(best >> 32);
        int32_t at = (int32_t)(best & UINT32_MAX);
        if (rank_at(b, s, at) != rank) continue; /* the pair has changed since it was pushed */
        int32_t gone = s->next[at];
        s->token[at] = b->merge[rank].into;
        s->token[gone] = -1;
        s->next[at] = s->next[gone];
        if (s->next[at] >= 0) s->previous[s->next[at]] = at;
        if (s->previous[at] >= 0) consider(b, s, s->previous[at]);
        consider(b, s, at);
    }
    size_t count = 0;
    for (int32_t i = 0; i >= 0; i = s->next[i]) ids[count++] = s->token[i];
    return count;
}
