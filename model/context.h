/* What every part of the model works with: the kernels, the ranks, the sizes of the micro-batch at hand, and
 * scratch that lives for one call.
 *
 * Suffixes of names: T tokens of the micro-batch, H hidden, F inner size of an FFN, E = N + Z experts, K
 * chosen, R = q_lora + kv_lora + rope, Q rows of a holder (capacity), V vocabulary.
 */
#ifndef CARACAL_MODEL_CONTEXT_H
#define CARACAL_MODEL_CONTEXT_H

#include "kernels/twin.h"
#include "launch/mesh.h"
#include "model/config.h"
#include "model/exchange.h"

/* Where things are placed: activations that survive recomputation, those that need not, rows that travel to
 * other ranks, and what is the host's alone (where the backend's memory is the host's, that lies among the
 * first). */
typedef struct places {
    arena *kept, *shared, *sent, *host;
} places;

/* Scratch of one call, shared by all layers; contents mean nothing between calls. */
typedef struct model_scratch {
    /* attention, backward */
    real *da_TR, *d_o_T, *dq_T, *dkv_T, *dcq_T, *dckv_T;
    /* FFN and norm */
    real *h_TF, *dh_TF, *dgu_T2F, *dn_TH;
    /* router */
    real *logits_TE, *dlogits_TE, *dweight_TK, *lb_grad_E, *lb_grad_host;
    /* experts: rows of this holder */
    real *h_QF, *y_QH, *dy_QH, *dh_QF, *dgu_Q2F, *dx_QH, *dweight_Q;
    segment *segments; /* host memory */
    /* rows past the capacity pass through here, round by round */
    real *over_x_QH, *over_weight_Q, *over_gate_up_Q2F;
} model_scratch;

struct recheck;

typedef struct context {
    const kernels *k;
    const mesh *mesh;
    transport *transport; /* among the ranks that share the experts */
    model_config c;
    router_config router;
    loss_config loss;
    int64_t batch, seq, tokens; /* of the micro-batch at hand; tokens = batch * seq */
    int64_t past;               /* tokens before it, when text is continued (model_extend); 0 in training */
    int64_t max_batch, max_seq; /* what the arenas have room for */
    int accumulate;             /* gradients of dense weights are added to (+=) instead of overwritten (=) */
    const int32_t *first_key;   /* [T] where each token's document starts, NULL: one document */
    real *cosine, *sine;        /* [max_seq, rope / 2] */
    exchange exchange;
    model_scratch s;
    int64_t layer;           /* at work; -1: none */
    struct recheck *recheck; /* which layer is computed twice (model/recheck.h); NULL: none ever */
    const bit_flip *flip;    /* tests only */
} context;

/* What follows is the work of layer l (-1: of none): messages about it name the layer. */
static inline void context_enter_layer(context *x, int64_t l) {
    x->layer = l;
    comm_at_layer(x->mesh->world, l);
}

/* A call, and a span of the timeline where one is taken (launch/trace.h). */
#define TRACED(x, name, call)                                                                                \
    do {                                                                                                     \
        trace *timeline = comm_trace((x)->mesh->world);                                                      \
        double span_began = trace_begin(timeline);                                                           \
        call;                                                                                                \
        trace_end(timeline, name, (x)->layer, span_began);                                                   \
    } while (0)

static inline int64_t attention_rank(const model_config *c) {
    return c->q_lora_rank + c->kv_lora_rank + c->qk_rope_head_dim;
}
static inline int64_t experts_total(const model_config *c) {
    return c->n_routed_experts + c->zero_expert_num;
}

/* Lets messages move; called between kernels. */
static inline void context_progress(const context *x) {
    comm_progress(x->mesh->experts);
}

/* The tests' switch, on a tensor in the backend's memory. */
static inline void context_flip(const context *x, const bit_flip *f, const char *what, real *data,
                                int64_t elements) {
    const kernels *k = x->k;
    real element;
    if (!elements) return;
    int64_t i = flip_element(f, elements);
    k->to_host(k->ctx, &element, data + i, sizeof element);
    flip_strike(f, what, i, &element, sizeof element);
    k->to_device(k->ctx, data + i, &element, sizeof element);
}

/* Linear layers over the micro-batch's rows.  w [out, in].
 * forward: y = d + x W^T (d may be NULL, or a residual);  backward: dx = dy W,  dw = (+=) dy^T x. */
static inline void linear_forward(const context *x, int64_t out, int64_t in, real *y, const real *d,
                                  const real *rows, const real *w) {
    x->k->gemm(x->k->ctx, GEMM_NT, x->tokens, out, in, y, out, d, rows, in, w, in);
    context_progress(x);
}
static inline void linear_weight_gradient(const context *x, int64_t out, int64_t in, real *dw, const real *dy,
                                          const real *rows) {
    x->k->gemm(x->k->ctx, GEMM_TN, out, in, x->tokens, dw, in, x->accumulate ? dw : NULL, dy, out, rows, in);
    context_progress(x);
}
static inline void linear_backward(const context *x, int64_t out, int64_t in, real *dx, real *dw,
                                   const real *dy, const real *rows, const real *w) {
    x->k->gemm(x->k->ctx, GEMM_NN, x->tokens, in, out, dx, in, NULL, dy, out, w, in);
    context_progress(x);
    linear_weight_gradient(x, out, in, dw, dy, rows);
}

static inline void norm_forward(const context *x, real *y, real *rstd, const real *rows, const real *w) {
    int64_t h = x->c.hidden_size;
    x->k->rms_norm_forward(x->k->ctx, x->tokens, h, x->c.rms_norm_eps, 1.0, y, h, rstd, rows, h, w);
}
/* dx = d + ..., dw [cols] = (+=): rows of any width and distance */
static inline void norm_backward_strided(const context *x, int64_t cols, double scale, real *dx, int64_t lddx,
                                         const real *d, real *dw, const real *dy, int64_t lddy,
                                         const real *rows, int64_t ldx, const real *rstd, const real *w) {
    x->k->rms_norm_backward(x->k->ctx, x->tokens, cols, scale, dx, lddx, d, dw, x->accumulate, dy, lddy, rows,
                            ldx, rstd, w);
}
static inline void norm_backward(const context *x, real *dx, const real *d, real *dw, const real *dy,
                                 const real *rows, const real *rstd, const real *w) {
    int64_t h = x->c.hidden_size;
    norm_backward_strided(x, h, 1.0, dx, h, d, dw, dy, h, rows, h, rstd, w);
}

#endif
