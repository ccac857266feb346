/* The whole model of one rank: weights, activations, and the forward and backward of one micro-batch.
 *
 * The caller (train/step.c) drives the backward bucket by bucket and says where gradients go, so that it can
 * start folding a layer's gradients while the next layer is at work.
 */
#ifndef CARACAL_MODEL_MODEL_H
#define CARACAL_MODEL_MODEL_H

#include "model/embedding.h"
#include "model/mtp.h"
#include "model/params.h"
#include "model/scmoe.h"

typedef struct model_config_all {
    model_config model;
    router_config router;
    loss_config loss;
    int64_t batch, seq; /* the largest micro-batch */
    int64_t chunks;     /* token chunks of an exchange */
    int64_t eos;        /* end of document, for document_mask */
    double slack;       /* room for received rows, in multiples of the expected load */
} model_config_all;

/* Losses of one micro-batch, means over counted targets (MODEL.md), without coefficients. */
typedef struct model_stats {
    double lm, z, mtp;
    double hidden_l2; /* mean over tokens of |z_t|, before the final norm */
} model_stats;

/* What is known of each token of a micro-batch. */
typedef struct token_rows {
    real *loss_T, *z_T, *sum_sq_T;
    int32_t *ids_T, *next_T, *target_T, *target2_T, *first_key_T;
    int32_t *best_T, *best2_T; /* model_evaluate with an MTP head: its and the trunk's most likely tokens */
} token_rows;

typedef struct model {
    context x;
    params p;
    int64_t eos;
    int mtp_on;    /* the MTP head, if there is one, takes part */
    real *weights; /* all of this rank's, as params lays them out */
    real *embedding_VH;
    layer_tensors *layer;
    head_tensors head;
    mtp_tensors mtp;
    real *router_bias_LE; /* state, not parameters; host memory, */
    real *bias_LE;        /* and what kernels have of it */
    real *latents;        /* of a text that is continued (model_continue); NULL in training */

    arena kept, shared, sent; /* activations, in the backend's memory (sent: of the transport) */
    arena host;               /* and their twins */
    layer_saved *saved;
    mtp_saved mtp_saved;
    embedding_gradient dembedding;
    real *hidden_TH, *final_TH, *rstd_final_T, *dhidden_TH, *d_TH[2], *logits;
    token_rows rows, host_rows; /* for kernels, and their twins */
    int32_t document_start;     /* of the last token read */
    int64_t counted, counted2;  /* targets of the LM and of the MTP loss */
    double loss_scale;
    model_stats stats;
    double *sample_loss; /* [batch] LM loss of each sequence of the micro-batch */
} model;

/* Of the exchange of a micro-batch of that size. */
exchange_shape model_exchange_shape(const model_config_all *c, const mesh *mesh);
/* c with room for the most rows that can come, where that takes no more memory than c's slack and the buffers
 * of further rounds; otherwise c as it is.  What model_create reserves, and the functions below count. */
model_config_all model_room(const model_config_all *c, const kernels *k, const mesh *mesh);
/* Bytes of the backend's memory for activations and buffers, for room as it is; allocates nothing. */
size_t model_bytes_of(const model_config_all *room, const kernels *k, const mesh *mesh);
/* The same for model_room. */
size_t model_activation_bytes(const model_config_all *c, const kernels *k, const mesh *mesh);
/* The same with room for every routing: never less. */
size_t model_worst_bytes(const model_config_all *c, const kernels *k, const mesh *mesh);
/* And of what the backend takes for itself beside those and so many weights (kernels.h: own_bytes). */
size_t model_backend_bytes(const model_config_all *c, const kernels *k, const mesh *mesh, int64_t weights);

/* Allocates everything; weights are zero until loaded or initialised.  k and mesh are borrowed. */
void model_create(model *m, const model_config_all *c, const kernels *k, const mesh *mesh);
void model_destroy(model *m);
/* From now on positions turn by frequencies of this base; nothing is done when they do already. */
void model_rope(model *m, double theta);

/* Forward to m->hidden_TH of tokens [batch, seq + 2] (host).  loss_scale: this micro-batch's share of the
 * step's loss. */
void model_forward(model *m, const int32_t *tokens, int64_t batch, int64_t seq, double loss_scale);

/* Continuing a text: model_continue starts an empty one of at most seq tokens (it may be called again); then
 * model_extend reads n more and computes only them, the past being kept as its attentions' latents
 * (kv_lora + rope numbers a token and attention).  Afterwards rows 0..n-1 of m->final_TH and model_logits are
 * those of the new tokens, with the bits that model_forward over the whole text gives. */
void model_continue(model *m);
void model_extend(model *m, const int32_t *ids, int64_t n);

/* Losses (m->stats) and no gradients; loss_T (host, may be NULL) = the LM loss of every position, 0 where it
 * is not counted.  With an MTP head that takes part, best_T and best2_T of m->host_rows = the most likely
 * next token of every position, and the one after it as the MTP head sees it. */
void model_evaluate(model *m, real *loss_T);

/* The backward of a micro-batch.  Where m->x.accumulate is set, dense gradients are added to what their
 * arrays hold; "overwritten" below holds without it.  The embedding's is always added to (+=), once for each
 * row of it, so that it may be the sum over micro-batches itself.
 *
 * Losses, and their gradients back to m->dhidden_TH.  head, mtp: gradient arrays of those buckets
 * (overwritten; mtp only with m->mtp_on). */
void model_head_backward(model *m, real *embedding, real *head, real *mtp);
/* One layer's backward, last layer first.  dense: gradient array of its bucket (overwritten); class_grad and
 * class_of as in model/moe.h (+=). */
void model_layer_backward(model *m, int64_t layer, real *dense, real *const *class_grad, const int *class_of);
/* The embedding's gradient (+=), and the end of a micro-batch: figures of the layers are the host's now. */
void model_embedding_backward(model *m, real *embedding);
/* After it: the largest |element| of a layer's output, NaN if one is. */
double model_layer_max(const model *m, int64_t layer);

/* Logits [vocab] (host) of one row after model_forward. */
void model_logits(model *m, int64_t row, real *logits);

#endif
