#include "optim/gradients.h"

#include "launch/memory.h"

static int slot_of(const gradients *g, int64_t bucket) {
    if (bucket == BUCKET_EMBEDDING) return SLOT_EMBEDDING;
    if (bucket == bucket_head(g->p)) return SLOT_HEAD;
    if (g->p->mtp && bucket == bucket_mtp(g->p)) return SLOT_MTP;
    return SLOT_LAYER_0 + (int)(bucket % g->layer_slots);
}

/* A rank alone folds at once, and one buffer stays in the cache. */
int gradients_layer_slots(const mesh *m, int shares) {
    return m->ranks == 1 ? 1 : shares ? 3 : 2;
}

static real *room(gradients *g, int64_t n, const char *what) {
    g->bytes += (size_t)n * sizeof(real);
    return g->k->alloc(g->k->ctx, (size_t)n * sizeof(real), what);
}

/* For what others get. */
static real *sent_room(gradients *g, transport *t, int64_t n, const char *what) {
    g->bytes += (size_t)n * sizeof(real);
    return transport_alloc(t, (size_t)n * sizeof(real), what);
}

/* Is a bucket's buffer in this turn the sum itself? */
static int in_place(const gradients *g, int64_t bucket, int64_t turn) {
    return g->mesh->ranks == 1 && !g->local && (turn == 0 || bucket == BUCKET_EMBEDDING);
}

/* Room for the gradient of a bucket's dense part while it fills and travels. */
static void slot_create(gradients *g, gradient_slot *s, int64_t bucket) {
    s->bucket = -1;
    if (s->part || !g->p->bucket[bucket].dense_count) return; /* all layers are alike */
    s->part = params_largest_part(g->p, bucket, 0, g->mesh->ranks);
    if (!g->local && !in_place(g, bucket, 1))
        s->buffer = sent_room(g, g->world, g->p->bucket[bucket].dense_count, "a gradient buffer");
}

static void local_create(gradients *g) {
    int64_t n = 0;
    g->local_at = mem_alloc((size_t)g->p->buckets * sizeof(int64_t), "gradient parts");
    for (int64_t b = 0; b < g->p->buckets; b++) {
        g->local_at[b] = n;
        n += params_whole_lines(g->p->bucket[b].dense_count);
    }
    g->local = sent_room(g, g->world, n, "this rank's gradients");
}

void gradients_create(gradients *g, const params *p, const kernels *k, const mesh *mesh) {
    *g = (gradients){.p = p, .k = k, .mesh = mesh, .classes = mesh_accumulators(mesh)};
    int64_t ranks = mesh->ranks, groups = mesh->groups, most_expert = 0;
    g->world = transport_open(mesh->world, k);
    g->replicas = transport_open(mesh->replicas, k);
    g->layer_slots = gradients_layer_slots(mesh, transport_shares(g->world));
    g->parts =
        mem_alloc((size_t)(2 * (ranks + mesh->replica_classes * groups)) * sizeof *g->parts, "message lists");
    g->part =
        mem_alloc((size_t)(ranks > mesh->replica_classes ? ranks : mesh->replica_classes) * sizeof *g->part,
                  "message lists");
    g->dense_cut = mem_alloc((size_t)(p->buckets * (ranks + 1)) * sizeof(int64_t), "gradient parts");
    g->expert_cut = mem_alloc((size_t)(p->buckets * (groups + 1)) * sizeof(int64_t), "gradient parts");
    g->dense_at = mem_alloc((size_t)p->buckets * sizeof(int64_t), "gradient parts");
    g->expert_at = mem_alloc((size_t)p->buckets * sizeof(int64_t), "gradient parts");
    g->class_at = mem_alloc((size_t)p->buckets * sizeof(int64_t), "gradient parts");
    g->class_of_layer =
        mem_alloc((size_t)mesh->replica_classes * sizeof *g->class_of_layer, "gradient parts");
    if (!mesh->rank_invariant && mesh->turns > 1) local_create(g);
    for (int64_t b = 0; b < p->buckets; b++) {
        int64_t *dense = g->dense_cut + b * (ranks + 1), *expert = g->expert_cut + b * (groups + 1);
        for (int64_t i = 0; i <= ranks; i++) dense[i] = params_cut(p, b, 0, ranks, i);
        for (int64_t i = 0; i <= groups; i++) expert[i] = params_cut(p, b, 1, groups, i);
        g->dense_at[b] = g->owned_count;
        g->owned_count += params_whole_lines(dense[mesh->rank + 1] - dense[mesh->rank]);
        g->expert_at[b] = g->owned_count;
        g->owned_count += params_whole_lines(expert[mesh->group + 1] - expert[mesh->group]);
        g->class_at[b] = g->class_count;
        g->class_count += p->bucket[b].expert_count;
        const int64_t part = params_largest_part(p, b, 1, groups);
        if (part > most_expert) most_expert = part;
        slot_create(g, &g->slot[slot_of(g, b)], b);
    }
    g->owned = room(g, g->owned_count, "gradients");
    if (g->classes)
        g->class_grad = sent_room(g, g->replicas, g->classes * g->class_count, "expert gradients");
    for (int i = 0; ranks > 1 && !transport_shares(g->world) && i < GRADIENT_SLOTS; i++)
        if (g->slot[i].part) g->slot[i].received = room(g, ranks * g->slot[i].part, "received gradients");
    if (groups > 1 && !transport_shares(g->replicas))
        g->class_received = room(g, mesh->replica_classes * most_expert, "received expert gradients");
}

