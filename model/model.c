#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/math.h"
#include "model/head.h"

/* ---- memory ---- */

static void context_create(context *x, const model_config_all *c, const kernels *k, const mesh *mesh) {
    *x = (context){.k = k,
                   .mesh = mesh,
                   .c = c->model,
                   .router = c->router,
                   .loss = c->loss,
                   .layer = -1,
                   .max_batch = c->batch,
                   .max_seq = c->seq};
}

static void scratch_create(context *x, const places *in) {
    arena *a = in->shared;
    const model_config *c = &x->c;
    size_t t = (size_t)(x->max_batch * x->max_seq) * sizeof(real), heads = (size_t)c->num_attention_heads;
    model_scratch *s = &x->s;
    s->da_TR = arena_alloc(a, t * (size_t)attention_rank(c));
    s->d_o_T = arena_alloc(a, t * heads * (size_t)c->v_head_dim);
    s->dq_T = arena_alloc(a, t * heads * (size_t)(c->qk_nope_head_dim + c->qk_rope_head_dim));
    s->dkv_T = arena_alloc(a, t * heads * (size_t)(c->qk_nope_head_dim + c->v_head_dim));
    s->dcq_T = arena_alloc(a, t * (size_t)c->q_lora_rank);
    s->dckv_T = arena_alloc(a, t * (size_t)c->kv_lora_rank);
    s->h_TF = arena_alloc(a, t * (size_t)c->ffn_hidden_size);
    s->dh_TF = arena_alloc(a, t * (size_t)c->ffn_hidden_size);
    s->dgu_T2F = arena_alloc(a, t * 2 * (size_t)c->ffn_hidden_size);
    s->dn_TH = arena_alloc(a, t * (size_t)c->hidden_size);
    moe_scratch_create(x, in);
}

/* Rows for kernels, and their twins. */
static void rows_create(model *m, const places *a, size_t n) {
    token_rows *r = &m->rows, *host = &m->host_rows;
    real **table[] = {&r->loss_T, &r->z_T, &r->sum_sq_T},
         **twin[] = {&host->loss_T, &host->z_T, &host->sum_sq_T};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        *table[i] = arena_alloc(a->shared, n * sizeof(real));
        *twin[i] = twin_place(m->x.k, a->host, *table[i], n * sizeof(real));
    }
    int32_t **ids[] = {&r->ids_T,       &r->next_T, &r->target_T, &r->target2_T,
                       &r->first_key_T, &r->best_T, &r->best2_T},
            **ids_twin[] = {&host->ids_T,       &host->next_T, &host->target_T, &host->target2_T,
                            &host->first_key_T, &host->best_T, &host->best2_T};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        *ids[i] = arena_alloc(a->shared, n * sizeof(int32_t));
        *ids_twin[i] = twin_place(m->x.k, a->host, *ids[i], n * sizeof(int32_t));
    }
}

exchange_shape model_exchange_shape(const model_config_all *c, const mesh *mesh) {
    const model_config *m = &c->model;
    const exchange_shape s = {.tokens = c->batch * c->seq,
                              .hidden = m->hidden_size,
                              .topk = m->moe_topk,
                              .ranks = mesh->expert_parallel,
                              .experts = m->n_routed_experts,
                              .chunks = c->chunks,
                              .joined = mesh->rank_invariant ? 1 : mesh->expert_parallel};
    return exchange_shape_of(s, c->slack * c->router.expected_ffn_experts);
}

