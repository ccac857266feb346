/* Every backward of the ref backend, in double, against central differences of its forward. */
#include "tests/gradients.h"

/* ---- matrix products ---- */

typedef struct gemm_case {
    gemm_form form;
    int64_t m, n, k;
    real *a, *b, *d, *c, *dc;
} gemm_case;

static double gemm_scalar(const kernels *k, const void *p) {
    const gemm_case *g = p;
    int64_t lda = g->form == GEMM_TN ? g->m : g->k, ldb = g->form == GEMM_NT ? g->k : g->n;
    k->gemm(k->ctx, g->form, g->m, g->n, g->k, g->c, g->n, g->d, g->a, lda, g->b, ldb);
    return dot(g->m * g->n, g->c, g->dc);
}

/* The gradients of y = x W^T as the model takes them: dx = dy W, dW = dy^T x. */
static void test_gemm(void **state) {
    bench *b = *state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        begin(b, seed);
        int64_t m = 5, n = 7, k = 300;
        gemm_case g = {
            GEMM_NT,         m, n, k, values(b, m * k), values(b, n * k), values(b, m * n), zeros(b, m * n),
            values(b, m * n)};
        real *dx = zeros(b, m * k), *dw = zeros(b, n * k);
        const kernels *kn = &b->k;
        kn->gemm(kn->ctx, GEMM_NN, m, k, n, dx, k, NULL, g.dc, n, g.b, k);
        kn->gemm(kn->ctx, GEMM_TN, n, k, m, dw, k, NULL, g.dc, n, g.a, k);
        check_gradient(b, "gemm dx", gemm_scalar, &g, m * k, g.a, dx);
        check_gradient(b, "gemm dw", gemm_scalar, &g, n * k, g.b, dw);
        check_gradient(b, "gemm d", gemm_scalar, &g, m * n, g.d, g.dc);
        end(b);
    }
}

static const segment runs[] = {{0, 3, 2}, {3, 0, 0}, {3, 4, 1}, {7, 1, 2}};
enum { RUNS = 4, RUN_ROWS = 8, EXPERTS = 3 };

typedef struct grouped_case {
    int64_t n, k;
    real *a, *w, *c, *dc;
} grouped_case;

static double grouped_scalar(const kernels *k, const void *p) {
    const grouped_case *g = p;
    k->grouped_gemm(k->ctx, GEMM_NT, RUNS, runs, g->n, g->k, g->c, g->a, g->w, g->n * g->k);
    return dot(RUN_ROWS * g->n, g->c, g->dc);
}

static void test_grouped_gemm(void **state) {
    bench *b = *state;
    const kernels *k = &b->k;
    begin(b, 4);
    int64_t n = 5, c = 6;
    grouped_case g = {n,
                      c,
                      values(b, RUN_ROWS * c),
                      values(b, EXPERTS * n * c),
                      zeros(b, RUN_ROWS * n),
                      values(b, RUN_ROWS * n)};
    real *dx = zeros(b, RUN_ROWS * c), *dw = zeros(b, EXPERTS * n * c);
    k->grouped_gemm(k->ctx, GEMM_NN, RUNS, runs, c, n, dx, g.dc, g.w, n * c);
    k->grouped_gemm_dw(k->ctx, RUNS, runs, n, c, dw, n * c, g.dc, g.a);
    check_gradient(b, "grouped_gemm dx", grouped_scalar, &g, RUN_ROWS * c, g.a, dx);
    check_gradient(b, "grouped_gemm dw", grouped_scalar, &g, EXPERTS * n * c, g.w, dw);
    end(b);
}

/* ---- norm and RoPE ---- */

enum { ROWS = 5, COLS = 9, LD = 13 };

typedef struct norm_case {
    real *x, *w, *y, *rstd, *dy;
} norm_case;

static double norm_scalar(const kernels *k, const void *p) {
    const norm_case *c = p;
    k->rms_norm_forward(k->ctx, ROWS, COLS, 1e-3, 1.7, c->y, LD, c->rstd, c->x, LD, c->w);
    double sum = 0;
    for (int i = 0; i < ROWS; i++) sum += dot(COLS, c->y + i * LD, c->dy + i * LD);
    return sum;
}

