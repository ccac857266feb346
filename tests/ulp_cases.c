/* The operations and shapes of tests/ulp.h. */
#include "tests/ulp.h"

#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "launch/error.h"
#include "launch/memory.h"
#include "launch/random.h"

enum { SIZES = 6, OWNED = 24 };

/* One run of a case. */
typedef struct sheet {
    const kernels *k;
    const int64_t *size;
    ulp_result *r;
    uint64_t stream;
    void *owned[OWNED];
    int owns;
} sheet;

static void *own(sheet *s, int64_t n, size_t size) {
    REQUIRE(s->owns < OWNED);
    return s->owned[s->owns++] = mem_alloc((size_t)n * size, "an input of ulp");
}

static real *zeros(sheet *s, int64_t n) {
    return own(s, n, sizeof(real));
}

/* Normal numbers, the same floats in both builds. */
static real *normal(sheet *s, int64_t n, double deviation) {
    real *x = zeros(s, n);
    s->stream++;
    for (int64_t i = 0; i < n; i++) {
        double u = random_uniform(1, s->stream, 2 * (uint64_t)i),
               v = random_uniform(1, s->stream, 2 * (uint64_t)i + 1);
        x[i] = (real)(float)(deviation * sqrt(-2 * log(u)) * cos(2 * M_PI * v));
    }
    return x;
}

static ulp_output *output(sheet *s, const char *name, int64_t n, const real *x) {
    REQUIRE(s->r->outputs < ULP_OUTPUTS);
    ulp_output *o = &s->r->out[s->r->outputs++];
    *o = (ulp_output){.name = name, .n = n, .x = mem_alloc((size_t)n * sizeof(double), "an output of ulp")};
    for (int64_t i = 0; i < n; i++) o->x[i] = (double)x[i];
    return o;
}

/* ---- matrix products: run a second time on absolute values, for the magnitudes ---- */

static void absolute(int64_t n, real *x) {
    for (int64_t i = 0; i < n; i++) x[i] = (real)fabs((double)x[i]);
}

static void magnitudes(ulp_output *o, const real *x) {
    o->magnitude = mem_alloc((size_t)o->n * sizeof(double), "magnitudes");
    for (int64_t i = 0; i < o->n; i++) o->magnitude[i] = (double)x[i];
}

static void gemm(sheet *s, gemm_form form) {
    int64_t m = s->size[0], n = s->size[1], k = s->size[2];
    int64_t lda = form == GEMM_TN ? m : k, ldb = form == GEMM_NT ? k : n;
    real *a = normal(s, m * k, 1), *b = normal(s, n * k, 0.02), *c = zeros(s, m * n);
    s->k->gemm(s->k->ctx, form, m, n, k, c, n, NULL, a, lda, b, ldb);
    ulp_output *o = output(s, "C", m * n, c);
    if (sizeof(real) == sizeof(float)) return;
    absolute(m * k, a);
    absolute(n * k, b);
    s->k->gemm(s->k->ctx, form, m, n, k, c, n, NULL, a, lda, b, ldb);
    magnitudes(o, c);
}
static void gemm_nt(sheet *s) {
    gemm(s, GEMM_NT);
}
static void gemm_nn(sheet *s) {
    gemm(s, GEMM_NN);
}
static void gemm_tn(sheet *s) {
    gemm(s, GEMM_TN);
}

/* Four experts, the second without a row. */
enum { EXPERTS = 4 };
static void pick_segments(int64_t rows, segment *s) {
    s[0] = (segment){0, rows / 2, 0};
    s[1] = (segment){rows / 2, 0, 1};
    s[2] = (segment){rows / 2, rows / 8, 2};
    s[3] = (segment){rows / 2 + rows / 8, rows - rows / 2 - rows / 8, 3};
}

static void grouped(sheet *s) {
    int64_t rows = s->size[0], n = s->size[1], k = s->size[2];
    segment run[EXPERTS];
    pick_segments(rows, run);
    real *a = normal(s, rows * k, 1), *w = normal(s, EXPERTS * n * k, 0.02), *c = zeros(s, rows * n);
    s->k->grouped_gemm(s->k->ctx, GEMM_NT, EXPERTS, run, n, k, c, a, w, n * k);
    ulp_output *o = output(s, "C", rows * n, c);
    if (sizeof(real) == sizeof(float)) return;
    absolute(rows * k, a);
    absolute(EXPERTS * n * k, w);
    s->k->grouped_gemm(s->k->ctx, GEMM_NT, EXPERTS, run, n, k, c, a, w, n * k);
    magnitudes(o, c);
}

