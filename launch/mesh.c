#include "launch/mesh.h"

int mesh_plan(mesh *m, int64_t ranks, const parallel_config *c, int64_t micro_batches, int64_t experts,
              error *e) {
    int64_t replicas = c->expert_replicas;
    int64_t ep = c->expert_parallel ? c->expert_parallel : ranks % replicas ? ranks : ranks / replicas;
    if (micro_batches % ranks)
        return error_set(e, EXIT_USAGE,
                         "train.micro_batches = %lld is not divisible by the %lld ranks: run with a "
                         "number of ranks that divides it",
                         (long long)micro_batches, (long long)ranks);
    if (ranks % ep)
        return error_set(e, EXIT_USAGE, "parallel.expert_parallel = %lld does not divide the %lld ranks",
                         (long long)ep, (long long)ranks);
    if (experts % ep)
        return error_set(e, EXIT_USAGE,
                         "model.n_routed_experts = %lld is not divisible by the %lld ranks of an "
                         "expert-parallel group (parallel.expert_parallel)",
                         (long long)experts, (long long)ep);
    int64_t groups = ranks / ep;
    if (replicas % groups)
        return error_set(e, EXIT_USAGE,
                         "%lld ranks with expert_parallel %lld make %lld groups, which does not divide "
                         "parallel.expert_replicas = %lld",
                         (long long)ranks, (long long)ep, (long long)groups, (long long)replicas);
    if (micro_batches % replicas)
        return error_set(e, EXIT_USAGE,
                         "parallel.expert_replicas = %lld does not divide train.micro_batches = %lld",
                         (long long)replicas, (long long)micro_batches);
    *m = (mesh){.ranks = (int)ranks,
                .expert_parallel = (int)ep,
                .groups = (int)groups,
                /* a group sums its micro-batches as they come when nobody asks for the order of v */
                .replica_classes = (int)(c->rank_invariant ? replicas : groups),
                .rank_invariant = c->rank_invariant,
                .micro_batches = micro_batches,
                .turns = micro_batches / ranks};
    return 0;
}

int mesh_open(mesh *m, comm *world, const parallel_config *c, int64_t micro_batches, int64_t experts,
              error *e) {
    if (mesh_plan(m, comm_size(world), c, micro_batches, experts, e)) return e->code;
    m->world = world;
    m->rank = comm_rank(world);
    m->expert_rank = m->rank % m->expert_parallel;
    m->group = m->rank / m->expert_parallel;
    m->experts = comm_split(world, m->group, m->expert_rank);
    m->replicas = comm_split(world, m->expert_rank, m->group);
    return 0;
}

void mesh_batch(mesh *m, int64_t micro_batches) {
    m->micro_batches = micro_batches;
    m->turns = micro_batches / m->ranks;
}

void mesh_close(mesh *m) {
    comm_free(m->experts);
    comm_free(m->replicas);
    *m = (mesh){0};
}

int64_t mesh_micro_batch(const mesh *m, int64_t turn, int rank) {
    return turn * m->ranks + rank % m->expert_parallel * m->groups + rank / m->expert_parallel;
}

int mesh_class(const mesh *m, int64_t micro_batch) {
    return (int)(micro_batch % m->replica_classes);
}

int mesh_accumulators(const mesh *m) {
    return m->replica_classes > 1 ? m->replica_classes / m->groups : 0;
}

int mesh_rank_of(const mesh *m, int64_t k) {
    return (int)(k % m->groups) * m->expert_parallel + (int)(k / m->groups);
}