static void test_rms_norm(void **state) {
    bench *b = *state;
    const kernels *k = &b->k;
    begin(b, 5);
    norm_case c = {values(b, ROWS * LD), values(b, COLS), zeros(b, ROWS * LD), zeros(b, ROWS),
                   values(b, ROWS * LD)};
    real *dx = zeros(b, ROWS * LD), *dw = zeros(b, COLS), *other = values(b, ROWS * LD),
         *sum = zeros(b, ROWS * LD);
    norm_scalar(k, &c);
    k->rms_norm_backward(k->ctx, ROWS, COLS, 1.7, dx, LD, NULL, dw, 0, c.dy, LD, c.x, LD, c.rstd, c.w);
    check_gradient(b, "rms_norm dx", norm_scalar, &c, ROWS * LD, c.x, dx); /* between the rows: 0 */
    check_gradient(b, "rms_norm dw", norm_scalar, &c, COLS, c.w, dw);
    k->rms_norm_backward(k->ctx, ROWS, COLS, 1.7, sum, LD, other, dw, 0, c.dy, LD, c.x, LD, c.rstd, c.w);
    for (int i = 0; i < ROWS * LD; i++)
        if (i % LD < COLS) assert_true(fabs(sum[i] - dx[i] - other[i]) < 1e-14);
    k->rms_norm_backward(k->ctx, ROWS, COLS, 1.7, other, LD, other, dw, 0, c.dy, LD, c.x, LD, c.rstd, c.w);
    for (int i = 0; i < ROWS * LD; i++)
        if (i % LD < COLS) assert_true(sum[i] == other[i]);
    end(b);
}

enum { SEQ = 3, HEADS = 2, PAIRS = 2, STRIDE = 6, WIDTH = 14 };

typedef struct rope_case {
    real *x, *y, *cosine, *sine, *dy;
} rope_case;

static double rope_scalar(const kernels *k, const void *p) {
    const rope_case *c = p;
    memcpy(c->y, c->x, 2 * SEQ * WIDTH * sizeof *c->x);
    k->rope(k->ctx, 2 * SEQ, SEQ, HEADS, PAIRS, 0, c->y, WIDTH, STRIDE, c->cosine, c->sine);
    return dot(2 * SEQ * WIDTH, c->y, c->dy);
}

static void test_rope(void **state) {
    bench *b = *state;
    begin(b, 6);
    int64_t n = 2 * SEQ * WIDTH;
    rope_case c = {values(b, n), zeros(b, n), values(b, SEQ * PAIRS), values(b, SEQ * PAIRS), values(b, n)};
    real *dx = zeros(b, n);
    memcpy(dx, c.dy, (size_t)n * sizeof *dx);
    b->k.rope(b->k.ctx, 2 * SEQ, SEQ, HEADS, PAIRS, 1, dx, WIDTH, STRIDE, c.cosine, c.sine);
    check_gradient(b, "rope", rope_scalar, &c, n, c.x, dx);
    end(b);
}

/* ---- attention ---- */

typedef struct attention_case {
    attention_shape s;
    int64_t ld;
    real *q, *kv, *k_rope, *o, *lse, *d_o;
    const int32_t *first_key;
} attention_case;

static double attention_scalar(const kernels *k, const void *p) {
    const attention_case *c = p;
    k->attention_forward(k->ctx, c->s, c->o, c->lse, c->q, c->kv, c->k_rope, c->ld, c->first_key);
    return dot(c->s.batch * c->s.seq * c->s.heads * c->s.v, c->o, c->d_o);
}

