#include "model/recheck.h"

#include <string.h>

enum { AT_ONCE = 1 << 16 }; /* elements of either result that a device is waited for at a time */

static int64_t largest(int64_t a, int64_t b) {
    return a > b ? a : b;
}

void recheck_create(recheck *r, const context *x) {
    const model_config *c = &x->c;
    size_t t = (size_t)(x->max_batch * x->max_seq) * sizeof(real);
    int64_t q = c->num_attention_heads * (c->qk_nope_head_dim + c->qk_rope_head_dim),
            kv = c->num_attention_heads * (c->qk_nope_head_dim + c->v_head_dim),
            expert = largest(2 * c->expert_ffn_hidden_size, c->hidden_size);
    int64_t widest = largest(largest(q, kv), largest(attention_rank(c), expert)),
            most = largest(widest, AT_ONCE);
    *r = (recheck){.layer = -1};
    r->k = x->k;
    r->dq_T = x->k->alloc(x->k->ctx, t * (size_t)q, "second results");
    r->dkv_T = x->k->alloc(x->k->ctx, t * (size_t)kv, "second results");
    r->da_TR = x->k->alloc(x->k->ctx, t * (size_t)attention_rank(c), "second results");
    r->rows_Q = x->k->alloc(x->k->ctx, (size_t)(x->exchange.shape.capacity * expert) * sizeof(real),
                            "second results");
    for (int i = 0; i < 2; i++) r->rows[i] = mem_alloc((size_t)most * sizeof(real), "second results");
}

void recheck_destroy(recheck *r) {
    if (!r->k) return;
    r->k->free(r->k->ctx, r->dq_T);
    r->k->free(r->k->ctx, r->dkv_T);
    r->k->free(r->k->ctx, r->da_TR);
    r->k->free(r->k->ctx, r->rows_Q);
    for (int i = 0; i < 2; i++) mem_free(r->rows[i]);
    *r = (recheck){0};
}

void recheck_compare(const context *x, const char *of, int64_t number, const char *tensor, int64_t rows,
                     int64_t cols, int64_t ld, const real *first, const real *again) {
    recheck *r = x->recheck;
    const int64_t most = largest(AT_ONCE / ld, 1);
    for (int64_t i = 0; i < rows && !r->found.code; i++) {
        if (i % most == 0) {
            int64_t some = rows - i < most ? rows - i : most;
            size_t bytes = (size_t)((some - 1) * ld + cols) * sizeof(real);
            x->k->to_host(x->k->ctx, r->rows[0], first + i * ld, bytes);
            x->k->to_host(x->k->ctx, r->rows[1], again + i * ld, bytes);
        }
        const real *one = r->rows[0] + i % most * ld, *other = r->rows[1] + i % most * ld;
        if (!memcmp(one, other, (size_t)cols * sizeof(real))) continue;
        int64_t j = 0;
        while (!memcmp(&one[j], &other[j], sizeof(real))) j++;
        double a = (double)one[j], b = (double)other[j];
        error_set(&r->found, EXIT_SDC,
                  "layer %lld, %s %lld, %s [%lld, %lld]: %.9g (%a), and %.9g (%a) when computed again",
                  (long long)x->layer, of, (long long)number, tensor, (long long)i, (long long)j, a, a, b, b);
    }
}