void gradients_destroy(gradients *g) {
    const kernels *k = g->k;
    if (!k) return;
    for (int i = 0; i < GRADIENT_SLOTS; i++) k->free(k->ctx, g->slot[i].received);
    k->free(k->ctx, g->owned);
    k->free(k->ctx, g->class_received);
    transport_close(g->world);
    transport_close(g->replicas);
    mem_free(g->local_at);
    mem_free(g->parts);
    mem_free(g->part);
    mem_free(g->dense_cut);
    mem_free(g->expert_cut);
    mem_free(g->dense_at);
    mem_free(g->expert_at);
    mem_free(g->class_at);
    mem_free(g->class_of_layer);
    *g = (gradients){0};
}

void gradients_begin(gradients *g) {
    const params *p = g->p;
    if (g->classes) g->k->zero(g->k->ctx, g->classes * g->class_count, g->class_grad);
    for (int64_t b = 0; !g->classes && b < p->buckets; b++)
        if (p->bucket[b].expert_count)
            g->k->zero(g->k->ctx, p->bucket[b].expert_count, g->owned + g->expert_at[b]);
}

/* ---- dense parameters ---- */

/* Waits for a slot's messages and adds the parts in the order of the micro-batches. */
static void complete(gradients *g, gradient_slot *s) {
    if (s->bucket < 0) return;
    const mesh *m = g->mesh;
    const int64_t *cut = g->dense_cut + s->bucket * (m->ranks + 1);
    int64_t n = cut[m->rank + 1] - cut[m->rank];
    real *sum = g->owned + g->dense_at[s->bucket];
    transport_arrive(g->world, s->request);
    for (int64_t i = 0; i < m->ranks; i++) {
        int rank = mesh_rank_of(m, i), step = (rank - m->rank + m->ranks) % m->ranks;
        g->part[i] = rank == m->rank ? s->sent + cut[rank]
                                     : transport_came(g->world, s->request, step - 1,
                                                      s->received ? s->received + rank * s->part : NULL);
    }
    g->k->add(g->k->ctx, n, sum, s->first ? NULL : sum, m->ranks, g->part);
    transport_taken(g->world, s->request);
    s->bucket = -1;
}

/* And until its buffer may be filled again. */
static void release(gradients *g, gradient_slot *s) {
    complete(g, s);
    transport_wait(g->world, s->request);
    s->request = NULL;
}

void gradients_progress(gradients *g) {
    for (int i = 0; i < GRADIENT_SLOTS; i++)
        if (g->slot[i].part && g->slot[i].bucket >= 0 && transport_has_come(g->world, g->slot[i].request))
            complete(g, &g->slot[i]);
}

int gradients_accumulate(const gradients *g, int64_t turn) {
    return g->local && turn > 0;
}

real *gradients_buffer(gradients *g, int64_t bucket, int64_t turn) {
    if (in_place(g, bucket, turn)) return g->owned + g->dense_at[bucket];
    gradient_slot *s = &g->slot[slot_of(g, bucket)];
    release(g, s);
    return g->local ? g->local + g->local_at[bucket] : s->buffer;
}

real *gradients_embedding(gradients *g, int64_t turn) {
    real *sum = gradients_buffer(g, BUCKET_EMBEDDING, turn);
    int keeps = g->local || in_place(g, BUCKET_EMBEDDING, turn);
    if (turn == 0 || !keeps) g->k->zero(g->k->ctx, g->p->bucket[BUCKET_EMBEDDING].dense_count, sum);
    return sum;
}

