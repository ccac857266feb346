/* One layer: two latent attentions, two dense FFNs and one mixture of experts that either starts from y1 (the
 * shortcut) or from y3 (sequential, the baseline):
 *
 *     x1 = x  + MLA0(norm(x))       y1 = norm(x1)
 *     x2 = x1 + FFN0(y1)
 *     x3 = x2 + MLA1(norm(x2))      y3 = norm(x3)
 *     out = x3 + FFN1(y3) + MoE(y1 or y3)
 */
#ifndef CARACAL_MODEL_SCMOE_H
#define CARACAL_MODEL_SCMOE_H

#include "model/ffn.h"
#include "model/mla.h"
#include "model/moe.h"

typedef struct layer_saved {
    real *x_TH;                  /* the layer's input */
    real *n_TH[2], *rstd_n_T[2]; /* norm(x), norm(x2) */
    mla_saved mla[2];
    real *x1_TH, *x2_TH, *x3_TH;
    real *y_TH[2], *rstd_y_T[2]; /* y1, y3 */
    real *gate_up_T2F[2];
    moe_saved moe;
    real *max_T, *max_host_T; /* largest |element| of each row of the layer's output, and the twin */
} layer_saved;

/* Under recomputation what lies in a->shared may be the same memory for all layers. */
void layer_saved_create(layer_saved *s, const places *a, const context *x);

/* out_TH = the layer's output for input s->x_TH.  bias_E: the router's bias. */
void layer_forward(context *x, layer_saved *s, const layer_tensors *w, const real *bias_E, double loss_scale,
                   real *out_TH);

/* dx_TH: on entry the gradient of the layer's output, on return that of its input.  g: gradients of the dense
 * weights, = or += as x->accumulate says; experts' gradients are added to class_grad[class] (model/moe.h).
 * d_TH: two scratch matrices. */
void layer_backward(context *x, layer_saved *s, const layer_tensors *w, layer_tensors *g,
                    real *const *class_grad, const int *class_of, real *dx_TH, real *const d_TH[2]);

#endif
