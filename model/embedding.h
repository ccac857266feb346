/* A micro-batch's gradient of the embedding: of the ids that occur in it, and of no others.  A table of the
 * whole vocabulary would be zeroed and added up once for each micro-batch, for the few of its rows that have
 * tokens.
 */
#ifndef CARACAL_MODEL_EMBEDDING_H
#define CARACAL_MODEL_EMBEDDING_H

#include "model/context.h"

/* Whose embeddings a micro-batch reads. */
enum { EMBED_TOKENS, EMBED_NEXT /* the MTP head's */, EMBED_LISTS };

typedef struct embedding_gradient {
    /* where gradients of embeddings are added up, and the row of each token there */
    real *sum;
    const int32_t *row_T[EMBED_LISTS];

    real *sum_UH;            /* a row for each id that occurs, */
    int32_t *id_U, *id_host; /* which is this, and the twin */
    int32_t *row, *row_host; /* [EMBED_LISTS][T] */
    int32_t *row_of_V;       /* host memory: of each id while rows are numbered, plus 1; 0 otherwise */
    int64_t rows;            /* U */
} embedding_gradient;

void embedding_gradient_create(embedding_gradient *e, const places *a, const context *x);

/* Before anything is added: e->sum is zero.  ids: of each list, for kernels and on the host, NULL where the
 * list is not used.  Where x->accumulate is set, what is added is added to dembedding [V,H] at once. */
void embedding_gradient_begin(const context *x, embedding_gradient *e, real *dembedding,
                              const int32_t *const ids[EMBED_LISTS], const int32_t *const host[EMBED_LISTS]);
/* dembedding += what was added since. */
void embedding_gradient_end(const context *x, const embedding_gradient *e, real *dembedding);

#endif
