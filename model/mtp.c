#include "model/mtp.h"

void mtp_saved_create(mtp_saved *s, const places *in, const context *x) {
    arena *a = in->shared;
    size_t t = (size_t)(x->max_batch * x->max_seq) * sizeof(real), h = (size_t)x->c.hidden_size;
    real **matrix[] = {&s->next_TH, &s->m_TH,     &s->n_TH,      &s->m1_TH, &s->y_TH,
                       &s->m2_TH,   &s->final_TH, &s->dfinal_TH, &s->dm_TH};
    real **vector[] = {&s->rstd_next_T, &s->rstd_h_T,     &s->rstd_n_T,
                       &s->rstd_y_T,    &s->rstd_final_T, &s->loss_T};
    for (size_t i = 0; i < sizeof matrix / sizeof *matrix; i++) *matrix[i] = arena_alloc(a, t * h);
    for (size_t i = 0; i < sizeof vector / sizeof *vector; i++) *vector[i] = arena_alloc(a, t);
    s->loss_host = twin_place(x->k, in->host, s->loss_T, t);
    s->pair_T2H = arena_alloc(a, t * 2 * h);
    s->dpair_T2H = arena_alloc(a, t * 2 * h);
    s->gate_up_T2F = arena_alloc(a, t * 2 * (size_t)x->c.ffn_hidden_size);
    mla_saved_create(&s->mla, a, x);
}

void mtp_forward(const context *x, mtp_saved *s, const mtp_tensors *w, const real *embedding,
                 const real *final, const int32_t *next) {
    const kernels *k = x->k;
    int64_t t = x->tokens, h = x->c.hidden_size;
    double eps = x->c.rms_norm_eps;
    k->embedding_forward(k->ctx, t, h, s->next_TH, embedding, next);
    k->rms_norm_forward(k->ctx, t, h, eps, 1, s->pair_T2H, 2 * h, s->rstd_next_T, s->next_TH, h,
                        w->embedding_norm);
    k->rms_norm_forward(k->ctx, t, h, eps, 1, s->pair_T2H + h, 2 * h, s->rstd_h_T, final, h, w->hidden_norm);
    linear_forward(x, h, 2 * h, s->m_TH, NULL, s->pair_T2H, w->eh_proj);
    norm_forward(x, s->n_TH, s->rstd_n_T, s->m_TH, w->input_norm);
    mla_forward(x, s->m1_TH, s->m_TH, &s->mla, &w->mla, s->n_TH);
    norm_forward(x, s->y_TH, s->rstd_y_T, s->m1_TH, w->post_norm);
    ffn_forward(x, s->m2_TH, s->m1_TH, s->gate_up_T2F, &w->ffn, s->y_TH);
    norm_forward(x, s->final_TH, s->rstd_final_T, s->m2_TH, w->norm);
}

void mtp_backward(const context *x, mtp_saved *s, const mtp_tensors *w, mtp_tensors *g, const real *final,
                  real *dfinal, real *dembedding, const int32_t *dembedding_row) {
    const kernels *k = x->k;
    int64_t t = x->tokens, h = x->c.hidden_size;
    real *dm = s->dm_TH, *d = s->dfinal_TH;
    norm_backward(x, dm, NULL, g->norm, d, s->m2_TH, s->rstd_final_T, w->norm);
    ffn_backward(x, d, &g->ffn, s->gate_up_T2F, &w->ffn, s->y_TH, dm);
    norm_backward(x, dm, dm, g->post_norm, d, s->m1_TH, s->rstd_y_T, w->post_norm);
    mla_backward(x, d, &g->mla, &s->mla, &w->mla, s->n_TH, dm);
    norm_backward(x, dm, dm, g->input_norm, d, s->m_TH, s->rstd_n_T, w->input_norm);
    linear_backward(x, h, 2 * h, s->dpair_T2H, g->eh_proj, dm, s->pair_T2H, w->eh_proj);
    norm_backward_strided(x, h, 1, d, h, NULL, g->embedding_norm, s->dpair_T2H, 2 * h, s->next_TH, h,
                          s->rstd_next_T, w->embedding_norm);
    k->embedding_backward(k->ctx, t, h, dembedding, d, dembedding_row);
    norm_backward_strided(x, h, 1, dfinal, h, dfinal, g->hidden_norm, s->dpair_T2H + h, 2 * h, final, h,
                          s->rstd_h_T, w->hidden_norm);
}
