/* What is known of held-out text. */
#ifndef CARACAL_TRAIN_EVALUATE_H
#define CARACAL_TRAIN_EVALUATE_H

#include "data/tokenizer.h"
#include "train/state.h"

/* Of one source, or of all; NaN where there is nothing to measure. */
typedef struct held_out {
    double loss;           /* mean cross-entropy of the counted tokens, in nats */
    double bits_per_byte;  /* the same per byte of text: comparable between tokenizers */
    double mtp_acceptance; /* how often the MTP head's choice for token t+2 is the trunk's own, one token
                              later */
} held_out;

/* out [sources + 1] = the first `samples` held-out samples of each source, and last all of them together. The
 * samples have the length of the stage that s is in.  The ranks share the samples; the result does not depend
 * on how many there are.  tokens: scratch for [micro_batch_size][seq_len + 2].  show: on a terminal, rank 0
 * says how far it is.  Collective. */
void evaluate(state *s, const loader *valid, const tokenizer *t, int64_t samples, int32_t *tokens,
              held_out *out, int show);

/* `caracal evaluate CKPT [--samples=N] [--choices=FILE] [--section.key=value ...]` */
int evaluate_command(int argc, char **argv);

#endif
