/* From text to token files: PREFIX.train.bin/.idx and, held out by document, PREFIX.valid.bin/.idx. */
#ifndef CARACAL_DATA_BUILD_H
#define CARACAL_DATA_BUILD_H

#include <stdint.h>

#include "launch/error.h"

typedef struct build_config {
    const char *tokenizer, *out; /* path of tokenizer.json; PREFIX */
    double valid_fraction;       /* of the bytes; 0: everything trains, and there are no valid files */
    uint64_t seed;               /* of the choice of what is held out */
    const char *const *file;
    int files;
} build_config;

typedef struct build_report {
    int64_t documents, bytes;
    int64_t train_documents, train_tokens, valid_documents, valid_tokens; /* tokens include eos */
    int64_t near_duplicate_groups, near_duplicates;                       /* the documents in these groups */
} build_report;

/* Every document's tokens, then eos.  Near duplicates stay on one side (near_duplicates.h).  On error (a bad
 * file, nothing in the files, a full disk) no file appears or changes under a final name. */
int data_build(const build_config *c, build_report *report, error *e);

#endif
