#include "model/params.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "launch/error.h"
#include "launch/memory.h"

/* The table is built by one walk; `holder` says which experts this rank has. */
typedef struct builder {
    params *p;
    int64_t capacity, experts_local, first_expert, bucket;
} builder;

__attribute__((format(printf, 6, 7))) static void add(builder *b, enum param_group group, int64_t expert,
                                                      int64_t rows, int64_t cols, const char *format, ...) {
    params *p = b->p;
    if (p->n == b->capacity) {
        b->capacity = b->capacity ? 2 * b->capacity : 256;
        p->param = mem_grow(p->param, (size_t)b->capacity * sizeof *p->param, "the parameter table");
    }
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    bucket *k = &p->bucket[b->bucket];
    int64_t count = rows * (cols ? cols : 1);
    param *q = &p->param[p->n++];
    *q = (param){.name = mem_string(name),
                 .rank = cols ? 2 : 1,
                 .shape = {rows, cols},
                 .count = count,
                 .group = group,
                 .bucket = b->bucket,
                 .expert = expert,
                 .offset = -1,
                 .first_block = p->blocks};
    p->blocks += (count + SUM_BLOCK - 1) / SUM_BLOCK;
    if (expert < 0) {
        q->offset = k->dense_count;
        k->dense_count += count;
    } else if (expert >= b->first_expert && expert < b->first_expert + b->experts_local) {
        q->offset = k->expert_count;
        k->expert_count += count;
    }
    k->params++;
}

static void add_mla(builder *b, const char *prefix) {
    const model_config *c = &b->p->model;
    int64_t h = c->hidden_size, heads = c->num_attention_heads, nope = c->qk_nope_head_dim,
            rope = c->qk_rope_head_dim, v = c->v_head_dim;
    add(b, GROUP_HIDDEN, -1, c->q_lora_rank, h, "%sq_a_proj.weight", prefix);
    add(b, GROUP_HIDDEN, -1, c->kv_lora_rank + rope, h, "%skv_a_proj_with_mqa.weight", prefix);
    add(b, GROUP_NORM, -1, c->q_lora_rank, 0, "%sq_a_layernorm.weight", prefix);
    add(b, GROUP_HIDDEN, -1, heads * (nope + rope), c->q_lora_rank, "%sq_b_proj.weight", prefix);
    add(b, GROUP_NORM, -1, c->kv_lora_rank, 0, "%skv_a_layernorm.weight", prefix);
    add(b, GROUP_HIDDEN, -1, heads * (nope + v), c->kv_lora_rank, "%skv_b_proj.weight", prefix);
    add(b, GROUP_HIDDEN, -1, h, heads * v, "%so_proj.weight", prefix);
}

static void add_ffn(builder *b, int64_t expert, int64_t inner, const char *prefix) {
    int64_t h = b->p->model.hidden_size;
    add(b, GROUP_HIDDEN, expert, inner, h, "%sgate_proj.weight", prefix);
    add(b, GROUP_HIDDEN, expert, inner, h, "%sup_proj.weight", prefix);
    add(b, GROUP_HIDDEN, expert, h, inner, "%sdown_proj.weight", prefix);
}

static void add_layer(builder *b, int64_t layer) {
    const model_config *c = &b->p->model;
    char prefix[128];
    for (int i = 0; i < 2; i++) {
        add(b, GROUP_NORM, -1, c->hidden_size, 0, "model.layers.%lld.input_layernorm.%d.weight",
            (long long)layer, i);
        snprintf(prefix, sizeof prefix, "model.layers.%lld.self_attn.%d.", (long long)layer, i);
        add_mla(b, prefix);
        add(b, GROUP_NORM, -1, c->hidden_size, 0, "model.layers.%lld.post_attention_layernorm.%d.weight",
            (long long)layer, i);
        snprintf(prefix, sizeof prefix, "model.layers.%lld.mlps.%d.", (long long)layer, i);
        add_ffn(b, -1, c->ffn_hidden_size, prefix);
    }
    add(b, GROUP_HIDDEN, -1, c->n_routed_experts + c->zero_expert_num, c->hidden_size,
        "model.layers.%lld.mlp.router.classifier.weight", (long long)layer);
    for (int64_t n = 0; n < c->n_routed_experts; n++) {
        snprintf(prefix, sizeof prefix, "model.layers.%lld.mlp.experts.%lld.", (long long)layer,
                 (long long)n);
        add_ffn(b, n, c->expert_ffn_hidden_size, prefix);
    }
}