static void grouped_dw(sheet *s) {
    int64_t rows = s->size[0], m = s->size[1], n = s->size[2];
    segment run[EXPERTS];
    pick_segments(rows, run);
    real *a = normal(s, rows * m, 1), *b = normal(s, rows * n, 1), *dw = zeros(s, EXPERTS * m * n);
    s->k->grouped_gemm_dw(s->k->ctx, EXPERTS, run, m, n, dw, m * n, a, b);
    ulp_output *o = output(s, "dW", EXPERTS * m * n, dw);
    if (sizeof(real) == sizeof(float)) return;
    absolute(rows * m, a);
    absolute(rows * n, b);
    memset(dw, 0, (size_t)(EXPERTS * m * n) * sizeof *dw);
    s->k->grouped_gemm_dw(s->k->ctx, EXPERTS, run, m, n, dw, m * n, a, b);
    magnitudes(o, dw);
}

/* ---- rows ---- */

static void rms_norm(sheet *s) {
    int64_t rows = s->size[0], cols = s->size[1], n = rows * cols;
    real *x = normal(s, n, 0.7), *w = normal(s, cols, 0.5), *y = zeros(s, n), *rstd = zeros(s, rows);
    real *dy = normal(s, n, 1e-3), *dx = zeros(s, n), *dw = zeros(s, cols);
    s->k->rms_norm_forward(s->k->ctx, rows, cols, 1e-5, 2, y, cols, rstd, x, cols, w);
    s->k->rms_norm_backward(s->k->ctx, rows, cols, 2, dx, cols, NULL, dw, 0, dy, cols, x, cols, rstd, w);
    output(s, "y", n, y);
    output(s, "dx", n, dx);
    output(s, "dw", cols, dw);
}

static void rope(sheet *s) {
    int64_t rows = s->size[0], heads = s->size[1], pairs = s->size[2], n = rows * heads * 2 * pairs;
    real *x = normal(s, n, 1), *cosine = zeros(s, rows * pairs), *sine = zeros(s, rows * pairs);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t p = 0; p < pairs; p++) {
            double angle = (double)r * pow(1e6, -(double)p / (double)pairs);
            cosine[r * pairs + p] = (real)(float)cos(angle);
            sine[r * pairs + p] = (real)(float)sin(angle);
        }
    s->k->rope(s->k->ctx, rows, rows, heads, pairs, 0, x, heads * 2 * pairs, 2 * pairs, cosine, sine);
    output(s, "x", n, x);
}

static void swiglu(sheet *s) {
    int64_t rows = s->size[0], f = s->size[1];
    real *gu = normal(s, rows * 2 * f, 2), *h = zeros(s, rows * f), *dh = normal(s, rows * f, 1e-3);
    real *weight = normal(s, rows, 0.5), *dgu = zeros(s, rows * 2 * f), *dweight = zeros(s, rows);
    s->k->swiglu_forward(s->k->ctx, EVERY_ROW(rows), f, h, gu);
    output(s, "h", rows * f, h);
    s->k->swiglu_backward(s->k->ctx, EVERY_ROW(rows), f, dgu, h, dweight, dh, gu, weight);
    output(s, "dgu", rows * 2 * f, dgu);
    output(s, "dweight", rows, dweight);
}

/* The backward goes through a fixed choice, for a last bit may tip the true one. */
static void router(sheet *s) {
    router_shape shape = {s->size[0], s->size[1], s->size[2], s->size[3], 6};
    int64_t experts = shape.ffn_experts + shape.zero_experts, n = shape.tokens * experts;
    int64_t slots = shape.tokens * shape.topk;
    real *logits = normal(s, n, 1.5), *bias = zeros(s, experts), *prob = zeros(s, n),
         *sum = zeros(s, experts);
    real *weight = zeros(s, slots), *dweight = normal(s, slots, 1e-3), *lb_grad = normal(s, experts, 1e-4);
    real *dlogits = zeros(s, n), *dsum = zeros(s, experts);
    int32_t *index = own(s, slots, sizeof *index);
    int64_t *count = own(s, experts, sizeof *count);
    s->k->router_forward(s->k->ctx, shape, prob, index, weight, count, sum, logits, bias);
    for (int64_t i = 0; i < slots; i++) index[i] = (int32_t)(i % shape.topk * experts / shape.topk);
    s->k->router_backward(s->k->ctx, shape, dlogits, dsum, dweight, prob, index, lb_grad);
    output(s, "prob", n, prob);
    output(s, "prob_sum", experts, sum);
    output(s, "dlogits", n, dlogits);
}

