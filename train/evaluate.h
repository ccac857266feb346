/* Held-out loss. */
#ifndef CARACAL_TRAIN_EVALUATE_H
#define CARACAL_TRAIN_EVALUATE_H

#include "train/state.h"

/* loss [sources] = mean cross-entropy in nats of the first `samples` held-out samples of each source (NaN for
 * a source without held-out text); *total = the mean over all counted tokens.  The ranks share the samples;
 * the result does not depend on how many there are.  tokens: scratch for [micro_batch_size][seq_len + 2].
 * Collective. */
void evaluate(state *s, const loader *held_out, int64_t samples, int32_t *tokens, double *loss,
              double *total);

/* `caracal evaluate CKPT [--samples=N] [--section.key=value ...]`: held-out loss and perplexity per source.
 */
int evaluate_command(int argc, char **argv);

#endif
