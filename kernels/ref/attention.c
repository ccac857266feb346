/* Causal attention of MLA shape: every score is computed from its definition, as often as it is needed.
 *
 * b sequence of the batch, h head, i query and j key inside the sequence (query i stands at position past +
 * i); p = exp(score - lse). */
#include <math.h>
#include <omp.h>

#include "kernels/math.h"
#include "kernels/ref/ref.h"

typedef struct inputs {
    attention_shape s;
    const real *q, *kv, *k_rope, *lse, *d_o, *o;
    int64_t ld_k_rope;
    const int32_t *first_key;
    double scale;
} inputs;

static const real *query(const inputs *x, int64_t b, int64_t h, int64_t i) {
    return x->q + ((b * x->s.seq + i) * x->s.heads + h) * (x->s.nope + x->s.rope);
}
static const real *key_nope(const inputs *x, int64_t b, int64_t h, int64_t j) {
    return x->kv + ((b * (x->s.past + x->s.seq) + j) * x->s.heads + h) * (x->s.nope + x->s.v);
}
static const real *value(const inputs *x, int64_t b, int64_t h, int64_t j) {
    return key_nope(x, b, h, j) + x->s.nope;
}
static const real *key_rope(const inputs *x, int64_t b, int64_t j) {
    return x->k_rope + (b * (x->s.past + x->s.seq) + j) * x->ld_k_rope;
}
/* Index of (b, h, i) in lse; times v, that of its row in o. */
static int64_t out_row(const inputs *x, int64_t b, int64_t h, int64_t i) {
    return (b * x->s.seq + i) * x->s.heads + h;
}
static int64_t first(const inputs *x, int64_t b, int64_t i) {
    return x->first_key ? x->first_key[b * x->s.seq + i] : 0;
}

static double dot(int64_t n, const real *a, const real *b) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

static double score(const inputs *x, int64_t b, int64_t h, int64_t i, int64_t j) {
    const real *q = query(x, b, h, i);
    return x->scale *
           (dot(x->s.nope, q, key_nope(x, b, h, j)) + dot(x->s.rope, q + x->s.nope, key_rope(x, b, j)));
}

void ref_attention_forward(kernel_context *ctx, attention_shape s, real *o, real *lse, const real *q,
                           const real *kv, const real *k_rope, int64_t ld_k_rope, const int32_t *first_key) {
    inputs x = {.s = s, .q = q, .kv = kv, .k_rope = k_rope, .ld_k_rope = ld_k_rope, .first_key = first_key};
    x.scale = 1 / sqrt((double)(s.nope + s.rope));
    double *scratch = ref_scratch(ctx, s.past + s.seq);
#pragma omp parallel for num_threads(ctx->threads) schedule(static, 1)
    for (int64_t r = 0; r < s.batch * s.seq; r++) {
        double *p = scratch + omp_get_thread_num() * (s.past + s.seq);
        int64_t b = r / s.seq, i = r % s.seq, from = first(&x, b, i), to = s.past + i;
        for (int64_t h = 0; h < s.heads; h++) {
            double top = -INFINITY, sum = 0;
            for (int64_t j = from; j <= to; j++) {
                p[j] = score(&x, b, h, i, j);
                top = fmax(top, p[j]);
            }
            for (int64_t j = from; j <= to; j++) sum += p[j] = fixed_exp(p[j] - top);
            for (int64_t c = 0; c < s.v; c++) {
                double out = 0;
                for (int64_t j = from; j <= to; j++) out += p[j] * value(&x, b, h, j)[c];
                o[out_row(&x, b, h, i) * s.v + c] = (real)(out / sum);
            }
            lse[out_row(&x, b, h, i)] = (real)(top + fixed_log(sum));
        }
    }
}

/* p(i,j), and the gradient of the scaled score: p * (<do_i, v_j> - <do_i, o_i>). */
static double probability(const inputs *x, int64_t b, int64_t h, int64_t i, int64_t j, double *d_score) {
    int64_t r = out_row(x, b, h, i);
    const real *d_o = x->d_o + r * x->s.v;
    double p = fixed_exp(score(x, b, h, i, j) - x->lse[r]);
    *d_score = p * (dot(x->s.v, d_o, value(x, b, h, j)) - dot(x->s.v, d_o, x->o + r * x->s.v));
    return p;
}

static void query_gradient(const inputs *x, int64_t b, int64_t h, int64_t i, real *dq, double *ds) {
    int64_t from = first(x, b, i);
    for (int64_t j = from; j <= i; j++) probability(x, b, h, i, j, &ds[j]);
    for (int64_t c = 0; c < x->s.nope + x->s.rope; c++) {
        double sum = 0;
        for (int64_t j = from; j <= i; j++)
            sum += ds[j] * (c < x->s.nope ? key_nope(x, b, h, j)[c] : key_rope(x, b, j)[c - x->s.nope]);
        dq[c] = (real)(x->scale * sum);
    }
}

/* Adds this head's part to dk_rope [rope]; p and ds [seq] are scratch. */
static void key_gradient(const inputs *x, int64_t b, int64_t h, int64_t j, real *dkv, double *dk_rope,
                         double *p, double *ds) {
    attention_shape s = x->s;
    for (int64_t i = j; i < s.seq; i++) {
        p[i] = ds[i] = 0;
        if (first(x, b, i) <= j) p[i] = probability(x, b, h, i, j, &ds[i]);
    }
    for (int64_t c = 0; c < s.nope + s.rope; c++) {
        double sum = 0;
        for (int64_t i = j; i < s.seq; i++) sum += ds[i] * query(x, b, h, i)[c];
        if (c < s.nope) dkv[c] = (real)(x->scale * sum);
        else dk_rope[c - s.nope] += x->scale * sum;
    }
    for (int64_t c = 0; c < s.v; c++) {
        double sum = 0;
        for (int64_t i = j; i < s.seq; i++) sum += p[i] * x->d_o[out_row(x, b, h, i) * s.v + c];
        dkv[s.nope + c] = (real)sum;
    }
}

void ref_attention_backward(kernel_context *ctx, attention_shape s, real *dq, real *dkv, real *dk_rope,
                            int64_t ld_dk_rope, const real *d_o, const real *o, const real *lse,
                            const real *q, const real *kv, const real *k_rope, int64_t ld_k_rope,
                            const int32_t *first_key) {
    inputs x = {s, q, kv, k_rope, lse, d_o, o, ld_k_rope, first_key, 1 / sqrt((double)(s.nope + s.rope))};
    int64_t each = 2 * s.seq + s.rope;
    double *scratch = ref_scratch(ctx, each);
#pragma omp parallel for num_threads(ctx->threads) schedule(static, 1)
    for (int64_t r = 0; r < s.batch * s.seq; r++) {
        double *p = scratch + omp_get_thread_num() * each, *ds = p + s.seq, *dk = ds + s.seq;
        int64_t b = r / s.seq, i = r % s.seq;
        for (int64_t c = 0; c < s.rope; c++) dk[c] = 0;
        for (int64_t h = 0; h < s.heads; h++) {
            query_gradient(&x, b, h, i, dq + out_row(&x, b, h, i) * (s.nope + s.rope), ds);
            key_gradient(&x, b, h, i, dkv + out_row(&x, b, h, i) * (s.nope + s.v), dk, p, ds);
        }
        for (int64_t c = 0; c < s.rope; c++) dk_rope[r * ld_dk_rope + c] = (real)dk[c];
    }
}