static void add_mtp(builder *b) {
    int64_t h = b->p->model.hidden_size;
    const char *prefix = "model.mtp.layers.0.";
    add(b, GROUP_NORM, -1, h, 0, "%senorm.m.weight", prefix);
    add(b, GROUP_NORM, -1, h, 0, "%shnorm.m.weight", prefix);
    add(b, GROUP_HIDDEN, -1, h, 2 * h, "%seh_proj.weight", prefix);
    add(b, GROUP_NORM, -1, h, 0, "%sinput_layernorm.weight", prefix);
    add_mla(b, "model.mtp.layers.0.self_attn.");
    add(b, GROUP_NORM, -1, h, 0, "%spost_attention_layernorm.weight", prefix);
    add_ffn(b, -1, b->p->model.ffn_hidden_size, "model.mtp.layers.0.transformer_layer.mlp.");
    add(b, GROUP_NORM, -1, h, 0, "model.mtp.norm.weight");
}

static void open_bucket(builder *b, int64_t number) {
    b->bucket = number;
    b->p->bucket[number].first = b->p->n;
}

void params_create(params *p, const model_config *c, int mtp, int expert_parallel, int expert_rank) {
    *p = (params){.model = *c, .mtp = mtp, .buckets = c->num_layers + 2 + (mtp ? 1 : 0)};
    p->bucket = mem_alloc((size_t)p->buckets * sizeof *p->bucket, "the parameter table");
    int64_t local = c->n_routed_experts / expert_parallel;
    builder b = {.p = p, .experts_local = local, .first_expert = local * expert_rank};
    open_bucket(&b, BUCKET_EMBEDDING);
    add(&b, GROUP_EMBEDDING, -1, c->vocab_size, c->hidden_size, "model.embed_tokens.weight");
    for (int64_t layer = 0; layer < c->num_layers; layer++) {
        open_bucket(&b, BUCKET_LAYER_0 + layer);
        add_layer(&b, layer);
    }
    open_bucket(&b, bucket_head(p));
    add(&b, GROUP_NORM, -1, c->hidden_size, 0, "model.norm.weight");
    add(&b, GROUP_UNEMBEDDING, -1, c->vocab_size, c->hidden_size, "lm_head.weight");
    if (mtp) {
        open_bucket(&b, bucket_mtp(p));
        add_mtp(&b);
    }
    for (int64_t i = 0; i < p->buckets; i++) { /* each array begins on a cache line */
        p->bucket[i].dense_offset = p->weights;
        p->weights += params_whole_lines(p->bucket[i].dense_count);
        p->bucket[i].expert_offset = p->weights;
        p->weights += params_whole_lines(p->bucket[i].expert_count);
    }
}

void params_free(params *p) {
    for (int64_t i = 0; i < p->n; i++) mem_free(p->param[i].name);
    mem_free(p->param);
    mem_free(p->bucket);
    *p = (params){0};
}

int64_t params_find(const params *p, const char *name) {
    for (int64_t i = 0; i < p->n; i++)
        if (!strcmp(p->param[i].name, name)) return i;
    return -1;
}

int64_t params_cut(const params *p, int64_t number, int experts, int64_t parts, int64_t s) {
    const bucket *b = &p->bucket[number];
    int64_t count = experts ? b->expert_count : b->dense_count;
    int64_t target = (int64_t)((__int128)count * s / parts);
    for (int64_t i = b->first; i < b->first + b->params; i++) {
        const param *q = &p->param[i];
        if ((q->expert >= 0) != experts || q->offset < 0 || target >= q->offset + q->count) continue;
        int64_t inside = (target - q->offset + SUM_BLOCK - 1) / SUM_BLOCK * SUM_BLOCK;
        return q->offset + (inside < q->count ? inside : q->count);
    }
    return count;
}

int64_t params_part(const params *p, int64_t bucket, int experts, int64_t parts, int64_t s) {
    return params_cut(p, bucket, experts, parts, s + 1) - params_cut(p, bucket, experts, parts, s);
}

