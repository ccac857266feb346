#include "model/mla.h"

#include <math.h>

#include "model/recheck.h"

void mla_saved_create(mla_saved *s, arena *a, const context *x) {
    const model_config *c = &x->c;
    size_t t = (size_t)(x->max_batch * x->max_seq) * sizeof(real), heads = (size_t)c->num_attention_heads;
    s->a_TR = arena_alloc(a, t * (size_t)attention_rank(c));
    s->cq = arena_alloc(a, t * (size_t)c->q_lora_rank);
    s->rstd_q = arena_alloc(a, t);
    s->ckv = arena_alloc(a, t * (size_t)c->kv_lora_rank);
    s->rstd_kv = arena_alloc(a, t);
    s->q = arena_alloc(a, t * heads * (size_t)(c->qk_nope_head_dim + c->qk_rope_head_dim));
    s->kv = arena_alloc(a, t * heads * (size_t)(c->qk_nope_head_dim + c->v_head_dim));
    s->o = arena_alloc(a, t * heads * (size_t)c->v_head_dim);
    s->lse = arena_alloc(a, t * heads);
}

static attention_shape shape_of(const context *x) {
    const model_config *c = &x->c;
    return (attention_shape){.batch = x->batch,
                             .seq = x->seq,
                             .heads = c->num_attention_heads,
                             .nope = c->qk_nope_head_dim,
                             .rope = c->qk_rope_head_dim,
                             .v = c->v_head_dim,
                             .past = x->past};
}

static double alpha(int on, int64_t hidden, int64_t rank) {
    return on ? sqrt((double)hidden / (double)rank) : 1.0;
}

/* Puts the latents of this call's rows behind those of the past; returns how many there are then.  Keys and
 * values of the past are expanded again from their latents: that keeps the bits that a forward over all rows
 * gives. */
static int64_t latents_join(const context *x, mla_saved *s, const real *k_rope, int64_t ld) {
    const kernels *k = x->k;
    int64_t kl = x->c.kv_lora_rank, rope = x->c.qk_rope_head_dim;
    k->copy(k->ctx, x->tokens * kl, s->past_ckv + x->past * kl, s->ckv);
    for (int64_t i = 0; i < x->tokens; i++)
        k->copy(k->ctx, rope, s->past_k_rope + (x->past + i) * rope, k_rope + i * ld);
    return x->past + x->tokens;
}

void mla_forward(const context *x, real *out, const real *residual, mla_saved *s, const mla_tensors *w,
                 const real *n) {
    const model_config *c = &x->c;
    const kernels *k = x->k;
    int64_t t = x->tokens, h = c->hidden_size, ql = c->q_lora_rank, kl = c->kv_lora_rank,
            heads = c->num_attention_heads, nope = c->qk_nope_head_dim, rope = c->qk_rope_head_dim,
            v = c->v_head_dim, r = attention_rank(c);
    real *k_rope = s->a_TR + ql + kl;
    const real *cosine = x->cosine + x->past * rope / 2, *sine = x->sine + x->past * rope / 2;

    linear_forward(x, r, h, s->a_TR, NULL, n, w->a);
    k->rms_norm_forward(k->ctx, t, ql, c->latent_norm_eps, alpha(c->mla_scale_q_lora, h, ql), s->cq, ql,
                        s->rstd_q, s->a_TR, r, w->q_a_norm);
    k->rms_norm_forward(k->ctx, t, kl, c->latent_norm_eps, alpha(c->mla_scale_kv_lora, h, kl), s->ckv, kl,
                        s->rstd_kv, s->a_TR + ql, r, w->kv_a_norm);
    linear_forward(x, heads * (nope + rope), ql, s->q, NULL, s->cq, w->q_b);
    k->rope(k->ctx, t, x->seq, heads, rope / 2, 0, s->q + nope, heads * (nope + rope), nope + rope, cosine,
            sine);
    k->rope(k->ctx, t, x->seq, 1, rope / 2, 0, k_rope, r, rope, cosine, sine);

    int64_t keys = t, ld_k_rope = r;
    const real *ckv = s->ckv;
    if (s->past_ckv) {
        keys = latents_join(x, s, k_rope, r);
        ckv = s->past_ckv;
        k_rope = s->past_k_rope;
        ld_k_rope = rope;
    }
    k->gemm(k->ctx, GEMM_NT, keys, heads * (nope + v), kl, s->kv, heads * (nope + v), NULL, ckv, kl, w->kv_b,
            kl);
    context_progress(x);
    k->attention_forward(k->ctx, shape_of(x), s->o, s->lse, s->q, s->kv, k_rope, ld_k_rope, x->first_key);
    context_progress(x);
    linear_forward(x, h, heads * v, out, residual, s->o, w->o);
}