static void combine(sheet *s) {
    int64_t tokens = s->size[0], h = s->size[1], topk = s->size[2], slots = tokens * topk;
    real *out = zeros(s, tokens * h), *rows = normal(s, slots * h, 1), *weight = normal(s, slots, 0.3);
    real *y = normal(s, tokens * h, 1);
    int32_t *row_of = own(s, slots, sizeof *row_of);
    for (int64_t i = 0; i < slots; i++) row_of[i] = i % topk < 2 * topk / 3 ? (int32_t)i : -1;
    s->k->combine_forward(s->k->ctx, tokens, h, topk, out, rows, row_of, weight, y);
    output(s, "out", tokens * h, out);
}

static void attention(sheet *s) {
    attention_shape a = {.batch = 1,
                         .seq = s->size[0],
                         .heads = s->size[1],
                         .nope = s->size[2],
                         .rope = s->size[3],
                         .v = s->size[4]};
    int64_t t = a.seq, wide_q = t * a.heads * (a.nope + a.rope), wide_kv = t * a.heads * (a.nope + a.v);
    int64_t wide_o = t * a.heads * a.v;
    real *q = normal(s, wide_q, 1), *kv = normal(s, wide_kv, 1), *k_rope = normal(s, t * a.rope, 1);
    real *o = zeros(s, wide_o), *lse = zeros(s, t * a.heads), *d_o = normal(s, wide_o, 1e-3);
    real *dq = zeros(s, wide_q), *dkv = zeros(s, wide_kv), *dk_rope = zeros(s, t * a.rope);
    s->k->attention_forward(s->k->ctx, a, o, lse, q, kv, k_rope, a.rope, NULL);
    output(s, "o", wide_o, o);
    output(s, "lse", t * a.heads, lse);
    s->k->attention_backward(s->k->ctx, a, dq, dkv, dk_rope, a.rope, d_o, o, lse, q, kv, k_rope, a.rope,
                             NULL);
    output(s, "dq", wide_q, dq);
    output(s, "dkv", wide_kv, dkv);
    output(s, "dk_rope", t * a.rope, dk_rope);
}

/* ---- losses, optimizer ---- */

static void cross_entropy(sheet *s) {
    int64_t rows = s->size[0], vocab = s->size[1];
    real *logits = normal(s, rows * vocab, 2), *loss = zeros(s, rows);
    int32_t *targets = own(s, rows, sizeof *targets);
    for (int64_t i = 0; i < rows; i++) targets[i] = (int32_t)(i * 7919 % vocab);
    s->k->cross_entropy(s->k->ctx, rows, vocab, 1.0 / 4096, loss, NULL, logits, targets);
    output(s, "loss", rows, loss);
    output(s, "dlogits", rows * vocab, logits);
}

static void hidden_z(sheet *s) {
    int64_t rows = s->size[0], h = s->size[1];
    real *x = normal(s, rows * h, 1), *loss = zeros(s, rows), *squares = zeros(s, rows),
         *top = zeros(s, rows);
    real *dx = zeros(s, rows * h);
    s->k->hidden_z(s->k->ctx, rows, h, 1e-6, loss, squares, top, dx, x);
    output(s, "loss", rows, loss);
    output(s, "sum_sq", rows, squares);
    output(s, "dx", rows * h, dx);
}

/* The state after a number of steps. */
static void adamw(sheet *s) {
    int64_t n = s->size[0], steps = s->size[1];
    real *p = normal(s, n, 0.02), *m = zeros(s, n), *v = zeros(s, n);
    for (int64_t t = 1; t <= steps; t++) {
        real *g = normal(s, n, 1e-4);
        double at = (double)t;
        adamw_step step = {1e-3, 0.9, 0.95, 1e-16, 0.1, 0.5, 1 - pow(0.9, at), 1 - pow(0.95, at)};
        s->k->adamw(s->k->ctx, n, step, p, m, v, g);
    }
    output(s, "p", n, p);
    output(s, "m", n, m);
    output(s, "v", n, v);
}

/* ---- the list ---- */

/* Matrix products are slices of m x n where the true ones are large: k is what decides.  The limits are a
 * quarter above what was measured, on inputs that are always the same. */
