/* What the digests in metrics.jsonl see: every element of every parameter and of both moments belongs to
 * exactly one rank, and one bit of any of them changes its digest and that of no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "launch/memory.h"
#include "launch/random.h"
#include "optim/optimizer.h"
#include "tests/small_model.h"

/* Tensors of one and of several blocks, two layers, an MTP head. */
static model_config shape(void) {
    model_config c = small_model().model;
    c.hidden_size = 40;
    c.ffn_hidden_size = 130;
    c.expert_ffn_hidden_size = 110;
    c.n_routed_experts = 8;
    return c;
}

/* What one rank holds and updates. */
typedef struct share {
    params p;
    mesh mesh;
    gradients g;
    optimizer o;
    real *weights;
} share;

static void open_share(share *s, const kernels *k, const mesh *plan, int rank, comm *world) {
    static const optim_config c = {0};
    s->mesh = *plan;
    s->mesh.world = world;
    s->mesh.rank = rank;
    s->mesh.expert_rank = rank % plan->expert_parallel;
    s->mesh.group = rank / plan->expert_parallel;
    const model_config model = shape();
    params_create(&s->p, &model, 1, plan->expert_parallel, s->mesh.expert_rank);
    s->weights = mem_alloc((size_t)s->p.weights * sizeof(real), "weights");
    gradients_create(&s->g, &s->p, k, &s->mesh);
    optimizer_create(&s->o, &c, &s->p, s->weights, &s->g, k, &s->mesh);
}

static void close_share(share *s) {
    optimizer_destroy(&s->o);
    gradients_destroy(&s->g);
    params_free(&s->p);
    mem_free(s->weights);
}

/* Counts how often each element is in a piece: at[param] is where a parameter's elements begin in `seen`. */
static void count_owners(const share *s, const int64_t *at, uint8_t *seen) {
    for (int64_t i = 0; i < s->o.pieces; i++) {
        const piece *q = &s->o.piece[i];
        const param *w = &s->p.param[q->param];
        real *held = s->weights + s->p.bucket[w->bucket].dense_offset + w->offset;
        if (w->expert >= 0) held = s->weights + s->p.bucket[w->bucket].expert_offset + w->offset;
        assert_ptr_equal(q->weight, held + q->offset);
        assert_true(q->offset % SUM_BLOCK == 0);
        assert_true(q->count % SUM_BLOCK == 0 || q->offset + q->count == w->count);
        for (int64_t j = 0; j < q->count; j++) seen[at[q->param] + q->offset + j]++;
    }
}

static void every_element_has_one_owner(void **state) {
    static const int64_t meshes[][3] = {/* ranks, expert_parallel, replicas */
                                        {1, 1, 1}, {2, 2, 1}, {4, 4, 1}, {8, 8, 1}, {2, 1, 2},
                                        {4, 2, 2}, {8, 4, 2}, {8, 2, 4}, {8, 1, 8}};
    kernels k;
    (void)state;
    kernels_ref(&k, 1);
    for (size_t i = 0; i < sizeof meshes / sizeof *meshes; i++) {
        parallel_config c = {
            .expert_parallel = meshes[i][1], .expert_replicas = meshes[i][2], .rank_invariant = 1};
        mesh plan;
        error e = {0};
        share s;
        uint8_t *seen = NULL;
        int64_t *at = NULL, total = 0;
        assert_int_equal(mesh_plan(&plan, meshes[i][0], &c, 8, shape().n_routed_experts, &e), 0);
        for (int rank = 0; rank < plan.ranks; rank++) {
            open_share(&s, &k, &plan, rank, NULL);
            if (!seen) {
                at = mem_alloc((size_t)s.p.n * sizeof *at, "a test");
                for (int64_t j = 0; j < s.p.n; j++) at[j] = total, total += s.p.param[j].count;
                seen = mem_alloc((size_t)total, "a test");
            }
            count_owners(&s, at, seen);
            close_share(&s);
        }
        for (int64_t j = 0; j < total; j++)
            if (seen[j] != 1)
                fail_msg("%d ranks, experts over %d: element %lld of %lld has %d owners", plan.ranks,
                         plan.expert_parallel, (long long)j, (long long)total, seen[j]);
        mem_free(seen);
        mem_free(at);
    }
    kernels_close(&k);
}

