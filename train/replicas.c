#include "train/replicas.h"

#include <string.h>
#include <xxhash.h>

#include "launch/memory.h"

/* ---- router biases and controllers ---- */

enum { BIAS, ERROR_1, ERROR_2, WAITING };

static int64_t layer_count(const state *s) {
    return experts_total(&s->c.model) + 3 * s->c.model.n_routed_experts;
}

int64_t replicas_control_count(const state *s) {
    return s->c.model.num_layers * layer_count(s);
}

void replicas_read_control(const state *s, double *to) {
    int64_t all = experts_total(&s->c.model), n = s->c.model.n_routed_experts;
    for (int64_t l = 0; l < s->c.model.num_layers; l++) {
        const bias_history *h = &s->history[l];
        for (int64_t i = 0; i < all; i++) *to++ = (double)s->model.router_bias_LE[l * all + i];
        for (int64_t i = 0; i < n; i++) *to++ = h->e1_N[i];
        for (int64_t i = 0; i < n; i++) *to++ = h->e2_N[i];
        for (int64_t i = 0; i < n; i++) *to++ = (double)h->waiting_N[i];
    }
}

int replicas_compare_control(const state *s, const double *other, const double *mine, const char *how,
                             error *e) {
    static const char *const part[] = {"router bias", "controller's last error",
                                       "controller's last error but one", "controller's waiting count"};
    int64_t all = experts_total(&s->c.model), n = s->c.model.n_routed_experts, at = 0;
    while (at < replicas_control_count(s) && !memcmp(&other[at], &mine[at], sizeof *mine)) at++;
    if (at == replicas_control_count(s)) return 0;
    int64_t i = at % layer_count(s), kind = i < all ? BIAS : ERROR_1 + (i - all) / n;
    return error_set(e, EXIT_SDC, "layer %lld, %s [%lld] is %.9g (%a), %s %.9g (%a)",
                     (long long)(at / layer_count(s)), part[kind],
                     (long long)(kind == BIAS ? i : (i - all) % n), mine[at], mine[at], how, other[at],
                     other[at]);
}

/* ---- weights ---- */

static int64_t blocks_of(const param *q) {
    return (q->count + SUM_BLOCK - 1) / SUM_BLOCK;
}

/* Is this one of the tensors that the group holds alike? */
static int shared(const param *q, int experts) {
    return q->offset >= 0 && (q->expert >= 0) == experts;
}

static uint64_t digest_of_all(const state *s, int experts) {
    const params *p = &s->model.p;
    uint64_t all = 0;
    for (int64_t i = 0; i < p->n; i++)
        if (shared(&p->param[i], experts))
            all = XXH3_64bits_withSeed(s->sdc.guard.digest[GUARD_WEIGHT] + p->param[i].first_block,
                                       (size_t)blocks_of(&p->param[i]) * sizeof(uint64_t), all);
    return all;
}

/* Where a rank of a group first differs from the group's rank 0. */
typedef struct place {
    int64_t param, block; /* param -1: nowhere */
} place;

/* This rank's first difference from the group's rank 0. */
static place first_difference(const state *s, comm *group, int experts) {
    const params *p = &s->model.p;
    const uint64_t *mine = s->sdc.guard.digest[GUARD_WEIGHT];
    size_t bytes = (size_t)p->blocks * sizeof *mine;
    uint64_t *theirs = mem_alloc(bytes, "digests of another rank");
    place at = {-1, 0};
    memcpy(theirs, mine, bytes);
    comm_broadcast(group, "digests of weights", theirs, bytes, 0);
    for (int64_t i = 0; i < p->n && at.param < 0; i++) {
        const param *q = &p->param[i];
        for (int64_t b = 0; shared(q, experts) && b < blocks_of(q) && at.param < 0; b++)
            if (theirs[q->first_block + b] != mine[q->first_block + b]) at = (place){i, b};
    }
    mem_free(theirs);
    return at;
}

/* Sets *e on the rank that is `odd`, from its block and that of the group's rank 0. */
static void compare_blocks(const state *s, comm *group, place at, int odd, int first_rank, error *e) {
    const param *q = &s->model.p.param[at.param];
    int64_t from = at.block * SUM_BLOCK, n = q->count - from < SUM_BLOCK ? q->count - from : SUM_BLOCK, i = 0;
    size_t bytes = (size_t)n * sizeof(real);
    real *theirs = mem_alloc(2 * bytes, "a block of another rank"), *mine = theirs + n;
    s->k.to_host(s->k.ctx, mine, params_weight(&s->model.p, s->model.weights, q) + from, bytes);
    memcpy(theirs, mine, bytes);
    comm_broadcast(group, "a block of weights", theirs, bytes, 0);
    while (i < n && !memcmp(&theirs[i], &mine[i], sizeof *mine)) i++;
    int64_t element = from + i;
    if (comm_rank(group) == odd && i < n)
        error_set(e, EXIT_SDC, "%s [%lld] is %.9g (%a), and %.9g (%a) on rank %d", q->name,
                  (long long)element, (double)mine[i], (double)mine[i], (double)theirs[i], (double)theirs[i],
                  first_rank);
    else if (comm_rank(group) == odd)
        error_set(e, EXIT_SDC, "%s: digests of elements %lld to %lld differ from rank %d's", q->name,
                  (long long)from, (long long)(from + n - 1), first_rank);
    mem_free(theirs);
}

/* Some rank of the group differs from its first, which is `first_rank` of the world: the lowest such says
 * where. */
static void find_difference(const state *s, comm *group, int experts, int first_rank, error *e) {
    int size = comm_size(group), odd = 1;
    place *all = mem_alloc((size_t)size * sizeof *all, "where ranks differ");
    place mine = first_difference(s, group, experts);
    comm_all_gather(group, "where ranks differ", all, &mine, sizeof mine);
    while (odd < size && all[odd].param < 0) odd++;
    if (odd < size) compare_blocks(s, group, all[odd], odd, first_rank, e);
    mem_free(all);
}

void replicas_compare(const state *s, error *e) {
    enum { DENSE, EXPERTS, CONTROL, KINDS };
    const mesh *m = &s->mesh;
    const sdc *x = &s->sdc;
    size_t control_bytes = (size_t)replicas_control_count(s) * sizeof *x->control;
    uint64_t mine[KINDS] = {digest_of_all(s, 0), digest_of_all(s, 1), XXH3_64bits(x->control, control_bytes)};
    int differ[KINDS] = {0};
    if (m->ranks == 1) return;
    uint64_t *all = mem_alloc((size_t)m->ranks * sizeof mine, "digests of all ranks");
    comm_all_gather(m->world, "digests of replicas", all, mine, sizeof mine);
    for (int r = 0; r < m->ranks; r++) {
        const uint64_t *theirs = all + KINDS * r;
        differ[DENSE] |= theirs[DENSE] != all[DENSE];
        differ[CONTROL] |= theirs[CONTROL] != all[CONTROL];
        if (r % m->expert_parallel == m->expert_rank) differ[EXPERTS] |= theirs[EXPERTS] != mine[EXPERTS];
    }
    mem_free(all);
    if (differ[DENSE]) find_difference(s, m->world, 0, 0, e);
    if (differ[EXPERTS]) find_difference(s, m->replicas, 1, m->expert_rank, e);
    if (differ[CONTROL]) {
        double *first = mem_alloc(control_bytes, "another rank's biases");
        memcpy(first, x->control, control_bytes);
        comm_broadcast(m->world, "router biases", first, control_bytes, 0);
        replicas_compare_control(s, first, x->control, "and on rank 0", e);
        mem_free(first);
    }
}