static const struct {
    const char *operation, *config;
    void (*run)(sheet *);
    int64_t size[SIZES];
    double limit;
} list[] = {
    {"gemm NT", "nano", gemm_nt, {256, 64, 128}, 0.5},
    {"gemm NT", "nano", gemm_nt, {256, 128, 256}, 0.5},
    {"gemm NN", "nano", gemm_nn, {256, 128, 512}, 0.4},
    {"gemm TN", "nano", gemm_tn, {128, 64, 256}, 0.5},
    {"gemm NT", "bench", gemm_nt, {256, 128, 512}, 0},
    {"gemm NN", "bench", gemm_nn, {256, 128, 1024}, 0},
    {"gemm TN", "bench", gemm_tn, {128, 128, 512}, 0},
    {"gemm NT", "proxy-768", gemm_nt, {128, 128, 768}, 0},
    {"gemm NN", "proxy-768", gemm_nn, {128, 128, 3072}, 0},
    {"gemm TN", "proxy-768", gemm_tn, {128, 128, 8192}, 0},
    {"gemm NT", "LongCat-Flash", gemm_nt, {64, 128, 1536}, 0},
    {"gemm NT", "LongCat-Flash", gemm_nt, {64, 128, 6144}, 0},
    {"gemm NT", "LongCat-Flash", gemm_nt, {64, 128, 12288}, 0},
    {"gemm NN", "LongCat-Flash", gemm_nn, {64, 128, 24576}, 0},
    {"gemm TN", "LongCat-Flash", gemm_tn, {64, 128, 32768}, 0},
    {"grouped gemm", "nano", grouped, {256, 128, 128}, 0.5},
    {"grouped gemm", "proxy-768", grouped, {128, 64, 768}, 0},
    {"grouped gemm", "LongCat-Flash", grouped, {128, 32, 6144}, 0},
    {"grouped dW", "nano", grouped_dw, {256, 128, 128}, 0.4},
    {"grouped dW", "LongCat-Flash", grouped_dw, {8192, 48, 64}, 0},
    {"RMSNorm", "nano", rms_norm, {256, 128}, 3.2},
    {"RMSNorm", "proxy-768", rms_norm, {256, 768}, 0},
    {"RMSNorm", "LongCat-Flash", rms_norm, {64, 6144}, 0},
    {"RoPE", "nano", rope, {256, 4, 8}, 0.36},
    {"RoPE", "LongCat-Flash", rope, {512, 4, 32}, 0},
    {"SwiGLU", "nano", swiglu, {256, 256}, 1.5},
    {"SwiGLU", "LongCat-Flash", swiglu, {32, 12288}, 0},
    {"router", "nano", router, {256, 16, 8, 6}, 3.4},
    {"router", "proxy-768", router, {256, 64, 32, 12}, 0},
    {"router", "LongCat-Flash", router, {128, 512, 256, 12}, 0},
    {"combine", "nano", combine, {256, 128, 6}, 0.55},
    {"combine", "LongCat-Flash", combine, {16, 6144, 12}, 0},
    {"attention", "nano", attention, {256, 4, 32, 16, 32}, 3.5},
    {"attention", "bench", attention, {256, 4, 48, 16, 64}, 0},
    {"attention", "LongCat-Flash", attention, {768, 1, 128, 64, 128}, 0},
    {"cross-entropy", "nano", cross_entropy, {128, 4096}, 0.4},
    {"cross-entropy", "LongCat-Flash", cross_entropy, {8, 131072}, 0},
    {"hidden z", "nano", hidden_z, {256, 128}, 0.6},
    {"hidden z", "LongCat-Flash", hidden_z, {64, 6144}, 0},
    {"AdamW", "nano", adamw, {16384, 20}, 1.3},
};

static void run_on(int i, const kernels *k, ulp_result *r) {
    sheet s = {.k = k, .size = list[i].size, .r = r};
    *r = (ulp_result){.outputs = 0};
    list[i].run(&s);
    for (int j = 0; j < s.owns; j++) mem_free(s.owned[j]);
}

#ifdef CARACAL_F64

void ulp_exact(int i, ulp_result *r) {
    kernels k;
    kernels_ref(&k, 2);
    run_on(i, &k, r);
    kernels_close(&k);
}

#else

int ulp_cases(void) {
    return sizeof list / sizeof *list;
}

ulp_case ulp_describe(int i) {
    ulp_case c = {.operation = list[i].operation, .config = list[i].config, .limit = list[i].limit};
    size_t used = 0;
    for (int j = 0; j < SIZES && list[i].size[j]; j++)
        used += (size_t)snprintf(c.sizes + used, sizeof c.sizes - used, "%s%ld", j ? " x " : "",
                                 (long)list[i].size[j]);
    return c;
}

void ulp_run(int i, const kernels *k, ulp_result *r) {
    run_on(i, k, r);
}

void ulp_free(ulp_result *r) {
    for (int o = 0; o < r->outputs; o++) {
        mem_free(r->out[o].x);
        mem_free(r->out[o].magnitude);
    }
    *r = (ulp_result){.outputs = 0};
}

#endif
