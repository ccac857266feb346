#include "model/moe.h"

#include "model/recheck.h"

/* Of count_E, sum_E and index_TK together, which lie behind one another: the host gets them at once. */
static size_t table_bytes(const model_config *c, int64_t tokens) {
    return (size_t)experts_total(c) * (sizeof(int64_t) + sizeof(real)) +
           (size_t)(tokens * c->moe_topk) * sizeof(int32_t);
}

static void *behind(void *p, size_t bytes) {
    return p ? (char *)p + bytes : NULL; /* where an arena only measures */
}

void moe_saved_create(moe_saved *s, const places *a, const context *x) {
    const model_config *c = &x->c;
    const exchange_shape *e = &x->exchange.shape;
    arena *kept = a->kept;
    size_t t = (size_t)e->tokens, q = (size_t)e->capacity, n = (size_t)experts_total(c),
           k = (size_t)c->moe_topk;
    s->prob_TE = arena_alloc(kept, t * n * sizeof(real));
    s->weight_TK = arena_alloc(kept, t * k * sizeof(real));
    s->count_E = arena_alloc(kept, table_bytes(c, e->tokens));
    s->sum_E = behind(s->count_E, n * sizeof *s->count_E);
    s->index_TK = behind(s->sum_E, n * sizeof *s->sum_E);
    s->stats.count_E = twin_place(x->k, a->host, s->count_E, table_bytes(c, e->tokens));
    s->stats.dprob_sum_E = behind(s->stats.count_E, n * sizeof *s->count_E);
    s->index_host = behind(s->stats.dprob_sum_E, n * sizeof *s->sum_E);
    exchange_plan_create(&s->plan, kept, a->host, e, x->k);
    s->x_QH = arena_alloc(kept, q * (size_t)c->hidden_size * sizeof(real));
    s->weight_Q = arena_alloc(kept, q * sizeof(real));
    s->gate_up_Q2F = arena_alloc(a->shared, q * 2 * (size_t)c->expert_ffn_hidden_size * sizeof(real));
}

void moe_scratch_create(context *x, const places *in) {
    const model_config *c = &x->c;
    const exchange_shape *e = &x->exchange.shape;
    size_t t = (size_t)e->tokens * sizeof(real), q = (size_t)e->capacity * sizeof(real),
           h = (size_t)c->hidden_size, f = (size_t)c->expert_ffn_hidden_size, n = (size_t)experts_total(c);
    model_scratch *s = &x->s;
    arena *a = in->shared;
    s->logits_TE = arena_alloc(a, t * n);
    s->dlogits_TE = arena_alloc(a, t * n);
    s->dweight_TK = arena_alloc(a, t * (size_t)c->moe_topk);
    s->lb_grad_E = arena_alloc(a, n * sizeof(real));
    s->lb_grad_host = twin_place(x->k, in->host, s->lb_grad_E, n * sizeof(real));
    s->h_QF = arena_alloc(a, q * f);
    s->y_QH = arena_alloc(a, q * h);
    s->dy_QH = arena_alloc(a, q * h);
    s->dh_QF = arena_alloc(a, q * f);
    s->dgu_Q2F = arena_alloc(a, q * 2 * f);
    s->dx_QH = arena_alloc(a, q * h);
    s->dweight_Q = arena_alloc(a, q);
    s->segments = arena_alloc(in->host, (size_t)e->experts * sizeof *s->segments);
    if (e->max_rounds > 1) {
        s->over_x_QH = arena_alloc(a, q * h);
        s->over_weight_Q = arena_alloc(a, q);
        s->over_gate_up_Q2F = arena_alloc(a, q * 2 * f);
    }
}

/* ---- router ---- */

