/* Every operation of every backend: against ref, in every bit where bits are promised, and the check backend
 * against backends that are wrong on purpose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/kernel_cases.h"

enum { ROUNDS = 25 }; /* shapes of each operation */

static uint64_t base_seed;

static bench new_bench(void) {
    return (bench){.block = mem_alloc(BLOCK_BYTES, "the buffers of a test")};
}

static kernels open_device(const char *device, const char *isa, int threads, kernels_dtype dtype) {
    kernels_config c = {.threads = threads, .dtype = dtype};
    kernels k;
    error e;
    snprintf(c.device, sizeof c.device, "%s", device);
    snprintf(c.isa, sizeof c.isa, "%s", isa);
    if (kernels_open(&k, &c, &e)) fail_msg("%s", e.text);
    return k;
}

static int has_avx512(kernels_dtype dtype) {
    kernels_config c = {.device = "cpu", .isa = "avx512", .threads = 1, .dtype = dtype};
    kernels k;
    error e;
    int code = kernels_open(&k, &c, &e);
    if (!code) kernels_close(&k);
    return !code;
}

/* ---- against ref ---- */

/* Whether its operands are rounded in bf16; all else is as in float32. */
static int has_dtypes(const char *operation) {
    return strstr(operation, "gemm") || !strcmp(operation, "attention");
}

static void run_all_cases(const kernels *k, int threads) {
    bench b = new_bench();
    for (int c = 0; c < CASES; c++) {
        if (k->dtype != DTYPE_FLOAT32 && !has_dtypes(cases[c].name)) continue;
        for (uint64_t round = 0; round < ROUNDS; round++) {
            begin_case(&b, k, base_seed + round);
            cases[c].run(&b);
            if (!guards_hold(&b))
                fail_msg("%s, %d threads, round %d: %s wrote outside its outputs", k->name, threads,
                         (int)round, cases[c].name);
        }
    }
    mem_free(b.block);
}

static void expect_ref(const char *device, const char *isa, kernels_dtype dtype) {
    kernels k = open_device(device, isa, 2, dtype);
    run_all_cases(&k, 2);
    kernels_close(&k);
}

static void test_ref(void **state) {
    (void)state;
    expect_ref("check:ref", "auto", DTYPE_FLOAT32);
}

static void test_avx2(void **state) {
    (void)state;
    expect_ref("check:cpu", "avx2", DTYPE_FLOAT32);
    expect_ref("check:cpu", "avx2", DTYPE_BF16);
}

static void test_avx512(void **state) {
    (void)state;
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++)
        if (has_avx512(dtype)) expect_ref("check:cpu", "avx512", dtype);
}

/* ---- bits ---- */

/* Every backend that should agree with the first: name, threads. */
static const struct {
    const char *isa;
    int threads;
} alike[] = {{"avx2", 1}, {"avx2", 2}, {"avx2", 3}, {"avx512", 1}, {"avx512", 2}, {"avx512", 3}};
enum { ALIKE = sizeof alike / sizeof *alike };

/* Runs every case on all of them and compares all bytes of all buffers. */
static void expect_same_bits(kernels_dtype dtype) {
    int count = has_avx512(dtype) ? ALIKE : ALIKE / 2;
    kernels k[ALIKE];
    for (int i = 0; i < count; i++) k[i] = open_device("cpu", alike[i].isa, alike[i].threads, dtype);
    bench first = new_bench(), b = new_bench();
    for (int c = 0; c < CASES; c++) {
        if (dtype != DTYPE_FLOAT32 && !has_dtypes(cases[c].name)) continue;
        for (uint64_t round = 0; round < ROUNDS; round++) {
            begin_case(&first, &k[0], base_seed + round);
            cases[c].run(&first);
            for (int i = 1; i < count; i++) {
                begin_case(&b, &k[i], base_seed + round);
                cases[c].run(&b);
                if (b.used != first.used || memcmp(b.block, first.block, b.used))
                    fail_msg("%s, round %d: %s with %d threads has other bits than %s with one",
                             cases[c].name, (int)round, k[i].name, alike[i].threads, k[0].name);
            }
        }
    }
    for (int i = 0; i < count; i++) kernels_close(&k[i]);
    mem_free(first.block);
    mem_free(b.block);
}

