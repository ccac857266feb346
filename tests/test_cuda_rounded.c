/* Rounded copies of operands that outlive a product (kernels/cuda/rounded.cu): whatever writes to a matrix,
 * the next product reads what was written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/wire.h"
#include "launch/error.h"
#include "launch/random.h"
#include "tests/emulate/emulate.h"

/* Operands are [ROWS, COLUMNS]; operations write to matrices of R rows and C columns. */
enum { ROWS = 64, COLUMNS = 64, ALL = ROWS * COLUMNS, R = 6, C = 16, N = 8 };

typedef struct subject {
    kernels k, other;                /* other: a context that never has copies, for k has given the memory */
    real *x, *y;                     /* [ALL] */
    real *w, *of[2], *small, *spare; /* weights [N, COLUMNS], products [ROWS, N], inputs, any
                                            outputs */
    int32_t *ids;
} subject;

static kernels open_cuda(void) {
    kernels_config c = {.device = "cuda", .isa = "auto", .threads = 1, .dtype = DTYPE_BF16};
    kernels k;
    error e;
    if (kernels_cuda(&k, &c, &e)) fail_msg("%s", e.text);
    return k;
}

static void fill(subject *s, int64_t n, void *device, uint64_t stream) {
    real host[ALL];
    for (int64_t i = 0; i < n; i++) host[i] = (real)(2 * random_uniform(1, stream, (uint64_t)i) - 1);
    s->k.to_device(s->k.ctx, device, host, (size_t)n * sizeof *host);
}

static real *numbers(subject *s, int64_t n, uint64_t stream) {
    real *x = s->k.alloc(s->k.ctx, (size_t)n * sizeof *x, "test");
    fill(s, n, x, stream);
    return x;
}

static subject begin(void) {
    subject s = {.k = open_cuda(), .other = open_cuda()};
    s.x = numbers(&s, ALL, 1);
    s.y = numbers(&s, ALL, 2);
    s.w = numbers(&s, N * COLUMNS, 3);
    s.small = numbers(&s, ALL, 4);
    s.spare = numbers(&s, ALL, 7);
    for (int i = 0; i < 2; i++) s.of[i] = numbers(&s, ROWS * N, 5);
    s.ids = (int32_t *)numbers(&s, ALL, 6);
    int32_t ids[ALL];
    for (int i = 0; i < ALL; i++) ids[i] = i % R;
    s.k.to_device(s.k.ctx, s.ids, ids, sizeof ids);
    return s;
}

static void end(subject *s) {
    void *all[] = {s->x, s->y, s->w, s->small, s->spare, s->of[0], s->of[1], s->ids};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) s->k.free(s->k.ctx, all[i]);
    kernels_close(&s->k);
    kernels_close(&s->other);
}

static void multiply(subject *s, const kernels *k, int64_t rows, real *out, const real *x) {
    k->gemm(k->ctx, GEMM_NT, rows, N, COLUMNS, out, N, NULL, x, COLUMNS, s->w, COLUMNS);
}

/* Do products of some rows and the weights, rows of `ld` of which `cols` are read, have the same bits in both
 * contexts? */
static int agree(subject *s, int64_t rows, const real *x, int64_t cols, int64_t ld) {
    const kernels *in[] = {&s->k, &s->other};
    real of[2][ROWS * N];
    for (int i = 0; i < 2; i++) {
        in[i]->gemm(in[i]->ctx, GEMM_NT, rows, N, cols, s->of[i], N, NULL, x, COLUMNS, s->w, ld);
        in[i]->to_host(in[i]->ctx, of[i], s->of[i], sizeof of[i]); /* waits: contexts do not for each other */
    }
    return !memcmp(of[0], of[1], (size_t)(rows * N) * sizeof(real));
}

/* Products of x and of y, first of some of their rows, are what they should be. */
static void expect_read(subject *s, const char *after) {
    const real *operand[] = {s->x, s->y};
    for (int i = 0; i < 4; i++)
        if (!agree(s, i < 2 ? R - 1 : ROWS, operand[i % 2], COLUMNS, COLUMNS))
            fail_msg("after %s a product reads what was there before", after);
}

