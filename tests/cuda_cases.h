/* What the tests of the cuda backend's matrix products and attention share: on the emulator, or the device.
 */
#ifndef CARACAL_TESTS_CUDA_CASES_H
#define CARACAL_TESTS_CUDA_CASES_H

#include "tests/emulate/block.h"
#include "tests/emulate/emulate.h"
#include "tests/kernel_cases.h"

/* Waits until the host may look at what operations have written. */
static inline void settle(const kernels *k) {
    k->to_host(k->ctx, NULL, NULL, 0);
}

static inline void run_case(const char *name, bench *b, const kernels *k, uint64_t seed) {
    begin_case(b, k, seed);
    for (int c = 0; c < CASES; c++)
        if (!strcmp(cases[c].name, name)) cases[c].run(b);
    settle(k);
}

static inline kernels open_cuda(kernels_dtype dtype) {
    kernels_config c = {.device = "cuda", .isa = "auto", .threads = 1, .dtype = dtype};
    kernels k;
    error e;
    if (kernels_cuda(&k, &c, &e)) fail_msg("%s", e.text);
    return k;
}

static inline kernels open_checked(kernels_dtype dtype) {
    kernels inner = open_cuda(dtype), k;
    kernels_check(&k, &inner, 2);
    return k;
}

static inline bench new_bench(void) {
    return (bench){.block = block_alloc(BLOCK_BYTES)};
}

static inline void expect_equal(const char *what, int64_t n, const real *got, const real *want) {
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got))
            fail_msg("%s[%ld] is %a, not %a", what, (long)i, got[i], want[i]);
}

/* Forward and backward of one shape; with documents. */
static inline void attend(const kernels *k, bench *b, attention_shape s, uint64_t seed, int aligned) {
    begin_case(b, k, seed);
    b->aligned = aligned;
    int64_t t = s.batch * s.seq, q_cols = s.heads * (s.nope + s.rope), kv_cols = s.heads * (s.nope + s.v);
    real *q = scaled(b, t * q_cols, 2), *kv = values(b, t * kv_cols), *k_rope = values(b, t * s.rope);
    real *o = values(b, t * s.heads * s.v), *lse = values(b, t * s.heads),
         *d_o = values(b, t * s.heads * s.v);
    real *dq = values(b, t * q_cols), *dkv = values(b, t * kv_cols), *dk_rope = values(b, t * s.rope);
    int32_t *first = integers(b, t, 1);
    for (int64_t i = 0; i < t; i++) first[i] = i % s.seq >= 70 ? 70 : i % s.seq >= 3 ? 3 : 0;
    k->attention_forward(k->ctx, s, o, lse, q, kv, k_rope, s.rope, first);
    k->attention_backward(k->ctx, s, dq, dkv, dk_rope, s.rope, d_o, o, lse, q, kv, k_rope, s.rope, first);
    settle(k);
    assert_true(guards_hold(b));
}

#endif
