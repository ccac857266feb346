/* Attention of the cuda backend: all widths of heads, documents, text that is continued, and how far bf16 is
 * from the exact result.  On the emulator; in build/cuda on the device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/cuda_cases.h"

static uint64_t base_seed;

/* Every width that there are kernels for, one that only the float kernels have, and heads that are no whole
 * chunks of 16 bytes, where such may be read and where not. */
static void test_head_widths(void **state) {
    (void)state;
    static const attention_shape shape[] = {
        {1, 140, 2, 32, 32, 64, 0}, {1, 131, 1, 64, 32, 64, 0},   {1, 65, 2, 64, 64, 128, 0},
        {1, 129, 1, 65, 30, 97, 0}, {1, 193, 1, 128, 64, 128, 0}, {1, 33, 1, 200, 56, 130, 0},
        {1, 70, 2, 20, 12, 20, 0},  {1, 70, 2, 20, 12, 20, 0},
    };
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k = open_checked(dtype);
        bench b = new_bench();
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
            attend(&k, &b, shape[i], base_seed + 1, (int)((base_seed + i) & 1));
        block_free(b.block);
        kernels_close(&k);
    }
}

/* What comes before a document has the bits that it has without it: of queries that see only some of a
 * block's keys, nothing is added. */
static void test_documents_stand_alone(void **state) {
    (void)state;
    enum {
        WHOLE = 140,
        PART = 130,
        HEADS = 2,
        NOPE = 20,
        ROPE = 12,
        V = 24,
        Q = 32 * HEADS,
        KV = 44 * HEADS
    };
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k = open_cuda(dtype);
        bench b = new_bench();
        begin_case(&b, &k, base_seed);
        real *q = scaled(&b, WHOLE * Q, 2), *kv = values(&b, WHOLE * KV), *k_rope = values(&b, WHOLE * ROPE);
        real *o = values(&b, WHOLE * HEADS * V), *lse = values(&b, WHOLE * HEADS),
             *d_o = values(&b, WHOLE * HEADS * V);
        real *dq[2], *dkv[2], *dk_rope[2];
        int32_t *first = integers(&b, WHOLE, 1);
        for (int i = 0; i < WHOLE; i++) first[i] = i < 70 ? 0 : i < PART ? 70 : PART;
        for (int i = 0; i < 2; i++) {
            attention_shape s = {1, i ? PART : WHOLE, HEADS, NOPE, ROPE, V, 0};
            dq[i] = values(&b, WHOLE * Q), dkv[i] = values(&b, WHOLE * KV);
            dk_rope[i] = values(&b, WHOLE * ROPE);
            k.attention_forward(k.ctx, s, o, lse, q, kv, k_rope, ROPE, first);
            k.attention_backward(k.ctx, s, dq[i], dkv[i], dk_rope[i], ROPE, d_o, o, lse, q, kv, k_rope, ROPE,
                                 first);
        }
        settle(&k);
        expect_equal("dq", PART * Q, dq[1], dq[0]);
        expect_equal("dkv", PART * KV, dkv[1], dkv[0]);
        expect_equal("dk_rope", PART * ROPE, dk_rope[1], dk_rope[0]);
        kernels_close(&k);
        block_free(b.block);
    }
}

/* Text that is continued has the bits of text that was there from the start. */
static void test_past(void **state) {
    (void)state;
    enum { SEQ = 150, HEADS = 2, NOPE = 20, ROPE = 12, V = 24, QK = NOPE + ROPE };
    static const int64_t pasts[] = {1, 64, 100, 149};
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k = open_cuda(dtype);
        bench b = new_bench();
        begin_case(&b, &k, base_seed);
        real *q = scaled(&b, SEQ * HEADS * QK, 3), *kv = values(&b, SEQ * HEADS * (NOPE + V)),
             *k_rope = values(&b, SEQ * ROPE);
        real *o = values(&b, SEQ * HEADS * V), *lse = values(&b, SEQ * HEADS),
             *again = values(&b, SEQ * HEADS * V), *lse_again = values(&b, SEQ * HEADS);
        int32_t *first = integers(&b, SEQ, 1);
        for (int i = 0; i < SEQ; i++) first[i] = i < 30 ? 0 : i < 90 ? 30 : 90;
        k.attention_forward(k.ctx, (attention_shape){1, SEQ, HEADS, NOPE, ROPE, V, 0}, o, lse, q, kv, k_rope,
                            ROPE, first);
        for (int i = 0; i < 4; i++) {
            int64_t past = pasts[i], rows = SEQ - past;
            k.attention_forward(k.ctx, (attention_shape){1, rows, HEADS, NOPE, ROPE, V, past}, again,
                                lse_again, q + past * HEADS * QK, kv, k_rope, ROPE, first + past);
            settle(&k);
            expect_equal("o", rows * HEADS * V, again, o + past * HEADS * V);
            expect_equal("lse", rows * HEADS, lse_again, lse + past * HEADS);
        }
        kernels_close(&k);
        block_free(b.block);
    }
}

