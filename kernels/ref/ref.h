/* The ref backend: plain loops that define what every operation means, with sums in double.  It shares no
 * code with the other backends.  Its build with -DCARACAL_F64 is what finite differences test. */
#ifndef CARACAL_KERNELS_REF_REF_H
#define CARACAL_KERNELS_REF_REF_H

#include "kernels/kernels.h"

struct kernel_context {
    int threads;
    double *scratch; /* grown on first use: ref is a yardstick, not a product */
    size_t scratch_size;
};

/* `each` doubles for every thread; thread i's part starts at i * each. */
double *ref_scratch(kernel_context *x, int64_t each);

/* The choice of router_forward alone, from probabilities already made: the check backend repeats a backend's
 * choice from that backend's own probabilities, which may differ from ref's in the last bit. */
void ref_router_choose(router_shape s, int32_t *index, real *weight, int64_t *count, const real *prob,
                       const real *bias);

void ref_zero(kernel_context *, int64_t n, real *x);
void ref_copy(kernel_context *, int64_t n, real *y, const real *x);
void ref_add(kernel_context *, int64_t n, real *y, const real *x);
void ref_copy_rows(kernel_context *, int64_t n, int64_t cols, real *dst, const int32_t *dst_row,
                   const real *src, const int32_t *src_row);
void ref_to_host(kernel_context *, void *host, const void *device, size_t bytes);
void ref_to_device(kernel_context *, void *device, const void *host, size_t bytes);

void ref_gemm(kernel_context *, gemm_form form, int64_t m, int64_t n, int64_t k, real *c, int64_t ldc,
              const real *d, const real *a, int64_t lda, const real *b, int64_t ldb);
void ref_grouped_gemm(kernel_context *, gemm_form form, int64_t segments, const segment *s, int64_t n,
                      int64_t k, real *c, const real *a, const real *w, int64_t w_stride);
void ref_grouped_gemm_dw(kernel_context *, int64_t segments, const segment *s, int64_t m, int64_t n, real *dw,
                         int64_t dw_stride, const real *a, const real *b);

void ref_rms_norm_forward(kernel_context *, int64_t rows, int64_t cols, double eps, double scale, real *y,
                          int64_t ldy, real *rstd, const real *x, int64_t ldx, const real *w);
void ref_rms_norm_backward(kernel_context *, int64_t rows, int64_t cols, double scale, real *dx, int64_t lddx,
                           const real *d, real *dw, const real *dy, int64_t lddy, const real *x, int64_t ldx,
                           const real *rstd, const real *w);
void ref_rope(kernel_context *, int64_t rows, int64_t seq, int64_t heads, int64_t pairs, int backward,
              real *x, int64_t ld, int64_t head_stride, const real *cosine, const real *sine);

void ref_attention_forward(kernel_context *, attention_shape s, real *o, real *lse, const real *q,
                           const real *kv, const real *k_rope, int64_t ld_k_rope, const int32_t *first_key);
void ref_attention_backward(kernel_context *, attention_shape s, real *dq, real *dkv, real *dk_rope,
                            int64_t ld_dk_rope, const real *d_o, const real *o, const real *lse,
                            const real *q, const real *kv, const real *k_rope, int64_t ld_k_rope,
                            const int32_t *first_key);

void ref_swiglu_forward(kernel_context *, int64_t rows, int64_t f, real *h, const real *gu);
void ref_swiglu_backward(kernel_context *, int64_t rows, int64_t f, real *dgu, real *h, real *dweight,
                         const real *dh, const real *gu, const real *weight);
void ref_embedding_forward(kernel_context *, int64_t rows, int64_t h, real *x, const real *w,
                           const int32_t *ids);
void ref_embedding_backward(kernel_context *, int64_t rows, int64_t h, real *dw, const real *dx,
                            const int32_t *ids);

void ref_router_forward(kernel_context *, router_shape s, real *prob, int32_t *index, real *weight,
                        int64_t *count, real *prob_sum, const real *logits, const real *bias);
void ref_router_backward(kernel_context *, router_shape s, real *dlogits, real *dprob_sum,
                         const real *dweight, const real *prob, const int32_t *index, const real *lb_grad);
void ref_combine_forward(kernel_context *, int64_t tokens, int64_t h, int64_t topk, real *out,
                         const real *rows, const int32_t *row_of, const real *weight, const real *y);
void ref_combine_backward(kernel_context *, int64_t tokens, int64_t h, int64_t topk, real *dy, real *dweight,
                          const real *dout, const real *drows, const real *dw_rows, const int32_t *row_of,
                          const real *weight, const real *y);

void ref_cross_entropy(kernel_context *, int64_t rows, int64_t vocab, double scale, real *loss, int32_t *best,
                       real *logits, const int32_t *targets);
void ref_hidden_z(kernel_context *, int64_t rows, int64_t h, double scale, real *loss, real *sum_sq,
                  real *max_abs, real *dx, const real *x);

void ref_adamw(kernel_context *, int64_t n, adamw_step s, real *p, real *m, real *v, const real *g);
void ref_sum_squares(kernel_context *, int64_t n, double *out, const real *x);
void ref_digest(kernel_context *, int64_t n, uint64_t *out, const real *x);

#endif
