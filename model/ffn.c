#include "model/ffn.h"

void ffn_forward(const context *x, real *out, const real *residual, real *gate_up, const ffn_tensors *w,
                 const real *y) {
    int64_t h = x->c.hidden_size, f = x->c.ffn_hidden_size;
    linear_forward(x, 2 * f, h, gate_up, NULL, y, w->gate_up);
    x->k->swiglu_forward(x->k->ctx, EVERY_ROW(x->tokens), f, x->s.h_TF, gate_up);
    linear_forward(x, h, f, out, residual, x->s.h_TF, w->down);
}

void ffn_backward(const context *x, real *dy, ffn_tensors *g, const real *gate_up, const ffn_tensors *w,
                  const real *y, const real *dout) {
    const kernels *k = x->k;
    int64_t h = x->c.hidden_size, f = x->c.ffn_hidden_size, t = x->tokens;
    k->gemm(k->ctx, GEMM_NN, t, f, h, x->s.dh_TF, f, NULL, dout, h, w->down, f);
    k->swiglu_backward(k->ctx, EVERY_ROW(t), f, x->s.dgu_T2F, x->s.h_TF, NULL, x->s.dh_TF, gate_up, NULL);
    context_progress(x);
    linear_weight_gradient(x, h, f, g->down, dout, x->s.h_TF);
    linear_backward(x, 2 * f, h, dy, g->gate_up, x->s.dgu_T2F, y, w->gate_up);
}