static void test_attention(void **state) {
    bench *b = *state;
    const kernels *k = &b->k;
    for (uint64_t seed = 7; seed < 11; seed++) {
        begin(b, seed);
        attention_shape s = {2, seed % 2 ? 7 : 67, 2, 4, seed == 9 ? 0 : 2, 3, 0};
        int64_t t = s.batch * s.seq, wq = s.heads * (s.nope + s.rope), wkv = s.heads * (s.nope + s.v);
        int64_t ld = s.rope + 3;
        int32_t *first = own(b, t, sizeof *first);
        for (int64_t r = 0; r < t; r++) first[r] = (int32_t)(r % s.seq / 5 * 5); /* documents of 5 tokens */
        attention_case c = {s,
                            ld,
                            values(b, t * wq),
                            values(b, t * wkv),
                            values(b, t * ld),
                            zeros(b, t * s.heads * s.v),
                            zeros(b, t * s.heads),
                            values(b, t * s.heads * s.v),
                            seed > 8 ? first : NULL};
        real *dq = zeros(b, t * wq), *dkv = zeros(b, t * wkv), *dk_rope = zeros(b, t * ld);
        attention_scalar(k, &c);
        k->attention_backward(k->ctx, s, dq, dkv, dk_rope, ld, c.d_o, c.o, c.lse, c.q, c.kv, c.k_rope, ld,
                              c.first_key);
        check_gradient(b, "attention dq", attention_scalar, &c, t * wq, c.q, dq);
        check_gradient(b, "attention dkv", attention_scalar, &c, t * wkv, c.kv, dkv);
        if (s.rope) check_gradient(b, "attention dk_rope", attention_scalar, &c, t * ld, c.k_rope, dk_rope);
        end(b);
    }
}

/* ---- SwiGLU and embedding ---- */

typedef struct swiglu_case {
    real *gu, *h, *dout, *weight;
} swiglu_case;

static double swiglu_scalar(const kernels *k, const void *p) { /* sum of weight * <dout, h> */
    const swiglu_case *c = p;
    double sum = 0;
    k->swiglu_forward(k->ctx, EVERY_ROW(ROWS), COLS, c->h, c->gu);
    for (int i = 0; i < ROWS; i++)
        sum += (c->weight ? c->weight[i] : 1) * dot(COLS, c->h + i * COLS, c->dout + i * COLS);
    return sum;
}

static void test_swiglu(void **state) {
    bench *b = *state;
    const kernels *k = &b->k;
    for (uint64_t seed = 11; seed < 13; seed++) {
        begin(b, seed);
        swiglu_case c = {values(b, ROWS * 2 * COLS), zeros(b, ROWS * COLS), values(b, ROWS * COLS),
                         seed == 12 ? values(b, ROWS) : NULL};
        for (int i = 0; i < ROWS * 2 * COLS; i++) c.gu[i] *= 4;
        real *dgu = zeros(b, ROWS * 2 * COLS), *h = zeros(b, ROWS * COLS), *dweight = zeros(b, ROWS);
        k->swiglu_backward(k->ctx, EVERY_ROW(ROWS), COLS, dgu, h, c.weight ? dweight : NULL, c.dout, c.gu,
                           c.weight);
        check_gradient(b, "swiglu dgu", swiglu_scalar, &c, ROWS * 2 * COLS, c.gu, dgu);
        if (c.weight) check_gradient(b, "swiglu dweight", swiglu_scalar, &c, ROWS, c.weight, dweight);
        swiglu_scalar(k, &c);
        for (int i = 0; i < ROWS * COLS; i++)
            assert_true(fabs(h[i] - (c.weight ? c.weight[i / COLS] : 1) * c.h[i]) < 1e-12);
        end(b);
    }
}

typedef struct embedding_case {
    real *w, *x, *dx;
    int32_t *ids;
} embedding_case;

static double embedding_scalar(const kernels *k, const void *p) {
    const embedding_case *c = p;
    k->embedding_forward(k->ctx, 20, COLS, c->x, c->w, c->ids);
    return dot(20 * COLS, c->x, c->dx);
}

static void test_embedding(void **state) {
    bench *b = *state;
    begin(b, 13);
    embedding_case c = {values(b, 6 * COLS), zeros(b, 20 * COLS), values(b, 20 * COLS), integers(b, 20, 6)};
    real *dw = zeros(b, 6 * COLS);
    b->k.embedding_backward(b->k.ctx, 20, COLS, dw, c.dx, c.ids);
    check_gradient(b, "embedding dw", embedding_scalar, &c, 6 * COLS, c.w, dw);
    end(b);
}

