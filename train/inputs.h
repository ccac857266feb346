/* What a run reads beside its config, the tokenizer and the token files, as a checkpoint records it: by their
 * digests, so that files may move but not change. */
#ifndef CARACAL_TRAIN_INPUTS_H
#define CARACAL_TRAIN_INPUTS_H

#include <jansson.h>

#include "data/loader.h"
#include "data/tokenizer.h"

/* {tokenizer_digest: ..., data_digests: {SOURCE: {train: ..., valid: ...}}}; a loader that is NULL and a
 * source without held-out text leave theirs out.  The caller's reference. */
#define INPUTS_TOKENIZER "tokenizer_digest"
#define INPUTS_DATA      "data_digests"
json_t *inputs_record(const data_config *c, const tokenizer *t, const loader *train, const loader *valid);

/* Are `ours` those that a checkpoint's state, `about`, has?  EXIT_USAGE names the first file that differs,
 * and what to do.  What either has no record of is taken as it is. */
int inputs_compare(const data_config *c, const json_t *ours, const json_t *about, error *e);

#endif