double moe_lb_group(const model_config *c, const router_config *r, const int64_t *count, double tokens,
                    int64_t j, int64_t *first, int64_t *end) {
    int64_t n = c->n_routed_experts, d = r->lb_groups;
    double ke = r->expected_ffn_experts, selected = 0;
    double budget = j < d ? ke / (double)d : (double)c->moe_topk - ke;
    *first = j < d ? j * (n / d) : n;
    *end = j < d ? *first + n / d : n + c->zero_expert_num;
    for (int64_t i = *first; i < *end; i++) selected += (double)count[i];
    return budget > 0 ? selected / (budget * tokens) : 0;
}

/* Sum over groups of f_j P_j (Eq. 3), P_j the group's mean probability. */
static double lb_loss(const context *x, const moe_stats *s, const real *prob_sum) {
    double loss = 0;
    for (int64_t j = 0, first, end; j <= x->router.lb_groups; j++) {
        double f = moe_lb_group(&x->c, &x->router, s->count_E, (double)x->tokens, j, &first, &end),
               probability = 0;
        for (int64_t i = first; i < end; i++) probability += (double)prob_sum[i];
        loss += f * probability / (double)x->tokens;
    }
    return loss;
}

/* Its gradient on every token's probabilities, in the step's loss. */
static void lb_gradient(const context *x, const moe_saved *s, real *lb_grad) {
    for (int64_t j = 0, first, end; j <= x->router.lb_groups; j++) {
        double f = moe_lb_group(&x->c, &x->router, s->stats.count_E, (double)x->tokens, j, &first, &end);
        real cost = (real)(s->loss_scale * x->router.lb_alpha * f / (double)x->tokens);
        for (int64_t i = first; i < end; i++) lb_grad[i] = cost;
    }
}

void moe_route(context *x, moe_saved *s, const real *router, const real *bias, const real *y,
               double loss_scale) {
    const model_config *c = &x->c;
    const kernels *k = x->k;
    router_shape shape = {x->tokens, c->n_routed_experts, c->zero_expert_num, c->moe_topk,
                          c->routed_scaling_factor};
    int64_t experts = experts_total(c), h = c->hidden_size;
    k->gemm_float32(k->ctx, GEMM_NT, x->tokens, experts, h, x->s.logits_TE, experts, NULL, y, h, router, h);
    context_progress(x);
    k->router_forward(k->ctx, shape, s->prob_TE, s->index_TK, s->weight_TK, s->count_E, s->sum_E,
                      x->s.logits_TE, bias);
    /* the sums' twin is free for that of the gradients until the backward */
    twin_fetch(k, s->stats.count_E, s->count_E, table_bytes(c, x->tokens));
    s->loss_scale = loss_scale;
}

void moe_announce(context *x, moe_saved *s) {
    twin_fetched(x->k);
    exchange_announce(&x->exchange, &s->plan, s->index_host, x->tokens);
}

static void router_backward(context *x, moe_saved *s, real *dy, real *router_grad, const layer_tensors *w,
                            const real *y) {
    const model_config *c = &x->c;
    const kernels *k = x->k;
    int64_t n = experts_total(c), h = c->hidden_size;
    router_shape shape = {x->tokens, c->n_routed_experts, c->zero_expert_num, c->moe_topk,
                          c->routed_scaling_factor};
    lb_gradient(x, s, x->s.lb_grad_host);
    twin_write(k, x->s.lb_grad_E, x->s.lb_grad_host, (size_t)n * sizeof *x->s.lb_grad_E);
    k->router_backward(k->ctx, shape, x->s.dlogits_TE, s->sum_E, x->s.dweight_TK, s->prob_TE, s->index_TK,
                       x->s.lb_grad_E);
    const real *dlogits = x->s.dlogits_TE;
    k->gemm_float32(k->ctx, GEMM_NN, x->tokens, h, n, dy, h, dy, dlogits, n, w->router, h);
    context_progress(x);
    k->gemm_float32(k->ctx, GEMM_TN, n, h, x->tokens, router_grad, h, x->accumulate ? router_grad : NULL,
                    dlogits, n, y, h);
    context_progress(x);
}

