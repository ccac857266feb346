/* A micro-batch's gradient of the embedding, whatever shape the micro-batch has: a stage of many short
 * sequences in a model with room for few long ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "launch/error.h"
#include "launch/memory.h"
#include "model/init.h"
#include "tests/small_model.h"

enum { TOKENS = 48, VOCAB = 3 * TOKENS, WIDTH = 32 };

/* g [V,H] = the gradient of micro-batches of TOKENS sequences of one token, in which no id stands twice,
 * from a model with room for sequences of `seq`. */
static void gradient(real *g, const kernels *k, const mesh *ranks, int64_t seq) {
    const init_config init = {.embedding_std = 1, .hidden_std = 0.2, .unembedding_std = 0.2};
    int32_t tokens[VOCAB];
    model_config_all c = small_model();
    model m;
    c.model.vocab_size = VOCAB;
    c.loss.mtp_coef = 0.3;
    c.batch = TOKENS / seq;
    c.seq = seq;
    model_create(&m, &c, k, ranks);
    init_weights(&m.p, &init, 5, k, m.weights, 1);
    const params *p = &m.p;
    real *head = mem_alloc((size_t)p->bucket[bucket_head(p)].dense_count * sizeof *head, "test");
    real *mtp = mem_alloc((size_t)p->bucket[bucket_mtp(p)].dense_count * sizeof *mtp, "test");
    for (int32_t i = 0; i < VOCAB; i++) tokens[i] = i;
    model_forward(&m, tokens, TOKENS, 1, 1);
    model_head_backward(&m, g, head, mtp);
    model_embedding_backward(&m, g);
    mem_free(head);
    mem_free(mtp);
    model_destroy(&m);
}

static void test_many_short_sequences(void **state) {
    (void)state;
    error e;
    comm *world;
    mesh ranks;
    kernels k;
    parallel_config p = {.expert_replicas = 1};
    kernels_config kc = {.device = "cpu", .isa = "auto", .threads = 1};
    assert_int_equal(comm_open(&world, 60, &e), 0);
    assert_int_equal(mesh_open(&ranks, world, &p, 1, 4, &e), 0);
    assert_int_equal(kernels_open(&k, &kc, &e), 0);
    static real short_ones[VOCAB * WIDTH], long_ones[VOCAB * WIDTH];
    gradient(short_ones, &k, &ranks, 1);
    gradient(long_ones, &k, &ranks, TOKENS);
    assert_memory_equal(short_ones, long_ones, sizeof short_ones);
    for (int i = 0; i < VOCAB; i++) /* every third id is only predicted */
        assert_int_equal(short_ones[i * WIDTH] != 0, i % 3 < 2);
    kernels_close(&k);
    mesh_close(&ranks);
    comm_close(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_many_short_sequences)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