/* ---- router and combine ---- */

enum { TOKENS = 6, FFN = 5, ZERO = 3, ALL = FFN + ZERO, TOPK = 3 };

typedef struct router_case {
    router_shape s;
    real *logits, *bias, *prob, *weight, *prob_sum, *dweight, *lb_grad;
    int32_t *index;
    int64_t *count;
} router_case;

static double router_scalar(const kernels *k, const void *p) {
    const router_case *c = p;
    k->router_forward(k->ctx, c->s, c->prob, c->index, c->weight, c->count, c->prob_sum, c->logits, c->bias);
    double sum = dot(TOKENS * TOPK, c->weight, c->dweight);
    return sum + dot(ALL, c->prob_sum, c->lb_grad);
}

static void test_router(void **state) {
    bench *b = *state;
    const kernels *k = &b->k;
    for (uint64_t seed = 14; seed < 17; seed++) {
        begin(b, seed);
        router_case c = {
            {TOKENS, FFN, ZERO, TOPK, 2.5}, values(b, TOKENS * ALL), values(b, ALL),
            zeros(b, TOKENS * ALL),         zeros(b, TOKENS * TOPK), zeros(b, ALL),
            values(b, TOKENS * TOPK),       values(b, ALL),          own(b, TOKENS * TOPK, sizeof(int32_t)),
            own(b, ALL, sizeof(int64_t))};
        for (int e = 0; seed == 16 && e < ALL; e++) c.lb_grad[e] = 0;
        real *dlogits = zeros(b, TOKENS * ALL), *dprob_sum = zeros(b, ALL);
        router_scalar(k, &c);
        k->router_backward(k->ctx, c.s, dlogits, dprob_sum, c.dweight, c.prob, c.index, c.lb_grad);
        for (int e = 0; e < ALL; e++) {
            double sum = 0;
            for (int i = 0; i < TOKENS * TOPK; i++)
                if (c.index[i] == e) sum += 2.5 * c.dweight[i];
            assert_true(fabs(sum - dprob_sum[e]) < 1e-12);
        }
        check_gradient(b, "router dlogits", router_scalar, &c, TOKENS * ALL, c.logits, dlogits);
        end(b);
    }
}

enum { ANSWERS = 10 };

typedef struct combine_case {
    real *rows, *weight, *y, *out, *dout;
    int32_t *row_of;
} combine_case;

static double combine_scalar(const kernels *k, const void *p) {
    const combine_case *c = p;
    k->zero(k->ctx, TOKENS * COLS, c->out);
    k->combine_forward(k->ctx, TOKENS, COLS, TOPK, c->out, c->rows, c->row_of, c->weight, c->y);
    return dot(TOKENS * COLS, c->out, c->dout);
}

/* An expert here is the identity: its row answers with y itself, so that drows = w dout and dw = <dout, y>,
 * and the gradient of y through every slot is known. */