static void test_same_bits(void **state) {
    (void)state;
    expect_same_bits(DTYPE_FLOAT32);
    expect_same_bits(DTYPE_BF16); /* from AVX2 as from AVX512-BF16 */
}

/* ---- the check backend finds what is wrong ---- */

static const kernels *honest; /* what the saboteurs below fall back on; set once, before any of them runs */

static void drops_last_k(kernel_context *x, gemm_form form, int64_t m, int64_t n, int64_t k, real *c,
                         int64_t ldc, const real *d, const real *a, int64_t lda, const real *b, int64_t ldb) {
    honest->gemm(x, form, m, n, k > 0 ? k - 1 : k, c, ldc, d, a, lda, b, ldb);
}

static void writes_the_gap(kernel_context *x, int64_t rows, int64_t cols, double eps, double scale, real *y,
                           int64_t ldy, real *rstd, const real *in, int64_t ldx, const real *w) {
    honest->rms_norm_forward(x, rows, cols, eps, scale, y, ldy, rstd, in, ldx, w);
    if (rows > 1 && ldy > cols) y[cols] += 1;
}

static void writes_nothing(kernel_context *x, int64_t segments, const segment *s, int64_t f, real *h,
                           const real *gu) {
    (void)x, (void)segments, (void)s, (void)f, (void)h, (void)gu;
}

static void sees_other_documents(kernel_context *x, attention_shape s, real *o, real *lse, const real *q,
                                 const real *kv, const real *k_rope, int64_t ld_k_rope,
                                 const int32_t *first_key) {
    (void)first_key;
    honest->attention_forward(x, s, o, lse, q, kv, k_rope, ld_k_rope, NULL);
}

static void forgets_identity(kernel_context *x, int64_t tokens, int64_t h, int64_t topk, real *dy,
                             real *dweight, const real *dout, const real *drows, const real *dw_rows,
                             const int32_t *row_of, const real *weight, const real *y) {
    honest->combine_backward(x, tokens, h, topk, dy, dweight, dout, drows, dw_rows, row_of, weight, y);
    for (int64_t i = 0; i < tokens * topk; i++)
        if (row_of[i] < 0) dweight[i] = 0;
}

static void miscounts(kernel_context *x, router_shape s, real *prob, int32_t *index, real *weight,
                      int64_t *count, real *prob_sum, const real *logits, const real *bias) {
    honest->router_forward(x, s, prob, index, weight, count, prob_sum, logits, bias);
    count[0] += s.tokens > 0;
}

static void loses_an_ulp_of_v(kernel_context *x, int64_t n, adamw_step s, real *p, real *m, real *v,
                              const real *g) {
    honest->adamw(x, n, s, p, m, v, g);
    for (int64_t i = 0; i < n; i++) v[i] *= 1 + 0x1p-20f;
}

static void skips_a_segment(kernel_context *x, int64_t segments, const segment *s, int64_t m, int64_t n,
                            real *dw, int64_t dw_stride, const real *a, const real *b) {
    honest->grouped_gemm_dw(x, segments > 0 ? segments - 1 : 0, s, m, n, dw, dw_stride, a, b);
}

static void one_percent_off(kernel_context *x, attention_shape s, real *dq, real *dkv, real *dk_rope,
                            int64_t ld_dk_rope, const real *d_o, const real *o, const real *lse,
                            const real *q, const real *kv, const real *k_rope, int64_t ld_k_rope,
                            const int32_t *first_key) {
    honest->attention_backward(x, s, dq, dkv, dk_rope, ld_dk_rope, d_o, o, lse, q, kv, k_rope, ld_k_rope,
                               first_key);
    for (int64_t i = 0; i < s.batch * s.seq * s.heads * (s.nope + s.v); i++) dkv[i] *= 1.01f;
}