/* ---- expert FFNs ---- */

/* gate, up and output of the rows of `n` segments. */
static void experts_forward(const context *x, const layer_tensors *w, int64_t n, const segment *seg, real *y,
                            real *gate_up, const real *rows) {
    const kernels *k = x->k;
    int64_t h = x->c.hidden_size, f = x->c.expert_ffn_hidden_size;
    k->grouped_gemm(k->ctx, GEMM_NT, n, seg, 2 * f, h, gate_up, rows, w->experts.gate_up, w->expert_stride);
    if (flip_due(x->flip, FLIP_GEMM, x->layer) && n)
        context_flip(x, x->flip, "the experts' gate and up", gate_up + seg[0].row * 2 * f,
                     seg[0].rows * 2 * f);
    if (!y) return;
    k->swiglu_forward(k->ctx, n, seg, f, x->s.h_QF, gate_up);
    k->grouped_gemm(k->ctx, GEMM_NT, n, seg, h, f, y, x->s.h_QF, w->experts.down, w->expert_stride);
}

static void experts_backward(const context *x, const layer_tensors *w, int64_t n, const segment *seg,
                             const real *gate_up, const real *weight) {
    const kernels *k = x->k;
    const model_scratch *s = &x->s;
    int64_t h = x->c.hidden_size, f = x->c.expert_ffn_hidden_size;
    k->grouped_gemm(k->ctx, GEMM_NN, n, seg, f, h, s->dh_QF, s->dy_QH, w->experts.down, w->expert_stride);
    k->swiglu_backward(k->ctx, n, seg, f, s->dgu_Q2F, s->h_QF, s->dweight_Q, s->dh_QF, gate_up, weight);
    k->grouped_gemm(k->ctx, GEMM_NN, n, seg, h, 2 * f, s->dx_QH, s->dgu_Q2F, w->experts.gate_up,
                    w->expert_stride);
}

/* Weight gradients of a whole round, class by class. */
static void experts_weight_gradients(const context *x, const moe_saved *s, int64_t r, const layer_tensors *w,
                                     const real *rows, real *const *class_grad, const int *class_of) {
    const kernels *k = x->k;
    int64_t h = x->c.hidden_size, f = x->c.expert_ffn_hidden_size;
    for (int class = 0; class < x->mesh->replica_classes; class ++) {
        if (!class_grad[class]) continue;
        real *gate_up = class_grad[class], *down = gate_up + 2 * f * h;
        int64_t n = exchange_segments(&x->exchange, &s->plan, r, -1, class_of, class, x->s.segments);
        k->grouped_gemm_dw(k->ctx, n, x->s.segments, 2 * f, h, gate_up, w->expert_stride, x->s.dgu_Q2F, rows);
        k->grouped_gemm_dw(k->ctx, n, x->s.segments, h, f, down, w->expert_stride, x->s.dy_QH, x->s.h_QF);
    }
}

/* ---- forward ---- */

/* What is watched of the router's choices. */
static void count_choices(const context *x, moe_saved *s) {
    int64_t topk = x->c.moe_topk;
    s->stats.lb = lb_loss(x, &s->stats, s->stats.dprob_sum_E);
    s->stats.ffn_sum = s->stats.ffn_sum_sq = 0;
    for (int64_t t = 0; t < x->tokens; t++) {
        int64_t ffn = 0;
        for (int64_t i = 0; i < topk; i++) ffn += s->index_host[t * topk + i] < x->c.n_routed_experts;
        s->stats.ffn_sum += ffn;
        s->stats.ffn_sum_sq += ffn * ffn;
    }
}

void moe_dispatch(context *x, moe_saved *s, const real *y) {
    exchange_plan_finish(&x->exchange, &s->plan, s->index_host);
    for (int64_t c = 0; c < x->exchange.shape.chunks; c++)
        exchange_dispatch(&x->exchange, &s->plan, 0, c, y, s->weight_TK);
    count_choices(x, s); /* here and not with the routing, after which a device has nothing to do */
}

