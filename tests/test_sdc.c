/* Which layer of which micro-batch is computed twice (train/sdc.h): in turn all of them; and that whatever of
 * it comes out otherwise the first or the second time is seen, down to the last element, and at what cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "launch/memory.h"
#include "model/init.h"
#include "tests/small_model.h"
#include "train/state.h"

static void every_layer_of_every_turn(void **unused) {
    enum { INTERVAL = 3, LAYERS = 6, TURNS = 4, ROUND = INTERVAL * LAYERS * TURNS };
    int seen[TURNS][LAYERS] = {0};
    (void)unused;
    for (int64_t step = 0; step < 2 * ROUND; step++) {
        const state s = {
            .step = step, .c.sdc.interval = INTERVAL, .c.model.num_layers = LAYERS, .mesh.turns = TURNS};
        int checks = 0;
        for (int64_t turn = 0; turn < TURNS; turn++) {
            int64_t layer = sdc_layer(&s, turn);
            if (layer < 0) continue;
            assert_true(layer < LAYERS);
            seen[turn][layer]++;
            checks++;
        }
        assert_int_equal(checks, (step + 1) % INTERVAL == 0); /* one, in checked steps alone */
    }
    for (int turn = 0; turn < TURNS; turn++)
        for (int layer = 0; layer < LAYERS; layer++) assert_int_equal(seen[turn][layer], 2);
    const state off = {.step = INTERVAL - 1, .c.model.num_layers = LAYERS, .mesh.turns = TURNS};
    assert_int_equal(sdc_layer(&off, 0), -1);
}

/* Kernels of which one result is wrong: that of number `strike`; and how often the host waited for them. */
static struct {
    kernels sound;
    int results, strike, waits;
} faulty;

static void come_out(real *last) {
    if (faulty.results++ == faulty.strike) *last += 1;
}

static void grouped_gemm(kernel_context *ctx, gemm_form form, int64_t segments, const segment *s, int64_t n,
                         int64_t k, real *c, const real *a, const real *w, int64_t w_stride) {
    const segment *end = &s[segments - 1];
    faulty.sound.grouped_gemm(ctx, form, segments, s, n, k, c, a, w, w_stride);
    come_out(c + (end->row + end->rows) * n - 1);
}

static void attention_backward(kernel_context *ctx, attention_shape s, real *dq, real *dkv, real *dk_rope,
                               int64_t ld_dk_rope, const real *d_o, const real *o, const real *lse,
                               const real *q, const real *kv, const real *k_rope, int64_t ld_k_rope,
                               const int32_t *first_key) {
    int64_t rows = s.batch * s.seq;
    faulty.sound.attention_backward(ctx, s, dq, dkv, dk_rope, ld_dk_rope, d_o, o, lse, q, kv, k_rope,
                                    ld_k_rope, first_key);
    come_out(dq + rows * s.heads * (s.nope + s.rope) - 1);
    come_out(dkv + rows * s.heads * (s.nope + s.v) - 1);
    come_out(dk_rope + (rows - 1) * ld_dk_rope + s.rope - 1);
}

static void to_host(kernel_context *ctx, void *host, const void *device, size_t bytes) {
    faulty.waits++;
    faulty.sound.to_host(ctx, host, device, bytes);
}

static real *room_for(int64_t count) {
    return mem_alloc((size_t)count * sizeof(real), "test");
}

static void every_result_that_differs(void **unused) {
    const model_config_all c = small_model();
    const parallel_config one = {.expert_replicas = 1};
    const init_config init = {1, 0.2, 0.2};
    const int32_t tokens[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3};
    const int class_of = 0;
    comm *world;
    mesh ranks;
    kernels k;
    model m;
    recheck twice;
    error e = {0};
    (void)unused;
    assert_int_equal(comm_open(&world, 60, &e), 0);
    assert_int_equal(mesh_open(&ranks, world, &one, 1, c.model.n_routed_experts, &e), 0);
    kernels_ref(&k, 1);
    faulty.sound = k;
    k.grouped_gemm = grouped_gemm;
    k.attention_backward = attention_backward;
    k.to_host = to_host;
    model_create(&m, &c, &k, &ranks);
    init_weights(&m.p, &init, 5, &k, m.weights, 1);
    recheck_create(&twice, &m.x);
    m.x.recheck = &twice;
    const params *p = &m.p;
    const bucket *b = &p->bucket[BUCKET_LAYER_0 + 1];
    real *embedding = room_for(p->bucket[BUCKET_EMBEDDING].dense_count),
         *head = room_for(p->bucket[bucket_head(p)].dense_count), *dense = room_for(b->dense_count),
         *experts = room_for(b->expert_count);
    /* two attentions and two products, twice each, and the forward's product once more; -1: all are right */
    enum { RESULTS = 2 * 2 * 3 + 2 * 2 + 1 };
    for (int strike = -1; strike < RESULTS; strike++) {
        faulty.strike = -1;
        twice.layer = -1;
        twice.found.code = 0;
        model_forward(&m, tokens, 1, 8, 1);
        model_head_backward(&m, embedding, head, NULL);
        twice.layer = 1;
        faulty.results = 0;
        faulty.strike = strike;
        faulty.waits = 0;
        model_layer_backward(&m, 1, dense, &experts, &class_of);
        assert_int_equal(faulty.results, RESULTS);
        /* for both results of three gradients of two attentions, of three products of four experts */
        assert_true(faulty.waits > 0 && faulty.waits <= 2 * (3 * 2 + 3 * 4));
        if (twice.found.code != (strike < 0 ? 0 : EXIT_SDC)) fail_msg("result %d is wrong, unseen", strike);
    }
    mem_free(embedding);
    mem_free(head);
    mem_free(dense);
    mem_free(experts);
    recheck_destroy(&twice);
    model_destroy(&m);
    kernels_close(&k);
    mesh_close(&ranks);
    comm_close(world);
}

/* Rows come in parts: what differs is found at the ends of each, and what lies between rows is not compared.
 */
static void rows_in_parts(void **unused) {
    enum { ROWS = 1500, COLS = 90, LD = 100, PART = 655 };
    static const int64_t at[][2] = {{0, 0},           {0, COLS - 1},        {PART - 1, COLS - 1}, {PART, 0},
                                    {2 * PART, COLS}, {ROWS - 1, COLS - 1}, {ROWS - 1, 50}};
    kernels k;
    recheck r = {.k = &k};
    const context x = {.k = &k, .recheck = &r};
    (void)unused;
    kernels_ref(&k, 1);
    real *first = room_for(ROWS * LD), *again = room_for(ROWS * LD);
    for (int i = 0; i < 2; i++) r.rows[i] = room_for(PART * LD);
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        char place[64];
        snprintf(place, sizeof place, "[%d, %d]", (int)at[i][0], (int)at[i][1]);
        again[at[i][0] * LD + at[i][1]] = 1;
        recheck_compare(&x, "expert", 0, "x", ROWS, COLS, LD, first, again);
        assert_int_equal(r.found.code, at[i][1] < COLS ? EXIT_SDC : 0);
        if (r.found.code) assert_non_null(strstr(r.found.text, place));
        again[at[i][0] * LD + at[i][1]] = 0;
        r.found.code = 0;
    }
    mem_free(first);
    mem_free(again);
    for (int i = 0; i < 2; i++) mem_free(r.rows[i]);
    kernels_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer_of_every_turn),
        cmocka_unit_test(every_result_that_differs),
        cmocka_unit_test(rows_in_parts),
    };
    return cmocka_run_group_tests_name("sdc", tests, NULL, NULL);
}