/* Where ranks, groups, experts, classes and micro-batches do not divide, something would have no owner. */
static void what_does_not_divide(void **state) {
    static const struct {
        int64_t ranks, expert_parallel, replicas, micro_batches, experts;
        const char *words;
    } bad[] = {
        {3, 0, 1, 8, 8, "train.micro_batches = 8 is not divisible by the 3 ranks"},
        {4, 3, 1, 8, 8, "parallel.expert_parallel = 3 does not divide the 4 ranks"},
        {8, 0, 1, 8, 12, "model.n_routed_experts = 12 is not divisible by the 8 ranks"},
        {4, 2, 1, 8, 8, "make 2 groups, which does not divide parallel.expert_replicas = 1"},
        {8, 2, 2, 8, 8, "make 4 groups, which does not divide parallel.expert_replicas = 2"},
        {1, 0, 3, 8, 8, "parallel.expert_replicas = 3 does not divide train.micro_batches = 8"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        parallel_config c = {.expert_parallel = bad[i].expert_parallel,
                             .expert_replicas = bad[i].replicas,
                             .rank_invariant = 1};
        mesh m;
        error e = {0};
        assert_int_equal(mesh_plan(&m, bad[i].ranks, &c, bad[i].micro_batches, bad[i].experts, &e),
                         EXIT_USAGE);
        if (!strstr(e.text, bad[i].words)) fail_msg("\"%s\" is not in \"%s\"", bad[i].words, e.text);
    }
}

/* Of weights and both moments, and of the buckets' tensors of that kind. */
enum { BUCKETS = 5 };

typedef struct digest_set {
    uint64_t all[3], bucket[3][BUCKETS];
} digest_set;

static void digests(share *s, digest_set *out) {
    assert_int_equal(s->p.buckets, BUCKETS);
    for (int which = 0; which < 3; which++) {
        out->all[which] = optimizer_digest(&s->o, which);
        for (int b = 0; b < BUCKETS; b++) out->bucket[which][b] = optimizer_bucket_digest(&s->o, b);
    }
}

/* On one rank, whose pieces are the parameters. */
static void one_bit_changes_one_digest(void **state) {
    parallel_config c = {.expert_replicas = 1, .rank_invariant = 1};
    comm *world;
    kernels k;
    mesh plan;
    error e = {0};
    share s;
    digest_set before, after;
    (void)state;
    assert_int_equal(comm_open(&world, 10, &e), 0);
    assert_int_equal(mesh_plan(&plan, 1, &c, 8, shape().n_routed_experts, &e), 0);
    kernels_ref(&k, 1);
    open_share(&s, &k, &plan, 0, world);
    assert_int_equal(s.o.pieces, s.p.n);
    digests(&s, &before);
    for (int64_t i = 0; i < s.o.pieces; i++)
        for (int where = 0; where < 3; where++) { /* the first element, the last, one between */
            const piece *q = &s.o.piece[i];
            int64_t j = where == 0   ? 0
                        : where == 1 ? q->count - 1
                                     : (int64_t)(random_bits(1, (uint64_t)i, 0) % (uint64_t)q->count);
            real *tensor[3] = {q->weight, q->m, q->v};
            int which = (int)((i + where) % 3); /* every place and tensor gets its turn */
            uint32_t bit = 1u << (i % 32), bits;
            memcpy(&bits, &tensor[which][j], sizeof bits);
            bits ^= bit;
            memcpy(&tensor[which][j], &bits, sizeof bits);
            digests(&s, &after);
            for (int other = 0; other < 3; other++)
                for (int b = 0; b < BUCKETS; b++) {
                    int its = other == which && b == s.p.param[q->param].bucket;
                    if ((after.all[other] != before.all[other]) == (other == which) &&
                        (after.bucket[other][b] != before.bucket[other][b]) == its)
                        continue;
                    fail_msg("%s[%lld] of tensor %d: digest %d of bucket %d is wrong",
                             s.p.param[q->param].name, (long long)j, which, other, b);
                }
            bits ^= bit;
            memcpy(&tensor[which][j], &bits, sizeof bits);
        }
    digests(&s, &after);
    assert_memory_equal(&before, &after, sizeof before);
    close_share(&s);
    kernels_close(&k);
    comm_close(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_element_has_one_owner),
                                       cmocka_unit_test(what_does_not_divide),
                                       cmocka_unit_test(one_bit_changes_one_digest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
