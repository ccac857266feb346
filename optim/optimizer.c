#include "optim/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <xxhash.h>

#include "kernels/math.h"
#include "kernels/twin.h"

/* Adds the pieces of one range [lo, hi) of a bucket's dense or expert array: owned, its gradient and moments
 * at `at`, or copied (at < 0). */
static void add_pieces(optimizer *o, int64_t number, int experts, int64_t lo, int64_t hi, int64_t at) {
    const bucket *b = &o->p->bucket[number];
    for (int64_t i = b->first; i < b->first + b->params; i++) {
        const param *q = &o->p->param[i];
        if ((q->expert >= 0) != experts || q->offset < 0) continue;
        int64_t from = q->offset > lo ? q->offset : lo,
                to = q->offset + q->count < hi ? q->offset + q->count : hi;
        if (from >= to) continue;
        int64_t owned = at + from - lo;
        real *w = o->weights + (experts ? b->expert_offset : b->dense_offset) + from;
        piece all = {i, from - q->offset, to - from, w, NULL, NULL, NULL};
        if (at < 0) {
            o->copy[o->copies++] = all;
            continue;
        }
        all.gradient = o->g->owned + owned;
        all.m = o->m + owned;
        all.v = o->v + owned;
        o->piece[o->pieces++] = all;
    }
}

void optimizer_create(optimizer *o, const optim_config *c, const params *p, real *weights, gradients *g,
                      const kernels *k, const mesh *mesh) {
    *o = (optimizer){.c = *c, .p = p, .k = k, .mesh = mesh, .g = g, .weights = weights};
    for (int group = 0; group < PARAM_GROUPS; group++) o->lr_factor[group] = 1;
    size_t owned = (size_t)g->owned_count * sizeof(real);
    o->m = k->alloc(k->ctx, owned, "first moments");
    o->v = k->alloc(k->ctx, owned, "second moments");
    o->piece = mem_alloc((size_t)p->n * sizeof *o->piece, "the optimizer's pieces");
    o->copy = mem_alloc((size_t)(2 * p->n) * sizeof *o->copy, "the optimizer's pieces");
    size_t sums = (size_t)p->blocks * sizeof *o->block_sums;
    size_t digests = (size_t)p->blocks * sizeof *o->block_digests;
    o->sums_table = k->alloc(k->ctx, sums, "block sums");
    o->digests_table = k->alloc(k->ctx, digests, "block digests");
    o->block_sums = twin_alloc(k, o->sums_table, sums, "block sums");
    o->block_digests = twin_alloc(k, o->digests_table, digests, "block digests");
    o->byte_cut = mem_alloc((size_t)(mesh->ranks + 1) * sizeof *o->byte_cut, "weight parts");
    for (int64_t b = 0; b < p->buckets; b++) {
        const int64_t *dense = g->dense_cut + b * (mesh->ranks + 1) + mesh->rank;
        const int64_t *expert = g->expert_cut + b * (mesh->groups + 1) + mesh->group;
        add_pieces(o, b, 0, dense[0], dense[1], g->dense_at[b]);
        add_pieces(o, b, 1, expert[0], expert[1], g->expert_at[b]);
        for (int experts = 0; experts < 2; experts++) {
            const int64_t *mine = experts ? expert : dense;
            add_pieces(o, b, experts, 0, mine[0], -1);
            add_pieces(o, b, experts, mine[1], INT64_MAX, -1);
        }
    }
}

void optimizer_transfer(optimizer *o, const transfer_config *c, int64_t hidden) {
    for (int group = 0; group < PARAM_GROUPS; group++)
        o->lr_factor[group] = transfer_of(c, hidden, (enum param_group)group).lr;
}

void optimizer_destroy(optimizer *o) {
    const kernels *k = o->k;
    if (!k) return;
    twin_free(o->sums_table, o->block_sums);
    twin_free(o->digests_table, o->block_digests);
    k->free(k->ctx, o->sums_table);
    k->free(k->ctx, o->digests_table);
    k->free(k->ctx, o->m);
    k->free(k->ctx, o->v);
    mem_free(o->piece);
    mem_free(o->copy);
    mem_free(o->byte_cut);
    *o = (optimizer){0};
}

/* A bucket's dense parameters or its experts, in words. */
static void name_group(const params *p, int64_t number, int experts, char *text, size_t size) {
    if (number == BUCKET_EMBEDDING) snprintf(text, size, "the embedding");
    else if (number == bucket_head(p)) snprintf(text, size, "the head");
    else if (p->mtp && number == bucket_mtp(p)) snprintf(text, size, "the MTP head");
    else
        snprintf(text, size, "%s layer %lld", experts ? "the experts of" : "the dense parameters of",
                 (long long)(number - BUCKET_LAYER_0));
}

