/* Multi-head latent attention with scale correction (report Eq. 6, 7).  T, H, R as in model/context.h. */
#ifndef CARACAL_MODEL_MLA_H
#define CARACAL_MODEL_MLA_H

#include "model/context.h"
#include "model/params.h"

/* What the backward needs beside the input. */
typedef struct mla_saved {
    real *a_TR;          /* W_qa h, W_kva h side by side; the rope part already turned */
    real *cq, *rstd_q;   /* alpha_q RMSNorm(.) [T, q_lora] */
    real *ckv, *rstd_kv; /* alpha_kv RMSNorm(.) [T, kv_lora] */
    real *q, *kv;        /* [T, heads*(nope+rope)], [T, heads*(nope+v)] */
    real *o, *lse;       /* [T, heads*v], [T, heads] */
    /* when text is continued, the latents of all positions so far: [max_seq, kv_lora], [max_seq, rope] */
    real *past_ckv, *past_k_rope;
} mla_saved;

void mla_saved_create(mla_saved *s, arena *a, const context *x);

/* out_TH = residual_TH + MLA(n_TH).  With past_ckv, the rows stand at positions x->past and on: their latents
 * join those that are there, and they attend to all. */
void mla_forward(const context *x, real *out_TH, const real *residual_TH, mla_saved *s, const mla_tensors *w,
                 const real *n_TH);
/* dn_TH = gradient of the input n_TH; g: gradients of the weights, = or += as x->accumulate says */
void mla_backward(const context *x, real *dn_TH, mla_tensors *g, const mla_saved *s, const mla_tensors *w,
                  const real *n_TH, const real *dout_TH);
/* Right after mla_backward of the layer's attention 0 or 1: its core once more, compared with what is in
 * scratch (model/recheck.h). */
void mla_recheck(const context *x, int which, const mla_saved *s);

#endif
