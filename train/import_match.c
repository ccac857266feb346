#include "train/import_match.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/layout.h"
#include "launch/memory.h"

static const char mtp[] = "model.mtp.", mtp_embedding[] = "model.mtp.embed_tokens.weight";

typedef struct matcher {
    match_list *m;
    const params *p;
    const weights *w;
    const char *directory;
    error *e;
} matcher;

static int by_name(const void *a, const void *b) {
    return strcmp(((const match *)a)->name, ((const match *)b)->name);
}

static int same_shape(const safetensor *t, int rank, const int64_t *shape) {
    return t->rank == rank && !memcmp(t->shape, shape, (size_t)rank * sizeof *shape);
}

static int misshapen(const matcher *x, const safetensor *t, int rank, const int64_t *shape) {
    char has[SHAPE_TEXT], wanted[SHAPE_TEXT];
    return error_set(x->e, EXIT_CORRUPT, "%s: %s has the shape %s; config.json makes it %s", x->directory,
                     t->name, shape_text(t->rank, t->shape, has), shape_text(rank, shape, wanted));
}

/* "model.layers.3.mlp.experts.5.gate_proj.weight" -> which; -1: not an expert's. */
enum { GATE, UP, DOWN };
static int expert_part(const char *name, long long *layer, long long *expert) {
    static const char *const part[] = {"gate", "up", "down"};
    char which[8];
    int end = 0;
    if (sscanf(name, "model.layers.%lld.mlp.experts.%lld.%7[a-z]_proj.weight%n", layer, expert, which,
               &end) != 3 ||
        !end || name[end])
        return -1;
    for (int i = 0; i < 3; i++)
        if (!strcmp(which, part[i])) return i;
    return -1;
}

/* The expert's part of a tensor of all: gate_up_proj [N or N+Z, 2F, H], down_proj [N or N+Z, H, F]. */
static int find_fused(const matcher *x, const char *name, match *found) {
    const model_config *c = &x->p->model;
    int64_t f = c->expert_ffn_hidden_size, h = c->hidden_size, n = c->n_routed_experts;
    long long layer, expert;
    char fused[128];
    int part = expert_part(name, &layer, &expert);
    if (part < 0) return 0;
    snprintf(fused, sizeof fused, "model.layers.%lld.mlp.experts.%s_proj", layer,
             part == DOWN ? "down" : "gate_up");
    const safetensor *t = weights_find(x->w, fused);
    if (!t) return 0;
    int64_t shape[3] = {n, part == DOWN ? h : 2 * f, part == DOWN ? f : h};
    if (t->rank == 3 && t->shape[0] == n + c->zero_expert_num) shape[0] = t->shape[0];
    if (!same_shape(t, 3, shape)) return misshapen(x, t, 3, shape);
    found->from = t;
    found->offset = expert * shape[1] * shape[2] + (part == UP ? f * h : 0);
    return 0;
}

static int add(const matcher *x, const char *name, int rank, const int64_t *shape, int64_t count) {
    match found = {.from = weights_find(x->w, name), .count = count};
    if (found.from && !same_shape(found.from, rank, shape)) return misshapen(x, found.from, rank, shape);
    if (!found.from && find_fused(x, name, &found)) return x->e->code;
    if (!found.from) return error_set(x->e, EXIT_CORRUPT, "%s: %s is missing", x->directory, name);
    found.name = mem_string(name);
    x->m->match[x->m->n++] = found;
    return 0;
}

static int add_all(const matcher *x) {
    const params *p = x->p;
    int64_t experts = p->model.n_routed_experts + p->model.zero_expert_num;
    for (int64_t i = 0; i < p->n; i++)
        if (add(x, p->param[i].name, p->param[i].rank, p->param[i].shape, p->param[i].count))
            return x->e->code;
    for (int64_t l = 0; l < p->model.num_layers; l++) {
        char name[128];
        snprintf(name, sizeof name, "model.layers.%lld.mlp.router.e_score_correction_bias", (long long)l);
        if (add(x, name, 1, &experts, experts)) return x->e->code;
    }
    return 0;
}

/* Theirs that has no counterpart and need not have one. */
static int is_harmless(const matcher *x, const char *name) {
    const model_config *c = &x->p->model;
    long long layer, expert;
    int part = expert_part(name, &layer, &expert);
    if (part >= 0 && expert >= c->n_routed_experts && layer < c->num_layers)
        return expert <
               c->n_routed_experts + c->zero_expert_num; /* an identity expert's, which nothing reads */
    if (!strncmp(name, mtp, strlen(mtp))) return !x->p->mtp || !strcmp(name, mtp_embedding);
    size_t n = strlen(name), m = strlen(".rotary_emb.inv_freq");
    return n > m && !strcmp(name + n - m, ".rotary_emb.inv_freq");
}

static int by_source(const void *a, const void *b) {
    const safetensor *x = ((const match *)a)->from, *y = ((const match *)b)->from;
    return (x > y) - (x < y);
}

static int check_extra(const matcher *x) {
    match_list *m = x->m;
    qsort(m->match, (size_t)m->n, sizeof *m->match, by_source);
    for (int64_t i = 0; i < x->w->tensors; i++) {
        match key = {.from = x->w->tensor[i]};
        const char *name = key.from->name;
        if (bsearch(&key, m->match, (size_t)m->n, sizeof key, by_source) || is_harmless(x, name)) continue;
        return error_set(x->e, EXIT_CORRUPT, "%s: %s is no tensor of the model that config.json describes",
                         x->directory, name);
    }
    qsort(m->match, (size_t)m->n, sizeof *m->match, by_name);
    return 0;
}

int match_create(match_list *m, const params *p, const weights *w, const char *directory, error *e) {
    matcher x = {m, p, w, directory, e};
    *m = (match_list){.match =
                          mem_alloc((size_t)(p->n + p->model.num_layers) * sizeof *m->match, "the tensors")};
    if (add_all(&x) || check_extra(&x)) {
        match_free(m);
        return e->code;
    }
    return 0;
}

void match_free(match_list *m) {
    for (int64_t i = 0; i < m->n; i++) mem_free(m->match[i].name);
    mem_free(m->match);
    *m = (match_list){0};
}

const match *match_find(const match_list *m, const char *name) {
    match key = {.name = (char *)name};
    return bsearch(&key, m->match, (size_t)m->n, sizeof key, by_name);
}

int match_has_mtp(const weights *w) {
    for (int64_t i = 0; i < w->tensors; i++)
        if (!strncmp(w->tensor[i]->name, mtp, strlen(mtp))) return 1;
    return 0;
}