/* Gradients of q and kv, and of k_rope in its columns of da, before RoPE. */
static void attention_backward(const context *x, const mla_saved *s, real *dq, real *dkv, real *da) {
    const model_config *c = &x->c;
    const kernels *k = x->k;
    int64_t t = x->tokens, heads = c->num_attention_heads, nope = c->qk_nope_head_dim,
            rope = c->qk_rope_head_dim, r = attention_rank(c), at = c->q_lora_rank + c->kv_lora_rank;
    k->attention_backward(k->ctx, shape_of(x), dq, dkv, da + at, r, x->s.d_o_T, s->o, s->lse, s->q, s->kv,
                          s->a_TR + at, r, x->first_key);
    context_progress(x);
    k->rope(k->ctx, t, x->seq, heads, rope / 2, 1, dq + nope, heads * (nope + rope), nope + rope, x->cosine,
            x->sine);
    k->rope(k->ctx, t, x->seq, 1, rope / 2, 1, da + at, r, rope, x->cosine, x->sine);
}

void mla_recheck(const context *x, int which, const mla_saved *s) {
    const model_config *c = &x->c;
    const model_scratch *first = &x->s;
    recheck *again = x->recheck;
    int64_t t = x->tokens, heads = c->num_attention_heads, nope = c->qk_nope_head_dim,
            rope = c->qk_rope_head_dim, r = attention_rank(c), at = c->q_lora_rank + c->kv_lora_rank;
    int64_t q = heads * (nope + rope), kv = heads * (nope + c->v_head_dim);
    attention_backward(x, s, again->dq_T, again->dkv_T, again->da_TR);
    recheck_compare(x, "self_attn", which, "gradient of q", t, q, q, first->dq_T, again->dq_T);
    recheck_compare(x, "self_attn", which, "gradient of kv", t, kv, kv, first->dkv_T, again->dkv_T);
    recheck_compare(x, "self_attn", which, "gradient of k_rope", t, rope, r, first->da_TR + at,
                    again->da_TR + at);
}

void mla_backward(const context *x, real *dn, mla_tensors *g, const mla_saved *s, const mla_tensors *w,
                  const real *n, const real *dout) {
    const model_config *c = &x->c;
    int64_t t = x->tokens, h = c->hidden_size, ql = c->q_lora_rank, kl = c->kv_lora_rank,
            heads = c->num_attention_heads, nope = c->qk_nope_head_dim, rope = c->qk_rope_head_dim,
            v = c->v_head_dim, r = attention_rank(c);
    real *da = x->s.da_TR, *dq = x->s.dq_T, *dkv = x->s.dkv_T, *dcq = x->s.dcq_T, *dckv = x->s.dckv_T;

    linear_backward(x, h, heads * v, x->s.d_o_T, g->o, dout, s->o, w->o);
    attention_backward(x, s, dq, dkv, da);
    if (flip_due(x->flip, FLIP_ATTENTION, x->layer))
        context_flip(x, x->flip, "the gradient of q", dq, t * heads * (nope + rope));
    linear_backward(x, heads * (nope + rope), ql, dcq, g->q_b, dq, s->cq, w->q_b);
    linear_backward(x, heads * (nope + v), kl, dckv, g->kv_b, dkv, s->ckv, w->kv_b);
    norm_backward_strided(x, ql, alpha(c->mla_scale_q_lora, h, ql), da, r, NULL, g->q_a_norm, dcq, ql,
                          s->a_TR, r, s->rstd_q, w->q_a_norm);
    norm_backward_strided(x, kl, alpha(c->mla_scale_kv_lora, h, kl), da + ql, r, NULL, g->kv_a_norm, dckv, kl,
                          s->a_TR + ql, r, s->rstd_kv, w->kv_a_norm);
    linear_backward(x, r, h, dn, g->a, da, n, w->a);
}