static void piece_forward(context *x, moe_saved *s, int64_t r, int64_t c, const layer_tensors *w, real *rows,
                          real *weight, real *gate_up) {
    exchange_arrive(&x->exchange, &s->plan, r, c, rows, weight);
    int64_t n = exchange_segments(&x->exchange, &s->plan, r, c, NULL, 0, x->s.segments);
    experts_forward(x, w, n, x->s.segments, x->s.y_QH, gate_up, rows);
    exchange_give_back(&x->exchange, &s->plan, r, c, x->s.y_QH, NULL);
}

void moe_experts(context *x, moe_saved *s, const layer_tensors *w) {
    for (int64_t c = 0; c < x->exchange.shape.chunks; c++)
        piece_forward(x, s, 0, c, w, s->x_QH, s->weight_Q, s->gate_up_Q2F);
}

void moe_combine(context *x, moe_saved *s, real *out, const layer_tensors *w, const real *y) {
    const model_config *c = &x->c;
    const kernels *k = x->k;
    int64_t chunks = x->exchange.shape.chunks;
    for (int64_t i = 0; i < chunks; i++) exchange_collect(&x->exchange, &s->plan, 0, i, 0);
    for (int64_t r = 1; r < s->plan.rounds; r++) { /* rows past the capacity: nothing of them is kept */
        for (int64_t i = 0; i < chunks; i++) exchange_dispatch(&x->exchange, &s->plan, r, i, y, s->weight_TK);
        for (int64_t i = 0; i < chunks; i++)
            piece_forward(x, s, r, i, w, x->s.over_x_QH, x->s.over_weight_Q, x->s.over_gate_up_Q2F);
        for (int64_t i = 0; i < chunks; i++) exchange_collect(&x->exchange, &s->plan, r, i, 0);
    }
    k->combine_forward(k->ctx, x->tokens, c->hidden_size, c->moe_topk, out, x->exchange.answer_SH,
                       s->plan.row_of, s->weight_TK, y);
}

void moe_recompute(context *x, moe_saved *s, const layer_tensors *w) {
    int64_t n = exchange_segments(&x->exchange, &s->plan, 0, -1, NULL, 0, x->s.segments);
    experts_forward(x, w, n, x->s.segments, NULL, s->gate_up_Q2F, s->x_QH);
}

/* ---- backward ---- */

void moe_backward_dispatch(context *x, moe_saved *s, const real *dout) {
    for (int64_t c = 0; c < x->exchange.shape.chunks; c++)
        exchange_dispatch(&x->exchange, &s->plan, 0, c, dout, NULL);
}

static void piece_backward(context *x, moe_saved *s, int64_t r, int64_t c, const layer_tensors *w,
                           const real *gate_up, const real *weight) {
    exchange_arrive(&x->exchange, &s->plan, r, c, x->s.dy_QH, NULL);
    int64_t n = exchange_segments(&x->exchange, &s->plan, r, c, NULL, 0, x->s.segments);
    experts_backward(x, w, n, x->s.segments, gate_up, weight);
    exchange_give_back(&x->exchange, &s->plan, r, c, x->s.dx_QH, x->s.dweight_Q);
}

void moe_backward_experts(context *x, moe_saved *s, const layer_tensors *w, real *const *class_grad,
                          const int *class_of) {
    for (int64_t c = 0; c < x->exchange.shape.chunks; c++)
        piece_backward(x, s, 0, c, w, s->gate_up_Q2F, s->weight_Q);
    experts_weight_gradients(x, s, 0, w, s->x_QH, class_grad, class_of);
}