/* ---- how far bf16 is from the exact result of its operands ---- */

static void round_to_bf16(int64_t n, real *x) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
        memcpy(&x[i], &bits, sizeof bits);
    }
}

/* ||got - want|| / ||want||, where weights and gradients of scores, rounded themselves, are off by 2^-9. */
static void expect_near(const char *what, int64_t n, const real *got, const real *want) {
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) fail_msg("%s[%ld] is %g", what, (long)i, got[i]);
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += (double)want[i] * want[i];
    }
    print_message("%-8s %.2e\n", what, sqrt(error / size));
    if (!(sqrt(error / size) < 0x1p-8)) fail_msg("%s is off by %g", what, sqrt(error / size));
}

static void test_bf16_attention_error(void **state) {
    (void)state;
    static const attention_shape shape[] = {{1, 200, 2, 128, 64, 128, 0}, {2, 100, 1, 64, 32, 64, 0}};
    for (int i = 0; i < 2; i++) {
        attention_shape s = shape[i];
        int64_t t = s.batch * s.seq, q_n = t * s.heads * (s.nope + s.rope),
                kv_n = t * s.heads * (s.nope + s.v), o_n = t * s.heads * s.v, r_n = t * s.rope;
        kernels k = open_cuda(DTYPE_BF16), ref;
        kernels_ref(&ref, 2);
        bench b = new_bench();
        begin_case(&b, &k, base_seed);
        real *q = scaled(&b, q_n, 2), *kv = values(&b, kv_n), *k_rope = values(&b, r_n),
             *d_o = values(&b, o_n);
        real *o = values(&b, o_n), *lse = values(&b, t * s.heads), *dq = values(&b, q_n),
             *dkv = values(&b, kv_n), *dk_rope = values(&b, r_n);
        real *want_o = values(&b, o_n), *want_lse = values(&b, t * s.heads), *want_dq = values(&b, q_n),
             *want_dkv = values(&b, kv_n), *want_dk_rope = values(&b, r_n);
        int32_t *first = integers(&b, t, 1); /* documents, of which one begins with the last key of a block */
        for (int64_t r = 0; r < t; r++) first[r] = r % s.seq >= 127 ? 127 : r % s.seq >= 70 ? 70 : 0;
        k.attention_forward(k.ctx, s, o, lse, q, kv, k_rope, s.rope, first);
        k.attention_backward(k.ctx, s, dq, dkv, dk_rope, s.rope, d_o, o, lse, q, kv, k_rope, s.rope, first);
        settle(&k);
        round_to_bf16(q_n, q), round_to_bf16(kv_n, kv), round_to_bf16(r_n, k_rope), round_to_bf16(o_n, d_o);
        ref.attention_forward(ref.ctx, s, want_o, want_lse, q, kv, k_rope, s.rope, first);
        ref.attention_backward(ref.ctx, s, want_dq, want_dkv, want_dk_rope, s.rope, d_o, want_o, want_lse, q,
                               kv, k_rope, s.rope, first);
        expect_near("o", o_n, o, want_o);
        expect_near("lse", t * s.heads, lse, want_lse);
        expect_near("dq", q_n, dq, want_dq);
        expect_near("dkv", kv_n, dkv, want_dkv);
        expect_near("dk_rope", r_n, dk_rope, want_dk_rope);
        kernels_close(&k);
        kernels_close(&ref);
        block_free(b.block);
    }
}

int main(void) {
    if (!choose_seed(&base_seed)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_widths),
        cmocka_unit_test(test_documents_stand_alone),
        cmocka_unit_test(test_past),
        cmocka_unit_test(test_bf16_attention_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
