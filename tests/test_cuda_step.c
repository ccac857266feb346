/* A model's micro-batches on the cuda backend in bf16: operands that were rounded before have the
 * bits of operands rounded anew, and a layer costs no more launches than docs/gpu.md says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/error.h"
#include "launch/memory.h"
#include "launch/random.h"
#include "model/init.h"
#include "tests/emulate/emulate.h"
#include "tests/small_model.h"

enum { VOCAB = 64, BATCH = 2, SEQ = 20, MICRO_BATCHES = 2, MOST_LAUNCHES = 128, CHUNKS = 2 };

static model_config_all config_of(int64_t layers, int sequential, int recompute) {
    model_config_all c = small_model();
    c.model.vocab_size = VOCAB;
    c.model.num_layers = layers;
    c.model.moe_input = sequential ? MOE_SEQUENTIAL : MOE_SHORTCUT;
    c.model.recompute = recompute;
    c.router.lb_alpha = 0.01;
    c.loss = (loss_config){.hidden_z_coef = 0.01, .mtp_coef = 0.1};
    c.batch = BATCH;
    c.seq = SEQ;
    return c;
}

/* Gradients of the step's micro-batches lie as the weights do; returns how many there are.  took: bytes that
 * the backend took for itself, and said that it would. */
static int64_t run_step(const char *device, const model_config_all *c, const mesh *ranks, real **gradient,
                        size_t took[2]) {
    kernels_config kc = {.isa = "auto", .threads = 1, .dtype = DTYPE_BF16};
    kernels k;
    model m;
    error e;
    const init_config init = {.embedding_std = 1, .hidden_std = 0.2, .unembedding_std = 0.2};
    snprintf(kc.device, sizeof kc.device, "%s", device);
    if (kernels_cuda(&k, &kc, &e)) fail_msg("%s", e.text);
    model_create(&m, c, &k, ranks);
    init_weights(&m.p, &init, 5, &k, m.weights, 1);
    int64_t layers = c->model.num_layers, n = m.p.weights;
    real *g = k.alloc(k.ctx, (size_t)n * sizeof *g, "gradients");
    size_t left = k.left ? k.left(k.ctx) : 0;
    k.hold(k.ctx, n, m.weights);
    emulate_figures_reset();
    for (uint64_t micro = 0; micro < MICRO_BATCHES; micro++) {
        int32_t tokens[BATCH * (SEQ + 2)];
        const bucket *b = m.p.bucket;
        int class_of = 0;
        for (uint64_t i = 0; i < BATCH * (SEQ + 2); i++)
            tokens[i] = (int32_t)(random_bits(9, micro, i) % VOCAB);
        m.x.accumulate = micro > 0;
        model_forward(&m, tokens, BATCH, SEQ, 1.0 / MICRO_BATCHES);
        model_head_backward(&m, g + b[BUCKET_EMBEDDING].dense_offset, g + b[bucket_head(&m.p)].dense_offset,
                            g + b[bucket_mtp(&m.p)].dense_offset);
        for (int64_t l = layers - 1; l >= 0; l--) {
            real *class_grad = g + b[BUCKET_LAYER_0 + l].expert_offset;
            model_layer_backward(&m, l, g + b[BUCKET_LAYER_0 + l].dense_offset, &class_grad, &class_of);
        }
        model_embedding_backward(&m, g + b[BUCKET_EMBEDDING].dense_offset);
    }
    k.hold(k.ctx, 0, NULL);
    if (took) {
        took[0] = left - k.left(k.ctx);
        took[1] = model_backend_bytes(c, &k, ranks, n);
    }
    *gradient = mem_alloc((size_t)n * sizeof *g, "gradients");
    k.to_host(k.ctx, *gradient, g, (size_t)n * sizeof *g);
    k.free(k.ctx, g);
    model_destroy(&m);
    kernels_close(&k);
    return n;
}

typedef struct rank {
    comm *world;
    mesh mesh;
} rank;

