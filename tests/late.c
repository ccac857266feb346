/* The cpu backend of a rank that is late, or that ends in the middle of a step.  A program linked with
 * --wrap=kernels_cpu_avx2,--wrap=kernels_cpu_avx512 has it as `device: cpu`; what stands between two steps of
 * an exchange is a kernel, so that ranks can be made to meet in every order:
 *
 *   CARACAL_TEST_LATE="1 grouped_gemm 3000"   rank 1 sleeps up to 3,000 microseconds, different ones each
 *                                             time, before this operation; "all" ranks, "any" operation below
 *   CARACAL_TEST_END="1 grouped_gemm 7 KILL"  rank 1 gets this signal, KILL or STOP, before its seventh
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "launch/error.h"
#include "launch/random.h"
#include "tests/wrap_cpu.h"

static kernels real_kernels;

static struct {
    int rank;
    int microseconds; /* at most; 0: never late */
    char late_at[32];
    uint64_t pauses;
    int ends; /* before so many more calls, 0: never */
    int signal;
    char end_at[32];
} plan;

static void read_plan(void) {
    const char *rank = getenv("OMPI_COMM_WORLD_RANK"), *late = getenv("CARACAL_TEST_LATE"),
               *end = getenv("CARACAL_TEST_END");
    char who[8], signal_name[8];
    plan.rank = rank ? atoi(rank) : 0;
    if (late && sscanf(late, "%7s %31s %d", who, plan.late_at, &plan.microseconds) != 3)
        FAULT(EXIT_USAGE, "CARACAL_TEST_LATE=\"%s\": RANK OPERATION MICROSECONDS", late);
    if (late && strcmp(who, "all") && atoi(who) != plan.rank) plan.microseconds = 0;
    if (end && sscanf(end, "%7s %31s %d %7s", who, plan.end_at, &plan.ends, signal_name) != 4)
        FAULT(EXIT_USAGE, "CARACAL_TEST_END=\"%s\": RANK OPERATION CALL SIGNAL", end);
    if (!end || atoi(who) != plan.rank) plan.ends = 0;
    else plan.signal = strcmp(signal_name, "KILL") ? SIGSTOP : SIGKILL;
}

static void before(const char *operation) {
    if (plan.ends && !strcmp(plan.end_at, operation) && --plan.ends == 0) raise(plan.signal);
    if (!plan.microseconds || (strcmp(plan.late_at, operation) && strcmp(plan.late_at, "any"))) return;
    uint64_t any = random_bits((uint64_t)plan.rank, 0, plan.pauses++);
    usleep((useconds_t)(any % (uint64_t)plan.microseconds));
}

/* An operation: its parameters, and the same as arguments. */
#define UNPACK(...) __VA_ARGS__
#define LATE(name, parameters, arguments)                                                                    \
    static void late_##name(kernel_context *x, UNPACK parameters) {                                          \
        before(#name);                                                                                       \
        real_kernels.name(x, UNPACK arguments);                                                              \
    }

LATE(router_forward,
     (router_shape s, real *prob, int32_t *index, real *weight, int64_t *count, real *prob_sum,
      const real *logits, const real *bias),
     (s, prob, index, weight, count, prob_sum, logits, bias))
LATE(copy_rows,
     (int64_t n, int64_t cols, real *dst, const int32_t *dst_row, const real *src, const int32_t *src_row),
     (n, cols, dst, dst_row, src, src_row))
LATE(copy, (int64_t n, real *y, const real *z), (n, y, z))
LATE(grouped_gemm,
     (gemm_form form, int64_t segments, const segment *s, int64_t n, int64_t k, real *c, const real *a,
      const real *w, int64_t w_stride),
     (form, segments, s, n, k, c, a, w, w_stride))
LATE(grouped_gemm_dw,
     (int64_t segments, const segment *s, int64_t m, int64_t n, real *dw, int64_t dw_stride, const real *a,
      const real *b),
     (segments, s, m, n, dw, dw_stride, a, b))
LATE(attention_forward,
     (attention_shape s, real *o, real *lse, const real *q, const real *kv, const real *k_rope,
      int64_t ld_k_rope, const int32_t *first_key),
     (s, o, lse, q, kv, k_rope, ld_k_rope, first_key))
LATE(attention_backward,
     (attention_shape s, real *dq, real *dkv, real *dk_rope, int64_t ld_dk_rope, const real *d_o,
      const real *o, const real *lse, const real *q, const real *kv, const real *k_rope, int64_t ld_k_rope,
      const int32_t *first_key),
     (s, dq, dkv, dk_rope, ld_dk_rope, d_o, o, lse, q, kv, k_rope, ld_k_rope, first_key))
LATE(combine_backward,
     (int64_t tokens, int64_t h, int64_t topk, real *dy, real *dweight, const real *dout, const real *drows,
      const real *dw_rows, const int32_t *row_of, const real *weight, const real *y),
     (tokens, h, topk, dy, dweight, dout, drows, dw_rows, row_of, weight, y))
LATE(add, (int64_t n, real *y, const real *d, int64_t parts, const real *const *part), (n, y, d, parts, part))
LATE(adamw, (int64_t n, adamw_step s, real *p, real *m, real *v, const real *g), (n, s, p, m, v, g))

void wrap_cpu(kernels *k) {
    read_plan();
    real_kernels = *k;
    k->router_forward = late_router_forward;
    k->copy_rows = late_copy_rows;
    k->copy = late_copy;
    k->grouped_gemm = late_grouped_gemm;
    k->grouped_gemm_dw = late_grouped_gemm_dw;
    k->attention_forward = late_attention_forward;
    k->attention_backward = late_attention_backward;
    k->combine_backward = late_combine_backward;
    k->add = late_add;
    k->adamw = late_adamw;
}
