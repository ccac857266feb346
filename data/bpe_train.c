#include "data/bpe_train.h"

#include "launch/memory.h"
#include "launch/progress.h"

/* A pair of adjacent tokens: how often it occurs now, and the words in which it may occur (a superset: words
 * that lost it stay listed). */
typedef struct pair {
    int32_t left, right;
    int64_t count;
    int64_t *word;
    int64_t words, room;
} pair;

/* An entry of the heap; its count may be out of date, and is then too high. */
typedef struct candidate {
    int64_t count, pair;
} candidate;

typedef struct trainer {
    /* word w has word_tokens[w] tokens, from token[word_from[w]] on, and occurs word_count[w] times */
    const int64_t *word_count, *word_from;
    int64_t *word_tokens;
    int32_t *token;
    pair *pair;
    int64_t pairs, pair_room;
    pair_table number; /* of a pair in `pair`, + 1 */
    candidate *heap;
    int64_t heap_used, heap_room;
} trainer;

/* Adds to the count of a pair in a word. */
static void add(trainer *t, int64_t word, int32_t left, int32_t right, int64_t change) {
    int64_t *number = pair_table_at(&t->number, left, right);
    if (!*number) {
        if (t->pairs == t->pair_room) {
            t->pair_room = 2 * t->pair_room + 1024;
            t->pair = mem_grow(t->pair, (size_t)t->pair_room * sizeof *t->pair, "pairs of tokens");
        }
        t->pair[t->pairs++] = (pair){.left = left, .right = right};
        *number = t->pairs;
    }
    pair *p = &t->pair[*number - 1];
    p->count += change;
    if (change < 0 || (p->words && p->word[p->words - 1] == word)) return;
    if (p->words == p->room) {
        p->room = 2 * p->room + 2;
        p->word = mem_grow(p->word, (size_t)p->room * sizeof *p->word, "words of a pair");
    }
    p->word[p->words++] = word;
}

/* Whether a is to be merged before b. */
static int before(const trainer *t, candidate a, candidate b) {
    const pair *p = &t->pair[a.pair], *q = &t->pair[b.pair];
    if (a.count != b.count) return a.count > b.count;
    return p->left != q->left ? p->left < q->left : p->right < q->right;
}

static void push(trainer *t, candidate c) {
    if (t->heap_used == t->heap_room) {
        t->heap_room = 2 * t->heap_room + 1024;
        t->heap = mem_grow(t->heap, (size_t)t->heap_room * sizeof *t->heap, "candidates for merging");
    }
    int64_t i = t->heap_used++;
    for (; i && before(t, c, t->heap[(i - 1) / 2]); i = (i - 1) / 2) t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = c;
}

static candidate pop(trainer *t) {
    candidate best = t->heap[0], last = t->heap[--t->heap_used];
    int64_t i = 0, n = t->heap_used;
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(t, t->heap[child + 1], t->heap[child])) child++;
        if (!before(t, t->heap[child], last)) break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = last;
    return best;
}

/* Puts the pairs from number `first` on into the heap. */
static void push_pairs(trainer *t, int64_t first) {
    for (int64_t p = first; p < t->pairs; p++)
        if (t->pair[p].count >= 2) push(t, (candidate){t->pair[p].count, p});
}

/* The most frequent pair that occurs at least twice, or -1. */
static int64_t best_pair(trainer *t) {
    while (t->heap_used) {
        candidate c = pop(t);
        int64_t now = t->pair[c.pair].count;
        if (now == c.count) return c.pair;
        if (now >= 2) push(t, (candidate){now, c.pair});
    }
    return -1;
}

