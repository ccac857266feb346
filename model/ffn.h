/* The dense SwiGLU FFN: down(silu(gate x) * up x). */
#ifndef CARACAL_MODEL_FFN_H
#define CARACAL_MODEL_FFN_H

#include "model/context.h"
#include "model/params.h"

/* out_TH = residual_TH + FFN(y_TH); gate_up_T2F [T, 2F] is kept for the backward. */
void ffn_forward(const context *x, real *out_TH, const real *residual_TH, real *gate_up_T2F,
                 const ffn_tensors *w, const real *y_TH);
/* dy_TH = gradient of the input; g: gradients of the weights, = or += as x->accumulate says. */
void ffn_backward(const context *x, real *dy_TH, ffn_tensors *g, const real *gate_up_T2F,
                  const ffn_tensors *w, const real *y_TH, const real *dout_TH);

#endif