void gradients_fold(gradients *g, int64_t bucket, int64_t turn) {
    const mesh *m = g->mesh;
    if (g->local && turn + 1 < m->turns) return; /* more is to be added */
    if (in_place(g, bucket, turn)) return;
    gradient_slot *s = &g->slot[slot_of(g, bucket)];
    const int64_t *cut = g->dense_cut + bucket * (m->ranks + 1);
    int64_t mine = cut[m->rank + 1] - cut[m->rank];
    s->bucket = bucket;
    s->first = g->local || turn == 0;
    s->sent = g->local ? g->local + g->local_at[bucket] : s->buffer;
    s->request = NULL;
    if (m->ranks == 1) {
        complete(g, s);
        return;
    }
    comm_part *send = g->parts, *receive = g->parts + m->ranks;
    int n = 0;
    for (int step = 1; step < m->ranks; step++) {
        int peer = (m->rank + step) % m->ranks;
        send[n] = (comm_part){peer, s->sent + cut[peer], (size_t)(cut[peer + 1] - cut[peer]) * sizeof(real)};
        receive[n++] =
            (comm_part){peer, s->received ? s->received + peer * s->part : NULL, (size_t)mine * sizeof(real)};
    }
    s->request = transport_exchange(g->world, "fold of gradients", n, send, n, receive);
    /* what was there to be read before is read now: its owners wait for that, and nobody for them */
    for (int i = 0; transport_shares(g->world) && i < GRADIENT_SLOTS; i++)
        if (g->slot[i].part && &g->slot[i] != s) complete(g, &g->slot[i]);
}

/* ---- experts ---- */

/* Class q is summed by group q mod G, as its accumulator number q / G; a class alone is the sum itself. */
static real *class_part(const gradients *g, int64_t bucket, int64_t class) {
    if (!g->classes) return g->owned + g->expert_at[bucket];
    return g->class_grad + class / g->mesh->groups * g->class_count + g->class_at[bucket];
}

real *const *gradients_classes(gradients *g, int64_t layer) {
    for (int q = 0; q < g->mesh->replica_classes; q++)
        g->class_of_layer[q] =
            q % g->mesh->groups == g->mesh->group ? class_part(g, BUCKET_LAYER_0 + layer, q) : NULL;
    return g->class_of_layer;
}

/* Of one bucket: each owner among the replicas gets its part of every class and adds in their order. */
static void fold_classes(gradients *g, int64_t b) {
    const mesh *m = g->mesh;
    const int64_t *cut = g->expert_cut + b * (m->groups + 1);
    int64_t mine = cut[m->group + 1] - cut[m->group];
    int sends = 0, receives = 0, n = 0;
    comm_part *send = g->parts, *receive = g->parts + m->replica_classes * m->groups;
    for (int q = 0; q < m->replica_classes; q++) {
        int holder = q % m->groups;
        real *received = g->class_received ? g->class_received + q * mine : NULL;
        if (holder != m->group) {
            receive[receives++] = (comm_part){holder, received, (size_t)mine * sizeof(real)};
            continue;
        }
        for (int peer = 0; peer < m->groups; peer++)
            if (peer != m->group)
                send[sends++] = (comm_part){peer, class_part(g, b, q) + cut[peer],
                                            (size_t)(cut[peer + 1] - cut[peer]) * sizeof(real)};
    }
    transport_request *request = NULL;
    if (m->groups > 1)
        request = transport_exchange(g->replicas, "fold of expert gradients", sends, send, receives, receive);
    transport_arrive(g->replicas, request);
    for (int q = 0; q < m->replica_classes; q++)
        if (q % m->groups == m->group) g->part[q] = class_part(g, b, q) + cut[m->group];
        else g->part[q] = transport_came(g->replicas, request, n, receive[n].data), n++;
    g->k->add(g->k->ctx, mine, g->owned + g->expert_at[b], NULL, m->replica_classes, g->part);
    transport_taken(g->replicas, request);
    transport_wait(g->replicas, request);
}

void gradients_end_step(gradients *g) {
    for (int i = 0; i < GRADIENT_SLOTS; i++)
        if (g->slot[i].part) complete(g, &g->slot[i]);
    for (int i = 0; i < GRADIENT_SLOTS; i++)
        if (g->slot[i].part) release(g, &g->slot[i]);
    for (int64_t b = 0; g->classes && b < g->p->buckets; b++)
        if (g->p->bucket[b].expert_count) fold_classes(g, b);
}
