/* From text files to tokenizer.json. */
#ifndef CARACAL_DATA_TOKENIZER_TRAIN_H
#define CARACAL_DATA_TOKENIZER_TRAIN_H

#include <stdint.h>

#include "launch/error.h"

typedef struct tokenizer_report {
    int64_t documents, bytes, pieces, distinct_pieces;
} tokenizer_report;

/* Learns a vocabulary of vocab_size tokens from the documents of all files and writes it to `out`, whole or
 * not at all.  The result is a function of the documents, whatever their order. */
int tokenizer_train(const char *out, int64_t vocab_size, const char *const *file, int files,
                    tokenizer_report *report, error *e);

#endif