/* Places every activation and buffer: once to measure, once for good. */
static void lay_out(model *m, const model_config_all *c, const places *a) {
    context *x = &m->x;
    const model_config *mc = &c->model;
    arena *kept = a->kept, *shared = a->shared;
    size_t n = (size_t)(c->batch * c->seq), t = n * sizeof(real), h = (size_t)mc->hidden_size;
    exchange_shape e = model_exchange_shape(c, x->mesh);
    exchange_create(&x->exchange, shared, a->sent, a->host, &e, x->k, x->mesh->experts, x->transport);
    scratch_create(x, a);
    m->saved = arena_alloc(a->host, (size_t)mc->num_layers * sizeof *m->saved);
    layer_saved measured;
    for (int64_t l = 0; l < mc->num_layers; l++) {
        size_t mark = shared->used;
        layer_saved_create(m->saved ? &m->saved[l] : &measured, a, x);
        if (mc->recompute && l + 1 < mc->num_layers) shared->used = mark; /* all layers use the same memory */
    }
    if (c->loss.mtp_coef > 0) mtp_saved_create(&m->mtp_saved, a, x);
    embedding_gradient_create(&m->dembedding, a, x);
    m->hidden_TH = arena_alloc(kept, t * h);
    m->final_TH = arena_alloc(shared, t * h);
    m->dhidden_TH = arena_alloc(shared, t * h);
    for (int i = 0; i < 2; i++) m->d_TH[i] = arena_alloc(shared, t * h);
    size_t rows = n < (size_t)x->k->head_rows ? n : (size_t)x->k->head_rows;
    m->logits = arena_alloc(shared, rows * (size_t)mc->vocab_size * sizeof(real));
    m->rstd_final_T = arena_alloc(shared, t);
    rows_create(m, a, n);
    size_t biases = (size_t)(mc->num_layers * experts_total(mc)) * sizeof(real);
    m->bias_LE = arena_alloc(kept, biases);
    m->router_bias_LE = twin_place(x->k, a->host, m->bias_LE, biases);
    x->cosine = arena_alloc(shared, (size_t)(c->seq * mc->qk_rope_head_dim / 2) * sizeof(real));
    x->sine = arena_alloc(shared, (size_t)(c->seq * mc->qk_rope_head_dim / 2) * sizeof(real));
}

/* Where the host's twins are placed: see model/context.h. */
static places places_of(model *m, const kernels *k) {
    return (places){&m->kept, &m->shared, &m->sent, k->host_memory ? &m->kept : &m->host};
}

/* Sets the sizes of m's arenas in `used`. */
static void measure(model *m, const model_config_all *c, const kernels *k, const mesh *mesh) {
    *m = (model){.kept = arena_measure("kept activations"),
                 .shared = arena_measure("activations"),
                 .sent = arena_measure("rows that travel"),
                 .host = arena_measure("activations on the host")};
    places a = places_of(m, k);
    context_create(&m->x, c, k, mesh);
    lay_out(m, c, &a);
}

size_t model_bytes_of(const model_config_all *room, const kernels *k, const mesh *mesh) {
    model m;
    measure(&m, room, k, mesh);
    return m.kept.used + m.shared.used + m.sent.used;
}

/* cos and sin of position * theta^(-2i / rope). */
static void fill_rope(context *x) {
    int64_t pairs = x->c.qk_rope_head_dim / 2;
    size_t bytes = (size_t)(x->max_seq * pairs) * sizeof(real);
    real *cosine = twin_alloc(x->k, x->cosine, bytes, "positions"),
         *sine = twin_alloc(x->k, x->sine, bytes, "positions");
    for (int64_t i = 0; i < pairs; i++) {
        double frequency = fixed_pow(x->c.rope_theta, -2.0 * (double)i / (double)(2 * pairs));
        for (int64_t t = 0; t < x->max_seq; t++) {
            cosine[t * pairs + i] = (real)fixed_cos((double)t * frequency);
            sine[t * pairs + i] = (real)fixed_sin((double)t * frequency);
        }
    }
    twin_write(x->k, x->cosine, cosine, bytes);
    twin_write(x->k, x->sine, sine, bytes);
    twin_free(x->cosine, cosine);
    twin_free(x->sine, sine);
}

/* What kernels.alloc is to say where there is no memory. */
static const char *advice(char what[160], const char *name) {
    snprintf(what, 160, "%s; fewer or shorter sequences a micro-batch, or model.recompute, would need less",
             name);
    return what;
}

static arena activations(const kernels *k, const char *name, size_t bytes) {
    char what[160];
    return arena_over(name, k->alloc(k->ctx, bytes, advice(what, name)), bytes);
}

void model_create(model *m, const model_config_all *config, const kernels *k, const mesh *mesh) {
    const model_config_all room = model_room(config, k, mesh), *c = &room;
    model sizes;
    char what[160];
    measure(&sizes, c, k, mesh);
    *m = (model){.eos = c->eos};
    context_create(&m->x, c, k, mesh);
    m->x.transport = transport_open(mesh->experts, k);
    m->kept = activations(k, "kept activations", sizes.kept.used);
    m->shared = activations(k, "activations", sizes.shared.used);
    m->sent = arena_over("rows that travel",
                         transport_alloc(m->x.transport, sizes.sent.used, advice(what, "rows that travel")),
                         sizes.sent.used);
    m->host = arena_create("activations on the host", sizes.host.used);
    places a = places_of(m, k);
    lay_out(m, c, &a);
    fill_rope(&m->x);

    params_create(&m->p, &c->model, c->loss.mtp_coef > 0, mesh->expert_parallel, mesh->expert_rank);
    const params *p = &m->p;
    m->weights = k->alloc(k->ctx, (size_t)p->weights * sizeof(real), "weights");
    m->layer = mem_alloc((size_t)c->model.num_layers * sizeof *m->layer, "layer views");
    m->sample_loss = mem_alloc((size_t)(c->batch * c->seq) * sizeof *m->sample_loss, "losses of sequences");
    m->embedding_VH = m->weights + p->bucket[BUCKET_EMBEDDING].dense_offset;
    for (int64_t l = 0; l < c->model.num_layers; l++) {
        const bucket *b = &p->bucket[BUCKET_LAYER_0 + l];
        m->layer[l] = params_layer(p, m->weights + b->dense_offset, m->weights + b->expert_offset);
    }
    m->head = params_head(p, m->weights + p->bucket[bucket_head(p)].dense_offset);
    m->mtp_on = p->mtp;
    if (p->mtp) m->mtp = params_mtp(p, m->weights + p->bucket[bucket_mtp(p)].dense_offset);
}

