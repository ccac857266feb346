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

/* s->loss_T = cross-entropy of tokens t+2; best_T (may be NULL) = the most likely of them.  With dfinal_TH
 * not NULL also the gradients of scale * sum(loss):
 * += to dfinal_TH, dlm_head and, in rows dembedding_row_T of it, dembedding, overwriting g. */
void mtp_loss(const context *x, mtp_saved *s, const mtp_tensors *w, const real *embedding_VH,
              const real *lm_head_VH, const real *final_TH, const int32_t *next_T, const int32_t *targets_T,
              double scale, real *logits, int32_t *best_T, real *dfinal_TH, real *dembedding,
              const int32_t *dembedding_row_T, real *dlm_head_VH, mtp_tensors *g);

#endif