static int open_ranks(void **state) {
    static rank r;
    parallel_config p = {.expert_replicas = 1, .rank_invariant = 1};
    error e;
    if (comm_open(&r.world, 60, &e) || mesh_open(&r.mesh, r.world, &p, MICRO_BATCHES, 4, &e))
        fail_msg("%s", e.text);
    *state = &r;
    return 0;
}

static int close_ranks(void **state) {
    rank *r = *state;
    mesh_close(&r->mesh);
    comm_close(r->world);
    return 0;
}

/* Memory that "check:cuda" gives may be written by the host, and operands in it are rounded by each product.
 */
static void test_bits(void **state) {
    const mesh *ranks = &((rank *)*state)->mesh;
    for (int i = 0; i < 2; i++) { /* as usual; the baseline with recomputation */
        model_config_all c = config_of(2, i, i);
        real *got, *want;
        int64_t n = run_step("cuda", &c, ranks, &got, NULL);
        assert_int_equal(run_step("check:cuda", &c, ranks, &want, NULL), n);
        double size = 0;
        for (int64_t j = 0; j < n; j++) {
            if (memcmp(&got[j], &want[j], sizeof *got))
                fail_msg("gradient %ld of %ld is %a, not %a", (long)j, (long)n, got[j], want[j]);
            size += got[j] * got[j];
        }
        assert_true(size > 0);
        mem_free(got);
        mem_free(want);
    }
}

static int64_t times_of(const emulate_figure *f, const char *what) {
    for (; f->what; f++)
        if (!strcmp(f->what, what)) return f->times;
    return 0;
}

/* What a step of three layers is given that one of two is not, in its micro-batches together.  Of several
 * ranks tokens travel in pieces: one launch each for the SwiGLU of its experts' rows, and for the dense ones.
 */
static void test_launches(void **state) {
    const rank *r = *state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* as many as without it */
#endif
    int many = comm_size(r->world) > 1;
    double swiglu = 0;
    emulate_figure two[256] = {{0}};
    for (int64_t layers = 2; layers <= 3; layers++) {
        model_config_all c = config_of(layers, 0, 0);
        real *gradient;
        if (many) c.chunks = CHUNKS;
        run_step("cuda", &c, &r->mesh, &gradient, NULL);
        mem_free(gradient);
        const emulate_figure *f = emulate_figures();
        if (!f->what) skip(); /* a device: nobody counts */
        int64_t all = 0;
        for (int i = 0; layers == 2 && f[i].what; i++) two[i] = f[i];
        for (; layers == 3 && f->what; f++) {
            if (strstr(f->what, "ldmatrix")) continue;
            double more = (double)(f->times - times_of(two, f->what)) / MICRO_BATCHES;
            all += f->times - times_of(two, f->what);
            if (strstr(f->what, "ffn.cu")) swiglu += more;
            if (more > 0) print_message("%6.1f  %s\n", more, f->what);
        }
        if (layers == 2) continue;
        print_message("%6.1f  launches and copies for each layer and micro-batch\n",
                      (double)all / MICRO_BATCHES);
        assert_true(all > 0 && (many || all <= MOST_LAUNCHES * MICRO_BATCHES));
        assert_true(swiglu > 0 && swiglu <= 2 * (2 + (many ? CHUNKS : 1)));
    }
}

/* What a device must have left before the first step, the backend then takes, to within what a heap rounds
 * up. */
static void test_own_memory(void **state) {
    const rank *r = *state;
    model_config_all c = config_of(2, 0, 0);
    real *gradient;
    size_t took[2];
    if (comm_size(r->world) > 1) skip();
    run_step("cuda", &c, &r->mesh, &gradient, took);
    mem_free(gradient);
    print_message("the backend takes %zu bytes for itself, of %zu that it said\n", took[0], took[1]);
    if (!emulate_figures()->what) skip(); /* a device gives whole pages of 2 MiB */
    assert_true(took[0] <= took[1] + took[1] / 100 && took[0] > took[1] / 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_launches),
        cmocka_unit_test(test_own_memory),
    };
    return cmocka_run_group_tests(tests, open_ranks, close_ranks);
}