void model_rope(model *m, double theta) {
    if (m->x.c.rope_theta == theta) return;
    m->x.c.rope_theta = theta;
    fill_rope(&m->x);
}

void model_destroy(model *m) {
    const kernels *k = m->x.k;
    params_free(&m->p);
    transport_close(m->x.transport);
    k->free(k->ctx, m->weights);
    k->free(k->ctx, m->latents);
    k->free(k->ctx, m->kept.base);
    k->free(k->ctx, m->shared.base);
    mem_free(m->layer);
    mem_free(m->sample_loss);
    arena_destroy(&m->host);
    *m = (model){0};
}

/* ---- a micro-batch ---- */

/* Ids and targets of tokens [batch, seq + 2].  With a document mask the first token of a document is no
 * target, and a row sees no further back than its document's start; the MTP head predicts only inside the
 * document of its h_t. */
static void read_tokens(model *m, const int32_t *tokens) {
    context *x = &m->x;
    token_rows *r = &m->host_rows;
    int mask = x->c.document_mask;
    m->counted = m->counted2 = 0;
    for (int64_t b = 0; b < x->batch; b++) {
        const int32_t *in = tokens + b * (x->seq + 2);
        int32_t first = 0;
        for (int64_t t = 0; t < x->seq; t++) {
            int64_t i = b * x->seq + t;
            int ends = mask && in[t] == m->eos, next_ends = mask && in[t + 1] == m->eos;
            r->ids_T[i] = in[t];
            r->next_T[i] = in[t + 1];
            r->target_T[i] = ends ? -1 : in[t + 1];
            r->target2_T[i] = ends || next_ends ? -1 : in[t + 2];
            r->first_key_T[i] = first;
            if (ends) first = (int32_t)t + 1;
            m->counted += r->target_T[i] >= 0;
            m->counted2 += r->target2_T[i] >= 0;
        }
    }
    x->first_key = mask ? m->rows.first_key_T : NULL;
}

/* What the host knows of the tokens, and the router's biases, become the kernels'. */
static void tell_kernels(const model *m) {
    const context *x = &m->x;
    const kernels *k = x->k;
    const token_rows *r = &m->rows, *host = &m->host_rows;
    size_t bytes = (size_t)x->tokens * sizeof(int32_t);
    twin_write(k, r->ids_T, host->ids_T, bytes);
    twin_write(k, r->next_T, host->next_T, bytes);
    twin_write(k, r->target_T, host->target_T, bytes);
    twin_write(k, r->target2_T, host->target2_T, bytes);
    twin_write(k, r->first_key_T, host->first_key_T, bytes);
    twin_write(k, m->bias_LE, m->router_bias_LE,
               (size_t)(x->c.num_layers * experts_total(&x->c)) * sizeof *m->bias_LE);
}

static real *output_of(const model *m, int64_t layer) {
    return layer + 1 < m->x.c.num_layers ? m->saved[layer + 1].x_TH : m->hidden_TH;
}

/* From the tokens to m->final_TH. */
static void forward(model *m) {
    context *x = &m->x;
    const kernels *k = x->k;
    int64_t layers = x->c.num_layers, h = x->c.hidden_size;
    tell_kernels(m);
    k->embedding_forward(k->ctx, x->tokens, h, m->saved[0].x_TH, m->embedding_VH, m->rows.ids_T);
    for (int64_t l = 0; l < layers; l++) {
        context_enter_layer(x, l);
        TRACED(x, "layer",
               layer_forward(x, &m->saved[l], &m->layer[l], m->bias_LE + l * experts_total(&x->c),
                             m->loss_scale, output_of(m, l)));
    }
    context_enter_layer(x, -1);
    norm_forward(x, m->final_TH, m->rstd_final_T, m->hidden_TH, m->head.norm);
}