/* One product of all kept rows once more, compared expert by expert. */
static void product_again(const context *x, const char *tensor, gemm_form form, int64_t n, const segment *seg,
                          int64_t cols, int64_t depth, const real *first, const real *a, const real *w,
                          int64_t stride) {
    const kernels *k = x->k;
    int64_t local = x->c.n_routed_experts / x->mesh->expert_parallel;
    real *again = x->recheck->rows_Q;
    k->grouped_gemm(k->ctx, form, n, seg, cols, depth, again, a, w, stride);
    for (int64_t i = 0; i < n; i++)
        recheck_compare(x, "expert", x->mesh->expert_rank * local + seg[i].expert, tensor, seg[i].rows, cols,
                        cols, first + seg[i].row * cols, again + seg[i].row * cols);
}

void moe_recheck(context *x, const moe_saved *s, const layer_tensors *w) {
    const model_scratch *o = &x->s;
    int64_t h = x->c.hidden_size, f = x->c.expert_ffn_hidden_size, stride = w->expert_stride;
    int64_t n = exchange_segments(&x->exchange, &s->plan, 0, -1, NULL, 0, o->segments);
    product_again(x, "gate and up", GEMM_NT, n, o->segments, 2 * f, h, s->gate_up_Q2F, s->x_QH,
                  w->experts.gate_up, stride);
    product_again(x, "gradient of h", GEMM_NN, n, o->segments, f, h, o->dh_QF, o->dy_QH, w->experts.down,
                  stride);
    product_again(x, "gradient of x", GEMM_NN, n, o->segments, h, 2 * f, o->dx_QH, o->dgu_Q2F,
                  w->experts.gate_up, stride);
}

/* Rows past the capacity: they come once more, are run forward again, and then backward. */
static void backward_round(context *x, moe_saved *s, int64_t r, const layer_tensors *w,
                           real *const *class_grad, const int *class_of, const real *y, const real *dout) {
    int64_t chunks = x->exchange.shape.chunks;
    model_scratch *o = &x->s;
    for (int64_t c = 0; c < chunks; c++) exchange_dispatch(&x->exchange, &s->plan, r, c, y, s->weight_TK);
    for (int64_t c = 0; c < chunks; c++)
        exchange_arrive(&x->exchange, &s->plan, r, c, o->over_x_QH, o->over_weight_Q);
    int64_t n = exchange_segments(&x->exchange, &s->plan, r, -1, NULL, 0, o->segments);
    experts_forward(x, w, n, o->segments, NULL, o->over_gate_up_Q2F, o->over_x_QH);
    for (int64_t c = 0; c < chunks; c++) exchange_dispatch(&x->exchange, &s->plan, r, c, dout, NULL);
    for (int64_t c = 0; c < chunks; c++) piece_backward(x, s, r, c, w, o->over_gate_up_Q2F, o->over_weight_Q);
    experts_weight_gradients(x, s, r, w, o->over_x_QH, class_grad, class_of);
    for (int64_t c = 0; c < chunks; c++) exchange_collect(&x->exchange, &s->plan, r, c, 1);
}

void moe_backward_combine(context *x, moe_saved *s, real *dy, real *router_grad, const layer_tensors *w,
                          real *const *class_grad, const int *class_of, const real *y, const real *dout) {
    const model_config *c = &x->c;
    const kernels *k = x->k;
    for (int64_t i = 0; i < x->exchange.shape.chunks; i++) exchange_collect(&x->exchange, &s->plan, 0, i, 1);
    for (int64_t r = 1; r < s->plan.rounds; r++) backward_round(x, s, r, w, class_grad, class_of, y, dout);
    k->combine_backward(k->ctx, x->tokens, c->hidden_size, c->moe_topk, dy, x->s.dweight_TK, dout,
                        x->exchange.answer_SH, x->exchange.answer_weight_S, s->plan.row_of, s->weight_TK, y);
    router_backward(x, s, dy, router_grad, w, y);
}

void moe_read_stats(const context *x, moe_saved *s) {
    twin_fetch(x->k, s->stats.dprob_sum_E, s->sum_E, (size_t)experts_total(&x->c) * sizeof *s->sum_E);
}