/* Replaces every (left, right) in a word by `into`, and keeps the counts of its pairs up to date. */
static void merge_in_word(trainer *t, int64_t word, int32_t left, int32_t right, int32_t into) {
    int32_t *token = t->token + t->word_from[word];
    int64_t n = t->word_tokens[word], times = t->word_count[word], kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i + 1 == n || token[i] != left || token[i + 1] != right) {
            token[kept++] = token[i];
            continue;
        }
        add(t, word, left, right, -times);
        if (kept) {
            add(t, word, token[kept - 1], left, -times);
            add(t, word, token[kept - 1], into, times);
        }
        if (i + 2 < n) {
            add(t, word, right, token[i + 2], -times);
            add(t, word, into, token[i + 2], times);
        }
        token[kept++] = into;
        i++;
    }
    t->word_tokens[word] = kept;
}

static void merge_everywhere(trainer *t, int64_t p, int32_t into) {
    pair chosen = t->pair[p];
    int64_t first_new = t->pairs;
    t->pair[p].word = NULL;
    t->pair[p].words = t->pair[p].room = 0;
    for (int64_t i = 0; i < chosen.words; i++)
        merge_in_word(t, chosen.word[i], chosen.left, chosen.right, into);
    mem_free(chosen.word);
    REQUIRE(t->pair[p].count == 0);
    push_pairs(t, first_new); /* no other pair has gained: all gains have `into` in them */
}

static void trainer_open(trainer *t, const piece_table *pieces, const int64_t *count) {
    int64_t bytes = pieces->count ? pieces->start[pieces->count] : 0;
    *t = (trainer){.word_count = count, .word_from = pieces->start};
    t->token = mem_alloc((size_t)bytes * sizeof *t->token, "the words of a corpus");
    t->word_tokens = mem_alloc((size_t)pieces->count * sizeof *t->word_tokens, "the words of a corpus");
    for (int64_t i = 0; i < bytes; i++) t->token[i] = BPE_FIRST_BYTE_ID + (unsigned char)pieces->text[i];
    for (int64_t w = 0; w < pieces->count; w++) {
        int64_t from = pieces->start[w], n = pieces->start[w + 1] - from;
        t->word_tokens[w] = n;
        for (int64_t i = from; i + 1 < from + n; i++) add(t, w, t->token[i], t->token[i + 1], count[w]);
    }
    push_pairs(t, 0);
}

static void trainer_close(trainer *t) {
    for (int64_t p = 0; p < t->pairs; p++) mem_free(t->pair[p].word);
    mem_free(t->pair);
    mem_free(t->token);
    mem_free(t->word_tokens);
    mem_free(t->heap);
    pair_table_free(&t->number);
}

/* No two merges make the same bytes: what is merged inside a stretch that stays apart from its neighbours
 * does not depend on them, so a token is made in one way only. */
int bpe_train(bpe *out, const piece_table *pieces, const int64_t *count, int64_t vocab_size, error *e) {
    if (vocab_size < BPE_FIRST_MERGED_ID || vocab_size >= INT32_MAX)
        return error_set(e, EXIT_USAGE, "a vocabulary of %lld tokens: %d is the least (the 256 bytes and %s)",
                         (long long)vocab_size, BPE_FIRST_MERGED_ID, BPE_EOS_TEXT);
    int64_t merges = vocab_size - BPE_FIRST_MERGED_ID, done = 0, p;
    bpe_merge *merge = mem_alloc((size_t)merges * sizeof *merge, "merges");
    trainer t;
    trainer_open(&t, pieces, count);
    progress shown = progress_begin("merging pairs", "merges", (double)merges);
    for (; done < merges && (p = best_pair(&t)) >= 0; done++) {
        progress_at(&shown, (double)done);
        merge[done] = (bpe_merge){.left = t.pair[p].left, .right = t.pair[p].right};
        merge_everywhere(&t, p, (int32_t)(BPE_FIRST_MERGED_ID + done));
    }
    progress_end(&shown);
    trainer_close(&t);
    if (done == merges) bpe_from_merges(out, merge, merges);
    mem_free(merge);
    if (done == merges) return 0;
    return error_set(
        e, EXIT_USAGE,
        "the corpus is too small for a vocabulary of %lld: at %lld no pair of tokens occurs twice; so many "
        "are the most, or more text is needed",
        (long long)vocab_size, (long long)done + BPE_FIRST_MERGED_ID);
}