static int waits(const optimizer *o, int64_t bucket) {
    return o->mtp_waits && bucket == bucket_mtp(o->p);
}

/* A table of 8 bytes a block. */
static void zero_blocks(const optimizer *o, void *table) {
    o->k->zero(o->k->ctx, o->p->blocks * (int64_t)(sizeof(uint64_t) / sizeof(real)), table);
}

static double clip_factor(const optim_config *c, double norm) {
    double factor = c->clip / (norm + 1e-6);
    return c->clip > 0 && factor < 1 ? factor : 1;
}

gradient_figures optimizer_gradient(optimizer *o) {
    const params *p = o->p;
    zero_blocks(o, o->sums_table);
    for (int64_t i = 0, count; i < o->pieces;) {
        const piece *q = &o->piece[i];
        i += pieces_in_a_row(p, q, o->pieces - i, &count);
        if (waits(o, p->param[q->param].bucket)) continue;
        o->k->sum_squares(o->k->ctx, count, o->sums_table + piece_block(o->p, q), q->gradient);
    }
    twin_read(o->k, o->block_sums, o->sums_table, (size_t)p->blocks * sizeof *o->block_sums);
    comm_sum_disjoint_f64(o->mesh->world, "gradient norm", o->block_sums, (size_t)p->blocks);
    gradient_figures f = {.rms_min = INFINITY};
    double total = 0;
    for (int64_t b = 0; b < p->buckets; b++) {
        double sum[2] = {0, 0}, count[2] = {0, 0}; /* dense, experts */
        for (int64_t i = p->bucket[b].first; i < p->bucket[b].first + p->bucket[b].params; i++) {
            const param *q = &p->param[i];
            int64_t end = i + 1 < p->n ? p->param[i + 1].first_block : p->blocks;
            for (int64_t k = q->first_block; k < end; k++) {
                total += o->block_sums[k];
                sum[q->expert >= 0] += o->block_sums[k];
            }
            count[q->expert >= 0] += (double)q->count;
        }
        for (int kind = 0; kind < 2; kind++) {
            if (!count[kind] || waits(o, b)) continue;
            double rms = sqrt(sum[kind] / count[kind]);
            if (rms < f.rms_min) {
                f.rms_min = rms;
                name_group(p, b, kind, f.rms_min_group, sizeof f.rms_min_group);
            }
            f.rms_max = rms > f.rms_max ? rms : f.rms_max;
        }
    }
    f.norm = sqrt(total);
    /* what clipping leaves must have squares that a second moment can hold: infinity would stay there, and
     * hold the parameter where it is */
    f.finite = isfinite(f.norm) && f.norm * clip_factor(&o->c, f.norm) < 1e19;
    return f;
}

double optimizer_learning_rate(const optim_config *c, int64_t step) {
    double lr = c->lr, end = c->min_lr_ratio;
    int64_t horizon = c->schedule_steps;
    if (step < c->warmup_steps) return lr * (double)(step + 1) / (double)c->warmup_steps;
    if (c->schedule == LR_COSINE) {
        double done = (double)(step - c->warmup_steps) /
                      (double)(horizon > c->warmup_steps ? horizon - c->warmup_steps : 1);
        return lr * (end + (1 - end) * 0.5 * (1 + fixed_cos(M_PI * (done < 1 ? done : 1))));
    }
    if (c->schedule == LR_WSD && step >= horizon - c->decay_steps) {
        double left = step < horizon ? (double)(horizon - step) / (double)(c->decay_steps + 1) : 0;
        return lr * (end + (1 - end) * left);
    }
    return lr;
}

/* The next copy from number `at` on that lies in this bucket, or NULL. */
static const piece *copy_in(const optimizer *o, int64_t at, int64_t bucket) {
    return at < o->copies && o->p->param[o->copy[at].param].bucket == bucket ? &o->copy[at] : NULL;
}

/* Every rank gets the parts of the weights that others updated. */
static void gather_weights(optimizer *o) {
    const mesh *m = o->mesh;
    int64_t first = 0, end = 0; /* copies in this bucket */
    for (int64_t i = 0; i < o->p->buckets; i++, first = end) {
        while (copy_in(o, end, i)) end++;
        if (o->guard) guard_verify(o->guard, o->copy + first, end - first);
        const bucket *b = &o->p->bucket[i];
        const int64_t *dense = o->g->dense_cut + i * (m->ranks + 1),
                      *expert = o->g->expert_cut + i * (m->groups + 1);
        for (int r = 0; r <= m->ranks; r++) o->byte_cut[r] = (size_t)dense[r] * sizeof(real);
        transport_all_gather_ranges(o->g->world, "gather of weights", o->weights + b->dense_offset,
                                    o->byte_cut);
        for (int r = 0; r <= m->groups; r++) o->byte_cut[r] = (size_t)expert[r] * sizeof(real);
        if (b->expert_count)
            transport_all_gather_ranges(o->g->replicas, "gather of experts", o->weights + b->expert_offset,
                                        o->byte_cut);
        if (o->guard) guard_note(o->guard, o->copy + first, end - first);
    }
}

