/* Results that the cpu backend writes past the caches have the bits of those that it leaves there: what one
 * large call gives, small calls on its rows give too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/stream.h"
#include "launch/memory.h"
#include "launch/random.h"
#include "tests/backends.h"

/* W elements a row: one large call is past STREAM_BYTES, one of PART rows is not. */
enum { R = 4300, W = 1024, PART = 300, INPUTS = 3, OUTPUTS = 2 };

typedef struct sheet {
    const kernels *k;
    real *in[INPUTS], *out[OUTPUTS]; /* [R, 2 W] */
    real *one_R, *w_W;
    int32_t *row_R; /* each once, in no order */
} sheet;

typedef void (*operation)(const sheet *s, int64_t from, int64_t n);

/* the last vector of all is not whole */
static void zero(const sheet *s, int64_t from, int64_t n) {
    s->k->zero(s->k->ctx, n * 2 * W - (from + n == R ? 3 : 0), s->out[0] + from * 2 * W);
}
static void copy(const sheet *s, int64_t from, int64_t n) {
    s->k->copy(s->k->ctx, n * 2 * W - (from + n == R ? 3 : 0), s->out[0] + from * 2 * W,
               s->in[0] + from * 2 * W);
}
static void add(const sheet *s, int64_t from, int64_t n) {
    const real *part[] = {s->in[0] + from * 2 * W, s->in[1] + from * 2 * W, s->in[2] + from * 2 * W};
    s->k->add(s->k->ctx, n * 2 * W - (from + n == R ? 3 : 0), s->out[0] + from * 2 * W, NULL, 3, part);
    s->k->add(s->k->ctx, n * 2 * W, s->out[1] + from * 2 * W, part[1], 1, part);
}
static void copy_rows_from(const sheet *s, int64_t from, int64_t n) {
    s->k->copy_rows(s->k->ctx, n, W, s->out[0] + from * W, NULL, s->in[0], s->row_R + from);
}
static void copy_rows_to(const sheet *s, int64_t from, int64_t n) {
    s->k->copy_rows(s->k->ctx, n, W, s->out[0], s->row_R + from, s->in[0] + from * W, NULL);
}
/* rows that begin anywhere */
static void copy_rows_off(const sheet *s, int64_t from, int64_t n) {
    s->k->copy_rows(s->k->ctx, n, W + 8, s->out[0] + from * (W + 8), NULL, s->in[0], s->row_R + from);
}
static void norm_forward(const sheet *s, int64_t from, int64_t n) {
    s->k->rms_norm_forward(s->k->ctx, n, W, 1e-5, 1, s->out[0] + from * W, W, s->out[1] + from,
                           s->in[0] + from * W, W, s->w_W);
}
static void norm_backward(const sheet *s, int64_t from, int64_t n) {
    real dw[W];
    s->k->rms_norm_backward(s->k->ctx, n, W, 1, s->out[0] + from * W, W, NULL, dw, 0, s->in[0] + from * W, W,
                            s->in[1] + from * W, W, s->one_R + from, s->w_W);
}
static void swiglu_forward(const sheet *s, int64_t from, int64_t n) {
    s->k->swiglu_forward(s->k->ctx, EVERY_ROW(n), W, s->out[0] + from * W, s->in[0] + from * 2 * W);
}
static void swiglu_backward(const sheet *s, int64_t from, int64_t n) {
    s->k->swiglu_backward(s->k->ctx, EVERY_ROW(n), W, s->out[0] + from * 2 * W, s->out[1] + from * W, NULL,
                          s->in[0] + from * W, s->in[1] + from * 2 * W, s->one_R + from);
}
/* one of the two results does not begin on a line */
static void swiglu_backward_off(const sheet *s, int64_t from, int64_t n) {
    s->k->swiglu_backward(s->k->ctx, EVERY_ROW(n - (from + n == R)), W, s->out[0] + 4 + from * 2 * W,
                          s->out[1] + from * W, NULL, s->in[0] + from * W, s->in[1] + from * 2 * W,
                          s->one_R + from);
}

static const struct {
    const char *name;
    operation run;
} operations[] = {
    {"zero", zero},
    {"copy", copy},
    {"add", add},
    {"copy_rows from", copy_rows_from},
    {"copy_rows to", copy_rows_to},
    {"copy_rows off", copy_rows_off},
    {"rms_norm_forward", norm_forward},
    {"rms_norm_backward", norm_backward},
    {"swiglu_forward", swiglu_forward},
    {"swiglu_backward", swiglu_backward},
    {"swiglu_backward off", swiglu_backward_off},
};

static const size_t BYTES = (size_t)R * 2 * W * sizeof(real);

static void poison(sheet *s) {
    for (int i = 0; i < OUTPUTS; i++) memset(s->out[i], 0xff, BYTES); /* NaN */
}

static void run_backend(const char *isa) {
    kernels k;
    if (!backend_open(&k, "cpu", isa, 2, DTYPE_FLOAT32)) return;
    sheet s = {.k = &k};
    real *want[OUTPUTS];
    for (int i = 0; i < INPUTS; i++) {
        s.in[i] = mem_alloc(BYTES, "test");
        for (uint64_t j = 0; j < (uint64_t)R * 2 * W; j++)
            s.in[i][j] =
                (real)((double)(random_bits(7, (uint64_t)i, j / 2) >> (j % 2 * 32) & 0xffff) * 0x1p-14 - 2);
    }
    for (int i = 0; i < OUTPUTS; i++) {
        s.out[i] = mem_alloc(BYTES, "test");
        want[i] = mem_alloc(BYTES, "test");
    }
    s.one_R = s.in[2], s.w_W = s.in[2] + R;
    s.row_R = mem_alloc(R * sizeof *s.row_R, "test");
    for (int i = 0; i < R; i++) s.row_R[i] = i * 1999 % R;
    for (size_t o = 0; o < sizeof operations / sizeof *operations; o++) {
        print_message("    %s %s\n", k.name, operations[o].name);
        poison(&s);
        for (int64_t from = 0; from < R; from += PART)
            operations[o].run(&s, from, R - from < PART ? R - from : PART);
        for (int i = 0; i < OUTPUTS; i++) memcpy(want[i], s.out[i], BYTES);
        poison(&s);
        operations[o].run(&s, 0, R);
        for (int i = 0; i < OUTPUTS; i++) assert_memory_equal(s.out[i], want[i], BYTES);
    }
    for (int i = 0; i < INPUTS; i++) mem_free(s.in[i]);
    for (int i = 0; i < OUTPUTS; i++) {
        mem_free(s.out[i]);
        mem_free(want[i]);
    }
    mem_free(s.row_R);
    kernels_close(&k);
}

static void test_avx2(void **state) {
    (void)state;
    run_backend("avx2");
}
static void test_avx512(void **state) {
    (void)state;
    run_backend("avx512");
}

static void test_wanted(void **state) {
    (void)state;
    const float *aligned = (const float *)4096;
    assert_true(stream_wanted(STREAM_BYTES, aligned, 256));
    assert_false(stream_wanted(STREAM_BYTES - 1, aligned, 256)); /* its reader finds it in the cache */
    assert_true(stream_wanted((int64_t)1 << 40, aligned, 16));
    assert_false(stream_wanted((int64_t)1 << 40, aligned + 4, 16)); /* rows that do not begin on a line */
    assert_false(stream_wanted((int64_t)1 << 40, aligned, 24));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wanted),
        cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