static void test_combine(void **state) {
    bench *b = *state;
    const kernels *k = &b->k;
    begin(b, 17);
    combine_case c = {zeros(b, ANSWERS * COLS), values(b, TOKENS * TOPK), values(b, TOKENS * COLS),
                      zeros(b, TOKENS * COLS),  values(b, TOKENS * COLS), integers(b, TOKENS * TOPK, 2)};
    real *drows = zeros(b, ANSWERS * COLS), *dw_rows = zeros(b, ANSWERS), *dy = zeros(b, TOKENS * COLS);
    real *dweight = zeros(b, TOKENS * TOPK);
    int32_t next = 0;
    for (int i = 0; i < TOKENS * TOPK; i++) c.row_of[i] = c.row_of[i] && next < ANSWERS ? next++ : -1;
    for (int i = 0; i < TOKENS * TOPK; i++) {
        if (c.row_of[i] < 0) continue;
        for (int j = 0; j < COLS; j++) {
            real out = c.dout[i / TOPK * COLS + j], answer = 0.5 + j;
            c.rows[c.row_of[i] * COLS + j] = answer;
            drows[c.row_of[i] * COLS + j] = 0; /* the answer does not depend on y */
            dw_rows[c.row_of[i]] += out * answer;
        }
    }
    k->combine_backward(k->ctx, TOKENS, COLS, TOPK, dy, dweight, c.dout, drows, dw_rows, c.row_of, c.weight,
                        c.y);
    check_gradient(b, "combine dy", combine_scalar, &c, TOKENS * COLS, c.y, dy);
    check_gradient(b, "combine dweight", combine_scalar, &c, TOKENS * TOPK, c.weight, dweight);
    /* drows are added to dy as they come */
    for (int i = 0; i < ANSWERS * COLS; i++) drows[i] = i;
    real *more = zeros(b, TOKENS * COLS);
    k->combine_backward(k->ctx, TOKENS, COLS, TOPK, more, dweight, c.dout, drows, dw_rows, c.row_of, c.weight,
                        c.y);
    for (int i = 0; i < TOKENS * TOPK; i++)
        for (int j = 0; c.row_of[i] >= 0 && j < COLS; j++)
            more[i / TOPK * COLS + j] -= drows[c.row_of[i] * COLS + j];
    for (int i = 0; i < TOKENS * COLS; i++) assert_true(fabs(more[i] - dy[i]) < 1e-12);
    end(b);
}

/* ---- losses ---- */

typedef struct loss_case {
    real *logits, *copy, *loss, *x, *sum_sq, *max_abs;
    int32_t *targets;
    double scale;
} loss_case;

static double cross_entropy_scalar(const kernels *k, const void *p) {
    const loss_case *c = p;
    memcpy(c->copy, c->logits, ROWS * COLS * sizeof *c->copy);
    k->cross_entropy(k->ctx, ROWS, COLS, 0, c->loss, NULL, c->copy, c->targets);
    double sum = 0;
    for (int i = 0; i < ROWS; i++) sum += c->scale * c->loss[i];
    return sum;
}

static double hidden_z_scalar(const kernels *k, const void *p) {
    const loss_case *c = p;
    k->hidden_z(k->ctx, ROWS, COLS, 0, c->loss, c->sum_sq, c->max_abs, NULL, c->x);
    double sum = 0;
    for (int i = 0; i < ROWS; i++) sum += c->scale * c->loss[i];
    return sum;
}

static void test_losses(void **state) {
    bench *b = *state;
    const kernels *k = &b->k;
    begin(b, 18);
    loss_case c = {
        values(b, ROWS * COLS), zeros(b, ROWS * COLS), zeros(b, ROWS),          values(b, ROWS * COLS),
        zeros(b, ROWS),         zeros(b, ROWS),        integers(b, ROWS, COLS), 0.3};
    c.targets[2] = -1;
    real *dlogits = zeros(b, ROWS * COLS), *dx = values(b, ROWS * COLS), *before = zeros(b, ROWS * COLS);
    memcpy(dlogits, c.logits, ROWS * COLS * sizeof *dlogits);
    k->cross_entropy(k->ctx, ROWS, COLS, c.scale, c.loss, NULL, dlogits, c.targets);
    assert_true(c.loss[2] == 0);
    check_gradient(b, "cross_entropy", cross_entropy_scalar, &c, ROWS * COLS, c.logits, dlogits);

    memcpy(before, dx, ROWS * COLS * sizeof *dx);
    k->hidden_z(k->ctx, ROWS, COLS, c.scale, c.loss, c.sum_sq, c.max_abs, dx, c.x);
    for (int i = 0; i < ROWS * COLS; i++) dx[i] -= before[i];
    check_gradient(b, "hidden_z", hidden_z_scalar, &c, ROWS * COLS, c.x, dx);
    end(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),      cmocka_unit_test(test_grouped_gemm),
        cmocka_unit_test(test_rms_norm),  cmocka_unit_test(test_rope),
        cmocka_unit_test(test_attention), cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_embedding), cmocka_unit_test(test_router),
        cmocka_unit_test(test_combine),   cmocka_unit_test(test_losses),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