/* Runs the cases on check:(a wrong backend) in a child, until it dies; its message comes back in text. */
static int run_in_child(const kernels *wrong, char *text, size_t size) {
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(fd[1], STDERR_FILENO);
        kernels k;
        kernels_check(&k, wrong, 1);
        run_all_cases(&k, 1);
        _exit(0);
    }
    close(fd[1]);
    size_t used = 0;
    for (ssize_t n; used + 1 < size && (n = read(fd[0], text + used, size - 1 - used)) > 0;)
        used += (size_t)n;
    text[used] = 0;
    close(fd[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_check_finds(void **state) {
    (void)state;
    kernels ref;
    kernels_ref(&ref, 1);
    honest = &ref;
    enum { WRONGS = 9 };
    const char *operation[WRONGS] = {"gemm",
                                     "rms_norm_forward",
                                     "swiglu_forward",
                                     "attention_forward",
                                     "combine_backward",
                                     "router_forward",
                                     "adamw",
                                     "grouped_gemm_dw",
                                     "attention_backward"};
    kernels wrong[WRONGS];
    for (int i = 0; i < WRONGS; i++) wrong[i] = ref;
    wrong[0].gemm = drops_last_k;
    wrong[1].rms_norm_forward = writes_the_gap;
    wrong[2].swiglu_forward = writes_nothing;
    wrong[3].attention_forward = sees_other_documents;
    wrong[4].combine_backward = forgets_identity;
    wrong[5].router_forward = miscounts;
    wrong[6].adamw = loses_an_ulp_of_v;
    wrong[7].grouped_gemm_dw = skips_a_segment;
    wrong[8].attention_backward = one_percent_off;
    for (int i = 0; i < WRONGS; i++) {
        char text[2000], expected[64];
        int code = run_in_child(&wrong[i], text, sizeof text);
        snprintf(expected, sizeof expected, "check:ref %s (", operation[i]);
        if (code != EXIT_SDC || !strstr(text, expected))
            fail_msg("%s: code %d, said: %s", operation[i], code, text);
    }
    kernels_close(&ref);
}

/* ---- opening ---- */

static void expect_refusal(const char *device, const char *isa, int threads, const char *says) {
    kernels_config c = {.threads = threads};
    kernels k;
    error e = {0};
    snprintf(c.device, sizeof c.device, "%s", device);
    snprintf(c.isa, sizeof c.isa, "%s", isa);
    assert_int_equal(kernels_open(&k, &c, &e), EXIT_USAGE);
    if (!strstr(e.text, says)) fail_msg("\"%s\" does not say \"%s\"", e.text, says);
}

static void test_open(void **state) {
    (void)state;
    expect_refusal("gpu", "auto", 1, "must be ref, cpu or cuda");
    expect_refusal("check:", "auto", 1, "\"check:\"");
    expect_refusal("check:check:cpu", "auto", 1, "\"check:check:cpu\"");
    expect_refusal("cpu", "sse", 1, "must be auto, avx2 or avx512");
    expect_refusal("cpu", "auto", 0, "at least 1");
    if (!has_avx512(DTYPE_FLOAT32)) expect_refusal("cpu", "avx512", 1, "no AVX-512");

    kernels k = open_device("cpu", "auto", 2, DTYPE_BF16);
    assert_string_equal(k.name, has_avx512(DTYPE_BF16) ? "cpu-avx512" : "cpu-avx2");
    assert_int_equal(k.dtype, DTYPE_BF16);
    kernels_close(&k);
    k = open_device("cpu", "auto", 2, DTYPE_FLOAT32);
    assert_string_equal(k.name, has_avx512(DTYPE_FLOAT32) ? "cpu-avx512" : "cpu-avx2");
    assert_int_equal(k.dtype, DTYPE_FLOAT32);
    assert_null(kernels_missing(&k));
    kernels hole = k;
    hole.combine_backward = NULL;
    assert_string_equal(kernels_missing(&hole), "combine_backward");
    kernels_close(&k);

    k = open_device("check:cpu", "avx2", 1, DTYPE_FLOAT32);
    assert_string_equal(k.name, "check:cpu-avx2");
    kernels_close(&k);
}

int main(void) {
    if (!choose_seed(&base_seed)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_finds), /* first: it forks, which a process with OpenMP's threads should
                                               not */
        cmocka_unit_test(test_open),        cmocka_unit_test(test_ref),       cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),      cmocka_unit_test(test_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