/* One operation that writes to x, or y, or both, of which copies are there; and to another place of them. */
#define TRY(operation, ...)                                                                                  \
    do {                                                                                                     \
        for (int64_t at = 0; at < ALL / 2; at += ALL / 2 - 64 * 5) {                                         \
            real *x = s.x + at, *y = s.y + at;                                                               \
            (void)x, (void)y;                                                                                \
            expect_read(&s, "nothing");                                                                      \
            s.k.operation(s.k.ctx, __VA_ARGS__);                                                             \
            expect_read(&s, #operation);                                                                     \
            fill(&s, ALL, s.x, 8);                                                                           \
            fill(&s, ALL, s.y, 9);                                                                           \
        }                                                                                                    \
    } while (0)

static void test_operations(void **state) {
    (void)state;
    subject s = begin();
    const real *a = s.small;
    const segment two[] = {{0, 2, 1}, {4, 2, 2}};
    const router_shape router = {R, C, 4, 3, 2};
    const attention_shape heads[] = {{1, R, 2, 8, 4, 8, 0},
                                     {1, R, 1, 200, 4, 8, 0}}; /* two ways of computing */
    const adamw_step step = {1e-1, 0.9, 0.99, 1e-8, 0.1, 1, 0.1, 0.01};
    real host[4] = {7, 8, 9, 10};
    TRY(zero, 100, x);
    TRY(copy, 100, x, a);
    TRY(add, 100, x, x, 1, &a);
    TRY(add, 100, x, NULL, 1, &a);
    TRY(copy_rows, R, C, x, NULL, a, s.ids);
    TRY(copy_rows, R, C, x, s.ids, a, NULL);
    TRY(gemm, GEMM_NT, R, 4, C, x, C, NULL, a, C, a + 200, C);
    TRY(gemm, GEMM_TN, R, 4, C, x, C, x, a, C, a + 200, C);
    TRY(gemm_float32, GEMM_NT, R, 4, C, x, C, NULL, a, C, a + 200, C);
    TRY(grouped_gemm, GEMM_NT, 2, two, C, N, x, a, a + 100, 9);
    TRY(grouped_gemm_dw, 2, two, C, N, x, C * N + 1, a, a);
    TRY(rms_norm_forward, R, C, 1e-6, 1, x, C, y, a, C, a);
    TRY(rms_norm_forward, R, C, 1e-6, 1, x, C + 2, y, a, C, a);
    TRY(rms_norm_backward, R, C, 1, x, C, NULL, y, 0, a, C, a, C, a, a);
    TRY(rms_norm_backward, R, C, 1, x, C + 2, NULL, y, 1, a, C, a, C, a, a);
    TRY(rms_norm_backward, R, COLUMNS, 1, x, COLUMNS + 4, NULL, y, 0, a, COLUMNS, a, COLUMNS, a, a);
    TRY(rope, R, R, 2, 2, 0, x, C, 8, a, a);
    for (int i = 0; i < 2; i++) {
        TRY(attention_forward, heads[i], x, y, a, a, a, 4, NULL);
        TRY(attention_forward, heads[i], y, x, a, a, a, 4, NULL);
        TRY(attention_backward, heads[i], x, y, s.spare, 5, a, a, a, a, a, a, 4, NULL);
        TRY(attention_backward, heads[i], s.spare, x, y, 5, a, a, a, a, a, a, 4, NULL);
    }
    TRY(swiglu_forward, EVERY_ROW(R), C, x, a);
    TRY(swiglu_forward, 2, two, C, x, a);
    TRY(swiglu_backward, 2, two, C, x, y, s.spare, a, a, a);
    TRY(swiglu_backward, EVERY_ROW(R), C, x, y, NULL, a, a, a);
    TRY(swiglu_backward, EVERY_ROW(R), C - 3, x, y, y + 200, a, a, a);
    TRY(swiglu_backward, EVERY_ROW(R), C, y, y + 500, x, a, a, a);
    TRY(embedding_forward, R, C, x, a, s.ids);
    TRY(embedding_backward, R, C, x, a, s.ids);
    for (int i = 0; i < 5; i++) { /* one output after another */
        real *out[5];
        for (int j = 0; j < 5; j++) out[j] = i == j ? NULL : s.spare + 200 * j;
#define OUT(j) (out[j] ? out[j] : x)
        TRY(router_forward, router, OUT(0), (int32_t *)OUT(1), OUT(2), (int64_t *)OUT(3), OUT(4), a, a);
#undef OUT
    }
    TRY(router_backward, router, x, y, a, a, s.ids, a);
    TRY(combine_forward, R, C, 3, x, a, s.ids, a, a);
    TRY(combine_backward, R, C, 3, x, y, a, a, a, s.ids, a, a);
    TRY(cross_entropy, R, C, 1.0, x, (int32_t *)(x + 100), y, s.ids);
    TRY(cross_entropy, R, C, 0.0, x, NULL, s.spare, s.ids);
    TRY(cross_entropy, R, C, 0.0, s.spare + 200, (int32_t *)x, s.spare, s.ids);
    TRY(hidden_z, R, C, 1.0, x, x + 100, x + 200, y, a);
    TRY(hidden_z, R, C, 0.0, x, s.spare, s.spare + 100, NULL, a);
    TRY(hidden_z, R, C, 0.0, s.spare, x, s.spare + 100, NULL, a);
    TRY(hidden_z, R, C, 0.0, s.spare, s.spare + 100, x, NULL, a);
    TRY(adamw, 100, step, x, s.spare, s.spare + 200, a);
    TRY(adamw, 100, step, s.spare, x, s.spare + 200, a);
    TRY(adamw, 100, step, s.spare, s.spare + 200, x, a);
    TRY(sum_squares, 100, (double *)x, a);
    TRY(digest, 100, (uint64_t *)x, a);
    TRY(digest, 4096, (uint64_t *)x, a);
    TRY(to_device, x, host, sizeof host);
    end(&s);
}

/* Memory that was given back and given out again. */
static void test_memory(void **state) {
    (void)state;
    subject s = begin();
    for (int i = 0; i < 20; i++) {
        fill(&s, ALL, s.x, 10);
        expect_read(&s, "to_device");
        s.k.free(s.k.ctx, s.x);
        s.x = s.k.alloc(s.k.ctx, ALL * sizeof *s.x, "test"); /* zeros, and most often the same address */
        expect_read(&s, "alloc");
    }
    end(&s);
}

/* A message, of a rank to itself. */
static void test_messages(void **state) {
    (void)state;
    subject s = begin();
    const wires *w = s.k.wires;
    wire *self;
    error e;
    char id[WIRE_ID], name[WIRE_NAME];
    if (w->load(s.k.ctx, name, &e)) { /* a machine without NCCL */
        end(&s);
        skip();
    }
    assert_int_equal(w->identify(s.k.ctx, id, &e), 0);
    assert_int_equal(w->open(s.k.ctx, &self, id, 1, 0, 60, &e), 0);
    comm_part send = {0, s.small, 40 * sizeof(real)}, receive = {0, s.x + 100, 40 * sizeof(real)};
    expect_read(&s, "nothing");
    assert_int_equal(w->start(self, 0, 1, &send, 1, &receive, 60, &e), 0);
    while (!w->done(self, 0, &e)) {}
    real came[40], sent[40];
    s.k.to_host(s.k.ctx, came, s.x + 100, sizeof came);
    s.k.to_host(s.k.ctx, sent, s.small, sizeof sent);
    assert_memory_equal(came, sent, sizeof came);
    expect_read(&s, "a message");
    w->close(self);
    end(&s);
}

static int64_t roundings(void) {
    for (const emulate_figure *f = emulate_figures(); f->what; f++)
        if (strstr(f->what, "round_kernel")) return f->times;
    return 0;
}

/* Copies are used: of a matrix and of some of its rows; made by the product before, or beside a result. */
static void test_reuse(void **state) {
    (void)state;
    subject s = begin();
    const kernels *k = &s.k;
    k->hold(k->ctx, N * COLUMNS, s.w);
    emulate_figures_reset();
    multiply(&s, k, ROWS, s.of[0], s.x);
    if (!emulate_figures()->what) { /* a device: nobody counts */
        end(&s);
        skip();
    }
    multiply(&s, k, ROWS, s.of[0], s.x);
    multiply(&s, k, 3, s.of[0], s.x + 5 * COLUMNS);
    assert_int_equal(roundings(), 1);
    k->rms_norm_forward(k->ctx, ROWS, COLUMNS, 1e-6, 1, s.y, COLUMNS, s.of[0], s.x, COLUMNS, s.w);
    expect_read(&s, "rms_norm_forward");
    assert_int_equal(roundings(), 1 + 8); /* the other context rounds both operands of four products */
    k->hold(k->ctx, 0, NULL);
    end(&s);
}

/* Held weights are read from their copy only where their rows are whole chunks of it. */
static void test_held(void **state) {
    (void)state;
    subject s = begin();
    s.k.hold(s.k.ctx, N * COLUMNS, s.w);
    for (int64_t ld = 2 * C; ld < 3 * C; ld += 4)
        if (!agree(&s, R, s.x, 2 * C, ld)) fail_msg("rows of %d among held weights", (int)ld);
    s.k.hold(s.k.ctx, 0, NULL);
    end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations), cmocka_unit_test(test_memory), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_reuse),      cmocka_unit_test(test_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