void model_forward(model *m, const int32_t *tokens, int64_t batch, int64_t seq, double loss_scale) {
    context *x = &m->x;
    REQUIRE(!m->latents);
    x->batch = batch;
    x->seq = seq;
    x->tokens = batch * seq;
    m->loss_scale = loss_scale;
    read_tokens(m, tokens);
    forward(m);
}

/* ---- continuing a text ---- */

void model_continue(model *m) {
    context *x = &m->x;
    int64_t kl = x->c.kv_lora_rank, rope = x->c.qk_rope_head_dim, attentions = 2 * x->c.num_layers;
    if (!m->latents)
        m->latents = x->k->alloc(x->k->ctx, (size_t)(attentions * x->max_seq * (kl + rope)) * sizeof(real),
                                 "latents of the past");
    real *at = m->latents;
    for (int64_t l = 0; l < x->c.num_layers; l++)
        for (int i = 0; i < 2; i++) {
            m->saved[l].mla[i].past_ckv = at;
            m->saved[l].mla[i].past_k_rope = at + x->max_seq * kl;
            at += x->max_seq * (kl + rope);
        }
    x->past = x->tokens = 0;
    m->document_start = 0;
}

void model_extend(model *m, const int32_t *ids, int64_t n) {
    context *x = &m->x;
    x->past += x->tokens;
    REQUIRE(m->latents && n > 0 && x->past + n <= x->max_seq);
    x->batch = 1;
    x->seq = x->tokens = n;
    m->loss_scale = 0;
    for (int64_t i = 0; i < n; i++) {
        m->host_rows.ids_T[i] = ids[i];
        m->host_rows.first_key_T[i] = m->document_start;
        if (ids[i] == m->eos) m->document_start = (int32_t)(x->past + i + 1);
    }
    x->first_key = x->c.document_mask ? m->rows.first_key_T : NULL;
    forward(m);
}

/* ---- losses ---- */

static double mean(const real *x, int64_t n, int64_t counted) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i];
    return counted ? sum / (double)counted : 0;
}

static double share(double scale, int64_t counted) {
    return counted ? scale / (double)counted : 0;
}

static void read_stats(model *m) {
    const context *x = &m->x;
    const token_rows *r = &m->rows, *host = &m->host_rows;
    int64_t t = x->tokens, seq = x->seq;
    size_t bytes = (size_t)t * sizeof(real);
    twin_fetch(x->k, host->loss_T, r->loss_T, bytes);
    twin_fetch(x->k, host->z_T, r->z_T, bytes);
    twin_fetch(x->k, host->sum_sq_T, r->sum_sq_T, bytes);
    if (m->mtp_on) twin_fetch(x->k, m->mtp_saved.loss_host, m->mtp_saved.loss_T, bytes);
    twin_fetched(x->k);
    m->stats = (model_stats){.lm = mean(host->loss_T, t, m->counted), .z = mean(host->z_T, t, t)};
    if (m->mtp_on) m->stats.mtp = mean(m->mtp_saved.loss_host, t, m->counted2);
    for (int64_t i = 0; i < t; i++) m->stats.hidden_l2 += sqrt((double)host->sum_sq_T[i]) / (double)t;
    for (int64_t b = 0; b < x->batch; b++) {
        int64_t counted = 0;
        for (int64_t i = b * seq; i < (b + 1) * seq; i++) counted += host->target_T[i] >= 0;
        m->sample_loss[b] = mean(host->loss_T + b * seq, seq, counted);
    }
}

/* The hidden z-loss of a layer's output, of use only behind the last, and its rows' largest elements. */
static void watch_output(const model *m, int64_t l, double scale, real *dx) {
    const context *x = &m->x;
    const token_rows *r = &m->rows;
    x->k->hidden_z(x->k->ctx, x->tokens, x->c.hidden_size, scale, r->z_T, r->sum_sq_T, m->saved[l].max_T, dx,
                   output_of(m, l));
}

