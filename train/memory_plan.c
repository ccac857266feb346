#include "train/memory_plan.h"

/* Dense gradients on their way (optim/gradients.h), elements: slots of one layer each, two where ranks send
 * them, and as many for what comes; a rank alone adds the embedding's to the sum.  Without promise 3 a rank
 * has all of its own in one piece. */
static double moving_gradients(const params *p, const mesh *m) {
    double slots = 0, dense = 0;
    for (int64_t b = 0; b < p->buckets; b++) {
        dense += (double)p->bucket[b].dense_count;
        if (b == BUCKET_EMBEDDING && m->ranks == 1) continue;
        if (b <= BUCKET_LAYER_0 || b >= bucket_head(p)) slots += (double)p->bucket[b].dense_count;
    }
    if (m->ranks > 1) slots += (double)p->bucket[BUCKET_LAYER_0].dense_count;
    return (!m->rank_invariant && m->turns > 1 ? dense : slots) + (m->ranks > 1 ? slots : 0);
}

memory_plan memory_planned(const model_config_all *c, const kernels *k, const mesh *m, int training) {
    const double each = sizeof(real);
    memory_plan plan = {0};
    params p;
    params_create(&p, &c->model, c->loss.mtp_coef > 0, m->expert_parallel, m->expert_rank);
    for (int64_t b = 0; b < p.buckets; b++) {
        plan.dense += each * (double)p.bucket[b].dense_count;
        plan.experts += each * (double)p.bucket[b].expert_count;
    }
    if (training) {
        double owned = plan.dense / m->ranks + plan.experts / m->groups;
        plan.moments = 2 * owned;
        plan.gradients = owned + mesh_accumulators(m) * plan.experts;
        plan.moving = each * moving_gradients(&p, m);
    }
    plan.activations = (double)model_activation_bytes(c, k, m);
    plan.own = (double)model_backend_bytes(c, k, m, p.weights);
    params_free(&p);
    plan.all =
        plan.dense + plan.experts + plan.moments + plan.gradients + plan.moving + plan.activations + plan.own;
    return plan;
}
