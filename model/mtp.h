/* The multi-token-prediction head: one dense layer that at position t sees the embedding of token t+1 and the
 * main model's output h_t (after its final norm), and predicts token t+2 through the shared head. */
#ifndef CARACAL_MODEL_MTP_H
#define CARACAL_MODEL_MTP_H

#include "model/ffn.h"
#include "model/mla.h"

typedef struct mtp_saved {
    real *next_TH;  /* embeddings of tokens t+1 */
    real *pair_T2H; /* [norm(next) ; norm(h)] */
    real *rstd_next_T, *rstd_h_T;
    real *m_TH, *n_TH, *rstd_n_T;
    mla_saved mla;
    real *m1_TH, *y_TH, *rstd_y_T, *gate_up_T2F, *m2_TH, *final_TH, *rstd_final_T;
    real *dfinal_TH, *dm_TH, *dpair_T2H;
    real *loss_T, *loss_host;
} mtp_saved;

void mtp_saved_create(mtp_saved *s, const places *a, const context *x);

/* s->final_TH = the branch's output, for head_loss (model/head.h), to s->loss_T and s->dfinal_TH. */
void mtp_forward(const context *x, mtp_saved *s, const mtp_tensors *w, const real *embedding_VH,
                 const real *final_TH, const int32_t *next_T);
/* On entry s->dfinal_TH is the gradient of s->final_TH.  += to dfinal_TH and, in rows dembedding_row_T of it,
 * dembedding; g: gradients of the weights, = or += as x->accumulate says. */
void mtp_backward(const context *x, mtp_saved *s, const mtp_tensors *w, mtp_tensors *g, const real *final_TH,
                  real *dfinal_TH, real *dembedding, const int32_t *dembedding_row_T);

#endif