void model_evaluate(model *m, real *loss) {
    context *x = &m->x;
    const kernels *k = x->k;
    token_rows *r = &m->rows;
    size_t ids = (size_t)x->tokens * sizeof(int32_t);
    head_loss(x, r->loss_T, m->mtp_on ? r->best_T : NULL, NULL, NULL, 0, m->final_TH, m->head.lm_head,
              r->target_T, 0, m->logits);
    if (m->mtp_on) {
        mtp_saved *s = &m->mtp_saved;
        mtp_forward(x, s, &m->mtp, m->embedding_VH, m->final_TH, r->next_T);
        head_loss(x, s->loss_T, r->best2_T, NULL, NULL, 0, s->final_TH, m->head.lm_head, r->target2_T, 0,
                  m->logits);
    }
    watch_output(m, x->c.num_layers - 1, 0, NULL);
    read_stats(m);
    if (m->mtp_on) {
        twin_read(k, m->host_rows.best_T, r->best_T, ids);
        twin_read(k, m->host_rows.best2_T, r->best2_T, ids);
    }
    if (loss) memcpy(loss, m->host_rows.loss_T, (size_t)x->tokens * sizeof(real));
}

void model_head_backward(model *m, real *embedding, real *head, real *mtp) {
    context *x = &m->x;
    real *dfinal = m->d_TH[0];
    head_tensors g = params_head(&m->p, head);
    head_loss(x, m->rows.loss_T, NULL, dfinal, g.lm_head, x->accumulate, m->final_TH, m->head.lm_head,
              m->rows.target_T, share(m->loss_scale, m->counted), m->logits);
    embedding_gradient_begin(x, &m->dembedding, embedding,
                             (const int32_t *[]){m->rows.ids_T, m->mtp_on ? m->rows.next_T : NULL},
                             (const int32_t *[]){m->host_rows.ids_T, m->mtp_on ? m->host_rows.next_T : NULL});
    if (m->mtp_on) {
        mtp_saved *s = &m->mtp_saved;
        mtp_tensors gm = params_mtp(&m->p, mtp);
        mtp_forward(x, s, &m->mtp, m->embedding_VH, m->final_TH, m->rows.next_T);
        head_loss(x, s->loss_T, NULL, s->dfinal_TH, g.lm_head, 1, s->final_TH, m->head.lm_head,
                  m->rows.target2_T, share(m->loss_scale * x->loss.mtp_coef, m->counted2), m->logits);
        mtp_backward(x, s, &m->mtp, &gm, m->final_TH, dfinal, m->dembedding.sum,
                     m->dembedding.row_T[EMBED_NEXT]);
    }
    norm_backward(x, m->dhidden_TH, NULL, g.norm, dfinal, m->hidden_TH, m->rstd_final_T, m->head.norm);
    watch_output(m, x->c.num_layers - 1, share(m->loss_scale * x->loss.hidden_z_coef, x->tokens),
                 m->dhidden_TH);
    read_stats(m);
}

void model_layer_backward(model *m, int64_t l, real *dense, real *const *class_grad, const int *class_of) {
    layer_tensors g = params_layer(&m->p, dense, NULL);
    context_enter_layer(&m->x, l);
    if (l + 1 < m->x.c.num_layers) watch_output(m, l, 0, NULL); /* the last one's is the head's to watch */
    TRACED(
        &m->x, "layer",
        layer_backward(&m->x, &m->saved[l], &m->layer[l], &g, class_grad, class_of, m->dhidden_TH, m->d_TH));
}

void model_embedding_backward(model *m, real *embedding) {
    const kernels *k = m->x.k;
    context_enter_layer(&m->x, -1);
    const embedding_gradient *e = &m->dembedding;
    k->embedding_backward(k->ctx, m->x.tokens, m->x.c.hidden_size, e->sum, m->dhidden_TH,
                          e->row_T[EMBED_TOKENS]);
    embedding_gradient_end(&m->x, e, embedding);
    for (int64_t l = 0; l < m->x.c.num_layers; l++) {
        layer_saved *s = &m->saved[l];
        moe_read_stats(&m->x, &s->moe);
        twin_fetch(k, s->max_host_T, s->max_T, (size_t)m->x.tokens * sizeof *s->max_T);
    }
    twin_fetched(k);
}

double model_layer_max(const model *m, int64_t layer) {
    double most = 0;
    for (int64_t t = 0; t < m->x.tokens; t++) {
        double x = (double)m->saved[layer].max_host_T[t];
        if (x > most || isnan(x)) most = x; /* NaN stays: nothing is above it */
    }
    return most;
}

void model_logits(model *m, int64_t row, real *logits) {
    const kernels *k = m->x.k;
    int64_t h = m->x.c.hidden_size, v = m->x.c.vocab_size;
    k->gemm(k->ctx, GEMM_NT, 1, v, h, m->logits, v, NULL, m->final_TH + row * h, h, m->head.lm_head, h);
    k->to_host(k->ctx, logits, m->logits, (size_t)v * sizeof(real));
}
