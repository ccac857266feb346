/* Where each tensor of a model lies in the files of others. */
#ifndef CARACAL_TRAIN_IMPORT_MATCH_H
#define CARACAL_TRAIN_IMPORT_MATCH_H

#include "ckpt/weights.h"
#include "model/params.h"

/* A tensor of ours: elements offset .. offset + count of one of theirs. */
typedef struct match {
    char *name; /* without "weights/" */
    const safetensor *from;
    int64_t offset, count;
} match;

typedef struct match_list {
    int64_t n;
    match *match; /* sorted by name */
} match_list;

/* Finds the parameters of the table and the router biases.  Experts may be single or fused
 * (mlp.experts.gate_up_proj, down_proj), and may have rows for identity experts, which mean nothing.
 * EXIT_CORRUPT: a tensor is missing, has another shape, or is there and belongs to no such model. */
int match_create(match_list *m, const params *p, const weights *w, const char *directory, error *e);
void match_free(match_list *m);
const match *match_find(const match_list *m, const char *name); /* NULL: not there */

/* 1 if the files have an MTP head. */
int match_has_mtp(const weights *w);

#endif
