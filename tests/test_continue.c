/* Continuing a text from its latents gives the bits that computing all of it again gives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "launch/error.h"
#include "launch/memory.h"
#include "launch/random.h"
#include "model/init.h"
#include "tests/small_model.h"

enum { SEQ = 150, VOCAB = 37, WIDTH = 40, EOS = 3 };

/* Nothing is a whole number of anything's vectors or tiles. */
static model_config_all config_of(int sequential, int mask, int recompute) {
    model_config_all c = small_model();
    model_config *m = &c.model;
    m->vocab_size = VOCAB;
    m->hidden_size = WIDTH;
    m->num_layers = 3;
    m->num_attention_heads = 3;
    m->kv_lora_rank = 12;
    m->qk_nope_head_dim = 10;
    m->qk_rope_head_dim = 6;
    m->v_head_dim = 9;
    m->ffn_hidden_size = 60;
    m->expert_ffn_hidden_size = 20;
    m->n_routed_experts = 6;
    m->moe_input = sequential ? MOE_SEQUENTIAL : MOE_SHORTCUT;
    m->document_mask = mask;
    m->recompute = recompute;
    c.seq = SEQ;
    c.chunks = 2;
    c.eos = EOS;
    return c;
}

static void open_model(model *m, const model_config_all *c, const kernels *k, const mesh *ranks) {
    const init_config init = {.embedding_std = 1, .hidden_std = 0.2, .unembedding_std = 0.2};
    model_create(m, c, k, ranks);
    init_weights(&m->p, &init, 5, k, m->weights, 1);
}

/* A text of random tokens with ends of documents in it, in pieces of 1, 2, 3, ... tokens. */
static void compare(model *whole, model *pieces) {
    int32_t tokens[SEQ + 2] = {0};
    real want[VOCAB], got[VOCAB];
    for (uint64_t i = 0; i < SEQ; i++) tokens[i] = (int32_t)(random_bits(9, 1, i) % VOCAB);
    model_continue(pieces);
    for (int64_t at = 0, n = 1; at + n <= SEQ; at += n, n = n % 40 + 1) {
        int32_t cut[SEQ + 2] = {0};
        memcpy(cut, tokens, (size_t)(at + n) * sizeof *cut);
        model_forward(whole, cut, 1, at + n, 1);
        model_extend(pieces, tokens + at, n);
        assert_memory_equal(whole->final_TH + at * WIDTH, pieces->final_TH,
                            (size_t)(n * WIDTH) * sizeof(real));
        model_logits(whole, at + n - 1, want);
        model_logits(pieces, n - 1, got);
        assert_memory_equal(want, got, sizeof want);
    }
}

static void test_bits(void **unused) {
    (void)unused;
    error e;
    comm *world;
    mesh ranks;
    parallel_config p = {.expert_replicas = 1};
    kernels_config kc = {.device = "cpu", .isa = "auto", .threads = 1};
    kernels k;
    assert_int_equal(comm_open(&world, 60, &e), 0);
    assert_int_equal(mesh_open(&ranks, world, &p, 1, 6, &e), 0);
    assert_int_equal(kernels_open(&k, &kc, &e), 0);
    for (int i = 0; i < 8; i++) {
        model_config_all c = config_of(i & 1, i >> 1 & 1, i >> 2 & 1);
        model whole, pieces;
        open_model(&whole, &c, &k, &ranks);
        open_model(&pieces, &c, &k, &ranks);
        k.hold(k.ctx, pieces.p.weights, pieces.weights); /* some of them are soon kept packed */
        compare(&whole, &pieces);
        compare(&whole, &pieces); /* another text forgets the first */
        k.hold(k.ctx, 0, NULL);
        model_destroy(&whole);
        model_destroy(&pieces);
    }
    kernels_close(&k);
    mesh_close(&ranks);
    comm_close(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
