#include "model/scmoe.h"

#include "model/recheck.h"

void layer_saved_create(layer_saved *s, const places *a, const context *x) {
    const model_config *c = &x->c;
    arena *kept = a->kept, *shared = a->shared;
    size_t t = (size_t)(x->max_batch * x->max_seq) * sizeof(real), h = (size_t)c->hidden_size;
    s->x_TH = arena_alloc(kept, t * h);
    for (int i = 0; i < 2; i++) {
        s->n_TH[i] = arena_alloc(shared, t * h);
        s->rstd_n_T[i] = arena_alloc(shared, t);
        mla_saved_create(&s->mla[i], shared, x);
        s->y_TH[i] = arena_alloc(shared, t * h);
        s->rstd_y_T[i] = arena_alloc(shared, t);
        s->gate_up_T2F[i] = arena_alloc(shared, t * 2 * (size_t)c->ffn_hidden_size);
    }
    s->x1_TH = arena_alloc(shared, t * h);
    s->x2_TH = arena_alloc(shared, t * h);
    s->x3_TH = arena_alloc(shared, t * h);
    moe_saved_create(&s->moe, a, x);
    s->max_T = arena_alloc(kept, t);
    s->max_host_T = twin_place(x->k, a->host, s->max_T, t);
}

/* The dense path is cut into four parts, so that the MoE's steps can stand between them. */
static void attention_0(context *x, layer_saved *s, const layer_tensors *w) {
    norm_forward(x, s->n_TH[0], s->rstd_n_T[0], s->x_TH, w->input_norm[0]);
    mla_forward(x, s->x1_TH, s->x_TH, &s->mla[0], &w->mla[0], s->n_TH[0]);
    norm_forward(x, s->y_TH[0], s->rstd_y_T[0], s->x1_TH, w->post_norm[0]);
}
static void ffn_0(context *x, layer_saved *s, const layer_tensors *w) {
    ffn_forward(x, s->x2_TH, s->x1_TH, s->gate_up_T2F[0], &w->ffn[0], s->y_TH[0]);
}
static void attention_1(context *x, layer_saved *s, const layer_tensors *w) {
    norm_forward(x, s->n_TH[1], s->rstd_n_T[1], s->x2_TH, w->input_norm[1]);
    mla_forward(x, s->x3_TH, s->x2_TH, &s->mla[1], &w->mla[1], s->n_TH[1]);
    norm_forward(x, s->y_TH[1], s->rstd_y_T[1], s->x3_TH, w->post_norm[1]);
}
static void ffn_1(context *x, layer_saved *s, const layer_tensors *w, real *out) {
    ffn_forward(x, out, s->x3_TH, s->gate_up_T2F[1], &w->ffn[1], s->y_TH[1]);
}

/* Where the dense path stands between the mixture's steps, each is taken as soon as what it needs has come,
 * and otherwise when it is due: a rank that is late lets the others have their rows and answers at once, and
 * one that is early computes what needs nobody.  A backend that queues its work (not host memory) takes them
 * where they are due, because what has come says nothing about how far it is. */
static moe_stage due_at(const context *x, moe_stage stage) {
    return x->k->host_memory ? MOE_ROUTED : stage;
}

/* Would the next step wait for nobody? */
static int has_come(const context *x, const moe_saved *m) {
    if (!x->k->host_memory) return 0;
    return m->stage == MOE_ROUTED ? exchange_counts_came(&x->exchange) : exchange_rows_came(&x->exchange);
}

static void go_on(context *x, layer_saved *s, const layer_tensors *w, moe_stage due) {
    moe_saved *m = &s->moe;
    if (m->stage == MOE_ROUTED && (due >= MOE_SENT || has_come(x, m))) {
        TRACED(x, "dispatch", moe_dispatch(x, m, s->y_TH[0])); /* tokens travel */
        m->stage = MOE_SENT;
    }
    if (m->stage == MOE_SENT && (due >= MOE_ANSWERED || has_come(x, m))) {
        TRACED(x, "experts", moe_experts(x, m, w)); /* answers travel */
        m->stage = MOE_ANSWERED;
    }
}

/* The same in the backward, where tokens are on their way from the start. */
static void go_back(context *x, layer_saved *s, const layer_tensors *w, real *const *class_grad,
                    const int *class_of, moe_stage due) {
    moe_saved *m = &s->moe;
    if (m->stage == MOE_ANSWERED || (due < MOE_ANSWERED && !has_come(x, m))) return;
    TRACED(x, "experts", moe_backward_experts(x, m, w, class_grad, class_of));
    if (recheck_due(x)) moe_recheck(x, m, w);
    m->stage = MOE_ANSWERED;
}