static adamw_step step_of(const optimizer *o, const param *w, double lr, double clip) {
    const optim_config *c = &o->c;
    double t = (double)(o->p->mtp && w->bucket == bucket_mtp(o->p) ? o->mtp_steps : o->steps);
    return (adamw_step){.lr = lr * o->lr_factor[w->group],
                        .beta1 = c->beta1,
                        .beta2 = c->beta2,
                        .eps = c->eps,
                        .grad_scale = clip,
                        .weight_decay = w->group == GROUP_NORM ? 0 : c->weight_decay,
                        .correction1 = 1 - fixed_pow(c->beta1, t),
                        .correction2 = 1 - fixed_pow(c->beta2, t)};
}

/* Verified, updated and noted in runs that stay in the cache meanwhile. */
static void update_in_runs(optimizer *o, double lr, double clip) {
    enum { RUN = 16 * SUM_BLOCK };
    for (int64_t i = 0; i < o->pieces; i++) {
        const piece *q = &o->piece[i];
        const param *w = &o->p->param[q->param];
        adamw_step s = step_of(o, w, lr, clip);
        for (int64_t at = 0; at < q->count; at += RUN) {
            int64_t n = q->count - at < RUN ? q->count - at : RUN;
            piece run = {q->param, q->offset + at, n, q->weight + at, q->gradient + at, q->m + at, q->v + at};
            if (o->guard) guard_verify(o->guard, &run, 1);
            if (!waits(o, w->bucket)) o->k->adamw(o->k->ctx, n, s, run.weight, run.m, run.v, run.gradient);
            if (o->guard) guard_note(o->guard, &run, 1);
        }
    }
}

/* A device is given all of each at a time: digests are waited for. */
static void update_at_once(optimizer *o, double lr, double clip) {
    if (o->guard) guard_verify(o->guard, o->piece, o->pieces);
    for (int64_t i = 0, count; i < o->pieces;) {
        const piece *q = &o->piece[i];
        const param *w = &o->p->param[q->param];
        i += pieces_in_a_row(o->p, q, o->pieces - i, &count);
        if (waits(o, w->bucket)) continue;
        o->k->adamw(o->k->ctx, count, step_of(o, w, lr, clip), q->weight, q->m, q->v, q->gradient);
    }
    if (o->guard) guard_note(o->guard, o->piece, o->pieces);
}

void optimizer_update(optimizer *o, double lr, double norm) {
    double clip = clip_factor(&o->c, norm);
    o->steps++;
    if (o->p->mtp && !o->mtp_waits) o->mtp_steps++;
    (o->k->host_memory ? update_in_runs : update_at_once)(o, lr, clip);
    gather_weights(o);
}

void optimizer_guard_note(optimizer *o) {
    guard_note(o->guard, o->piece, o->pieces);
    guard_note(o->guard, o->copy, o->copies);
}

void optimizer_guard_verify(optimizer *o) {
    guard_verify(o->guard, o->piece, o->pieces);
    guard_verify(o->guard, o->copy, o->copies);
}

uint64_t optimizer_digest(optimizer *o, int which) {
    zero_blocks(o, o->digests_table);
    for (int64_t i = 0, count; i < o->pieces;) {
        const piece *q = &o->piece[i];
        const real *x = which == 0 ? q->weight : which == 1 ? q->m : q->v;
        i += pieces_in_a_row(o->p, q, o->pieces - i, &count);
        o->k->digest(o->k->ctx, count, o->digests_table + piece_block(o->p, q), x);
    }
    twin_read(o->k, o->block_digests, o->digests_table, (size_t)o->p->blocks * sizeof *o->block_digests);
    comm_sum_disjoint_u64(o->mesh->world, "digest of parameters", o->block_digests, (size_t)o->p->blocks);
    return XXH3_64bits(o->block_digests, (size_t)o->p->blocks * sizeof *o->block_digests);
}

uint64_t optimizer_bucket_digest(const optimizer *o, int64_t bucket) {
    const params *p = o->p;
    int64_t first = p->param[p->bucket[bucket].first].first_block;
    int64_t end = bucket + 1 < p->buckets ? p->param[p->bucket[bucket + 1].first].first_block : p->blocks;
    return XXH3_64bits(o->block_digests + first, (size_t)(end - first) * sizeof *o->block_digests);
}