int64_t params_largest_part(const params *p, int64_t bucket, int experts, int64_t parts) {
    int64_t most = 0;
    for (int64_t s = 0; s < parts; s++) {
        int64_t n = params_part(p, bucket, experts, parts, s);
        if (n > most) most = n;
    }
    return most;
}

/* ---- views: the same order as the add_* functions above ---- */

static real *take(real **at, int64_t count) {
    real *here = *at;
    *at += count;
    return here;
}

static mla_tensors view_mla(const model_config *c, real **at) {
    int64_t h = c->hidden_size, heads = c->num_attention_heads;
    mla_tensors t;
    t.a = take(at, (c->q_lora_rank + c->kv_lora_rank + c->qk_rope_head_dim) * h);
    t.q_a_norm = take(at, c->q_lora_rank);
    t.q_b = take(at, heads * (c->qk_nope_head_dim + c->qk_rope_head_dim) * c->q_lora_rank);
    t.kv_a_norm = take(at, c->kv_lora_rank);
    t.kv_b = take(at, heads * (c->qk_nope_head_dim + c->v_head_dim) * c->kv_lora_rank);
    t.o = take(at, h * heads * c->v_head_dim);
    return t;
}

static ffn_tensors view_ffn(const model_config *c, int64_t inner, real **at) {
    ffn_tensors t;
    t.gate_up = take(at, 2 * inner * c->hidden_size);
    t.down = take(at, inner * c->hidden_size);
    return t;
}

layer_tensors params_layer(const params *p, real *dense, real *experts) {
    const model_config *c = &p->model;
    layer_tensors t = {0};
    for (int i = 0; i < 2; i++) {
        t.input_norm[i] = take(&dense, c->hidden_size);
        t.mla[i] = view_mla(c, &dense);
        t.post_norm[i] = take(&dense, c->hidden_size);
        t.ffn[i] = view_ffn(c, c->ffn_hidden_size, &dense);
    }
    t.router = dense;
    if (experts) t.experts = view_ffn(c, c->expert_ffn_hidden_size, &experts);
    t.expert_stride = 3 * c->hidden_size * c->expert_ffn_hidden_size;
    return t;
}

head_tensors params_head(const params *p, real *dense) {
    head_tensors t;
    t.norm = take(&dense, p->model.hidden_size);
    t.lm_head = dense;
    return t;
}

mtp_tensors params_mtp(const params *p, real *dense) {
    int64_t h = p->model.hidden_size;
    mtp_tensors t;
    t.embedding_norm = take(&dense, h);
    t.hidden_norm = take(&dense, h);
    t.eh_proj = take(&dense, 2 * h * h);
    t.input_norm = take(&dense, h);
    t.mla = view_mla(&p->model, &dense);
    t.post_norm = take(&dense, h);
    t.ffn = view_ffn(&p->model, p->model.ffn_hidden_size, &dense);
    t.norm = dense;
    return t;
}

/* ---- counting ---- */

static double mla_count(const model_config *c) {
    double h = (double)c->hidden_size, heads = (double)c->num_attention_heads, q = (double)c->q_lora_rank,
           kv = (double)c->kv_lora_rank, nope = (double)c->qk_nope_head_dim,
           rope = (double)c->qk_rope_head_dim, v = (double)c->v_head_dim;
    return (q + kv + rope) * h + q + heads * (nope + rope) * q + kv + heads * (nope + v) * kv + h * heads * v;
}

/* A layer with so many FFN experts in it. */
static double layer_count(const model_config *c, double experts) {
    double h = (double)c->hidden_size;
    return 4 * h + 2 * mla_count(c) + 2 * 3 * h * (double)c->ffn_hidden_size +
           (double)(c->n_routed_experts + c->zero_expert_num) * h +
           experts * 3 * h * (double)c->expert_ffn_hidden_size;
}

double params_active(const model_config *c, double ffn_experts) {
    double h = (double)c->hidden_size;
    return (double)c->num_layers * layer_count(c, ffn_experts) + h + (double)c->vocab_size * h;
}

double params_total(const model_config *c) {
    return params_active(c, (double)c->n_routed_experts) + (double)(c->vocab_size * c->hidden_size);
}
