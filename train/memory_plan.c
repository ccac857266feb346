#include "train/memory_plan.h"

/* Elements of the sums that a rank keeps (optim/gradients.h). */
static int64_t owned(const params *p, const mesh *m) {
    int64_t n = 0;
    for (int64_t b = 0; b < p->buckets; b++)
        n += params_whole_lines(params_part(p, b, 0, m->ranks, m->rank)) +
             params_whole_lines(params_part(p, b, 1, m->groups, m->group));
    return n;
}

/* How many buffers a bucket's dense gradient takes turns in; those of layers are the first one's. */
static int slots_of(const params *p, const mesh *m, int64_t bucket, int shares) {
    if (bucket == BUCKET_EMBEDDING) return m->ranks > 1; /* a rank alone adds it to the sum */
    if (bucket >= bucket_head(p)) return 1;
    return bucket > BUCKET_LAYER_0 ? 0 : gradients_layer_slots(m, shares);
}

/* Elements of gradients on their way: what fills, unless a rank has all of its own in one piece, and room for
 * what comes, unless it is read where it is. */
static int64_t moving(const params *p, const mesh *m, int shares) {
    const int local = !m->rank_invariant && m->turns > 1;
    int64_t n = 0, layers = bucket_head(p) - BUCKET_LAYER_0, experts = 0;
    for (int64_t b = 0; b < p->buckets; b++) {
        int64_t slots = slots_of(p, m, b, shares), dense = p->bucket[b].dense_count;
        if (b == BUCKET_LAYER_0 && slots > layers) slots = layers;
        n += local ? params_whole_lines(dense) : slots * dense;
        if (m->ranks > 1 && !shares && slots) n += slots * m->ranks * params_largest_part(p, b, 0, m->ranks);
        if (m->groups > 1 && !shares) {
            int64_t most = params_largest_part(p, b, 1, m->groups);
            if (most > experts) experts = most;
        }
    }
    return n + m->replica_classes * experts;
}

static double sum(const memory_plan *x) {
    return x->dense + x->experts + x->moments + x->gradients + x->moving + x->activations + x->own;
}

static void weigh(memory_plan *plan, const params *p) {
    for (int64_t b = 0; b < p->buckets; b++) {
        plan->dense += (double)sizeof(real) * (double)params_whole_lines(p->bucket[b].dense_count);
        plan->experts += (double)sizeof(real) * (double)params_whole_lines(p->bucket[b].expert_count);
    }
}

static int64_t expert_count(const params *p) {
    int64_t n = 0;
    for (int64_t b = 0; b < p->buckets; b++) n += p->bucket[b].expert_count;
    return n;
}

memory_plan memory_planned(const model_config_all *c, const kernels *k, const mesh *m, int training,
                           int shares) {
    memory_plan plan = {0};
    params p;
    params_create(&p, &c->model, c->loss.mtp_coef > 0, m->expert_parallel, m->expert_rank);
    weigh(&plan, &p);
    if (training) {
        int64_t sums = owned(&p, m);
        plan.moments = (double)sizeof(real) * (double)(2 * sums);
        plan.gradients = (double)sizeof(real) * (double)(sums + mesh_accumulators(m) * expert_count(&p));
        plan.moving = (double)sizeof(real) * (double)moving(&p, m, shares);
    }
    plan.activations = (double)model_activation_bytes(c, k, m);
    plan.own = (double)model_backend_bytes(c, k, m, p.weights);
    params_free(&p);
    plan.all = sum(&plan);
    return plan;
}

memory_plan memory_taken(const model *x, const gradients *g, double own) {
    const int64_t sums = g->owned_count;
    memory_plan taken = {.moments = (double)sizeof(real) * (double)(2 * sums),
                         .gradients = (double)sizeof(real) * (double)(sums + g->classes * g->class_count),
                         .activations = (double)(x->kept.size + x->shared.size + x->sent.size),
                         .own = own};
    weigh(&taken, &x->p);
    taken.moving = (double)g->bytes - taken.gradients;
    taken.all = sum(&taken);
    return taken;
}