void layer_forward(context *x, layer_saved *s, const layer_tensors *w, const real *bias, double loss_scale,
                   real *out) {
    moe_saved *m = &s->moe;
    /* such a backend is given the next part of the dense path before the host waits for what it has routed */
    int queues = !x->k->host_memory;
    if (x->c.moe_input == MOE_SHORTCUT && x->exchange.shape.ranks == 1) {
        /* nothing travels: the host plans while a device has the whole dense path to do */
        TRACED(x, "attention 0", attention_0(x, s, w));
        TRACED(x, "route", moe_route(x, m, w->router, bias, s->y_TH[0], loss_scale));
        TRACED(x, "FFN 0", ffn_0(x, s, w));
        TRACED(x, "attention 1", attention_1(x, s, w));
        TRACED(x, "FFN 1", ffn_1(x, s, w, out));
        TRACED(x, "counts", moe_announce(x, m));
        TRACED(x, "dispatch", moe_dispatch(x, m, s->y_TH[0]));
        TRACED(x, "experts", moe_experts(x, m, w));
        TRACED(x, "combine", moe_combine(x, m, out, w, s->y_TH[0]));
    } else if (x->c.moe_input == MOE_SHORTCUT) {
        TRACED(x, "attention 0", attention_0(x, s, w));
        TRACED(x, "route", moe_route(x, m, w->router, bias, s->y_TH[0], loss_scale));
        if (!queues) TRACED(x, "counts", moe_announce(x, m));
        m->stage = MOE_ROUTED;
        go_on(x, s, w, MOE_ROUTED);
        TRACED(x, "FFN 0", ffn_0(x, s, w));
        if (queues) TRACED(x, "counts", moe_announce(x, m));
        go_on(x, s, w, due_at(x, MOE_SENT));
        TRACED(x, "attention 1", attention_1(x, s, w));
        go_on(x, s, w, due_at(x, MOE_ANSWERED));
        TRACED(x, "FFN 1", ffn_1(x, s, w, out));
        go_on(x, s, w, MOE_ANSWERED);
        TRACED(x, "combine", moe_combine(x, m, out, w, s->y_TH[0]));
    } else {
        TRACED(x, "attention 0", attention_0(x, s, w));
        TRACED(x, "FFN 0", ffn_0(x, s, w));
        TRACED(x, "attention 1", attention_1(x, s, w));
        TRACED(x, "route", moe_route(x, m, w->router, bias, s->y_TH[1], loss_scale));
        if (!queues) TRACED(x, "counts", moe_announce(x, m));
        TRACED(x, "FFN 1", ffn_1(x, s, w, out)); /* all that the counts can hide behind */
        if (queues) TRACED(x, "counts", moe_announce(x, m));
        TRACED(x, "dispatch", moe_dispatch(x, m, s->y_TH[1]));
        TRACED(x, "experts", moe_experts(x, m, w));
        TRACED(x, "combine", moe_combine(x, m, out, w, s->y_TH[1]));
    }
}

/* Everything but routing and exchange once more; the layer's output is not needed. */
static void recompute(context *x, layer_saved *s, const layer_tensors *w) {
    attention_0(x, s, w);
    ffn_0(x, s, w);
    attention_1(x, s, w);
    linear_forward(x, 2 * x->c.ffn_hidden_size, x->c.hidden_size, s->gate_up_T2F[1], NULL, s->y_TH[1],
                   w->ffn[1].gate_up);
    moe_recompute(x, &s->moe, w);
}

void layer_backward(context *x, layer_saved *s, const layer_tensors *w, layer_tensors *g,
                    real *const *class_grad, const int *class_of, real *dx, real *const d[2]) {
    int shortcut = x->c.moe_input == MOE_SHORTCUT;
    /* dout stays where it is until the end, for the MoE needs it; dr becomes dx3, dx2, dx1 */
    real *dout = dx, *dr = d[0], *dy = d[1], *dn = x->s.dn_TH;

    if (x->c.recompute) TRACED(x, "recomputation", recompute(x, s, w));
    TRACED(x, "dispatch", moe_backward_dispatch(x, &s->moe, dout));
    s->moe.stage = MOE_SENT;
    go_back(x, s, w, class_grad, class_of, MOE_SENT);
    TRACED(x, "FFN 1", ffn_backward(x, dy, &g->ffn[1], s->gate_up_T2F[1], &w->ffn[1], s->y_TH[1], dout));
    if (!shortcut) {
        go_back(x, s, w, class_grad, class_of, MOE_ANSWERED);
        TRACED(x, "combine",
               moe_backward_combine(x, &s->moe, dy, g->router, w, class_grad, class_of, s->y_TH[1], dout));
    }
    go_back(x, s, w, class_grad, class_of, due_at(x, MOE_ANSWERED));
    norm_backward(x, dr, dout, g->post_norm[1], dy, s->x3_TH, s->rstd_y_T[1], w->post_norm[1]); /* dx3 */
    TRACED(x, "attention 1", mla_backward(x, dn, &g->mla[1], &s->mla[1], &w->mla[1], s->n_TH[1], dr));
    if (recheck_due(x)) mla_recheck(x, 1, &s->mla[1]);
    go_back(x, s, w, class_grad, class_of, MOE_SENT);
    norm_backward(x, dr, dr, g->input_norm[1], dn, s->x2_TH, s->rstd_n_T[1], w->input_norm[1]); /* dx2 */
    TRACED(x, "FFN 0", ffn_backward(x, dy, &g->ffn[0], s->gate_up_T2F[0], &w->ffn[0], s->y_TH[0], dr));
    if (shortcut) {
        go_back(x, s, w, class_grad, class_of, MOE_ANSWERED);
        TRACED(x, "combine",
               moe_backward_combine(x, &s->moe, dy, g->router, w, class_grad, class_of, s->y_TH[0], dout));
    }
    norm_backward(x, dr, dr, g->post_norm[0], dy, s->x1_TH, s->rstd_y_T[0], w->post_norm[0]); /* dx1 */
    TRACED(x, "attention 0", mla_backward(x, dn, &g->mla[0], &s->mla[0], &w->mla[0], s->n_TH[0], dr));
    if (recheck_due(x)) mla_recheck(x, 0, &s->mla[0]);
    norm_backward(x, dx, dr, g->input_norm[0], dn, s->x_TH, s->rstd_n_T[0], w->input_norm[0]);
}
