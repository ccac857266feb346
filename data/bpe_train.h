/* Learning merges from the counts of pieces. */
#ifndef CARACAL_DATA_BPE_TRAIN_H
#define CARACAL_DATA_BPE_TRAIN_H

#include "data/bpe.h"
#include "data/piece_table.h"

/* Learns a vocabulary of vocab_size tokens from pieces and how often each occurs (count [pieces.count]).
 * Always the most frequent adjacent pair is merged next; of equally frequent ones that with the lower left
 * id, then the lower right id.  The result depends on the counts alone, not on the order of the pieces. Pairs
 * that occur once are not merged: a corpus too small for vocab_size is an error that names what it is good
 * for. The caller owns *out (bpe_free). */
int bpe_train(bpe *out, const piece_table *pieces, const int64_t *count, int64_t vocab_size, error *e);

#endif
