/* What counting alone reaches on the held-out text: marks that a trained model must beat. */
#ifndef CARACAL_DATA_NGRAM_H
#define CARACAL_DATA_NGRAM_H

#include <stdint.h>

#include "launch/error.h"

typedef struct ngram_files {
    const char *train, *valid; /* prefixes of token files */
} ngram_files;

/* Nats per token, as a training loss. */
typedef struct ngram_loss {
    int64_t train_tokens, valid_tokens;
    double unigram; /* entropy of the held-out tokens under their own frequencies: no model that ignores the
                     * context does better */
    double bigram;  /* of the held-out tokens, each given the one before (the first, which has none, is left
                     * out), under a model fitted on the training tokens of all sources */
    double bigram_own; /* the same, fitted on the source's own training tokens; in the total, each source
                        * under its own model */
} ngram_loss;

/* loss [sources] and *total (all sources' tokens together) =.  The bigram model is interpolated modified
 * Kneser-Ney (Chen and Goodman 1999), over the ids up to the largest that occurs. */
int ngram_measure(ngram_loss *loss, ngram_loss *total, const ngram_files *files, int sources, error *e);

#endif
