/* Byte-pair encoding: a vocabulary of byte strings and an ordered list of merges. */
#ifndef CARACAL_DATA_BPE_H
#define CARACAL_DATA_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "data/pair_table.h"
#include "launch/error.h"

#define BPE_EOS_TEXT "<|endoftext|>"

/* A vocabulary that is learnt here: <|endoftext|>, then the 256 bytes, then what the merges make, in order.
 */
enum { BPE_EOS_ID = 0, BPE_FIRST_BYTE_ID = 1, BPE_FIRST_MERGED_ID = 257 };

typedef struct bpe_merge {
    int32_t left, right, into;
} bpe_merge;

typedef struct bpe {
    int32_t vocab_size, eos;
    int32_t byte_id[256];
    char *text;     /* the tokens' bytes, one after the other; eos has none of its own */
    int64_t *start; /* [vocab_size + 1]: token i is text[start[i]] .. text[start[i + 1]] */
    int64_t merges;
    bpe_merge *merge; /* in order of rank */
    pair_table rank;  /* (left, right) -> rank */
} bpe;

/* A vocabulary as learnt here, from pairs (merge.into is filled in).  Owned by the caller: bpe_free. */
void bpe_from_merges(bpe *b, const bpe_merge *merge, int64_t merges);
void bpe_free(bpe *b);

/* Room for encoding one piece, kept from piece to piece; {0} to start. */
typedef struct bpe_scratch {
    int32_t *token, *previous, *next; /* the piece as a linked list */
    uint64_t *heap;                   /* merges that may be next: rank << 32 | position */
    size_t room, heap_used;
} bpe_scratch;
void bpe_scratch_free(bpe_scratch *s);

/* Encodes one piece: while there is one, the adjacent pair of the lowest rank is merged, leftmost first.
 * ids [bytes] = the tokens; returns how many.  0 < bytes < 2^31. */
size_t bpe_encode(const bpe *b, bpe_scratch *s, const char *piece, size_t bytes, int32_t *ids);

#endif
