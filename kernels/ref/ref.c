/* The table of the ref backend, and its memory. */
#include "kernels/ref/ref.h"

#include <string.h>

#include "launch/memory.h"

double *ref_scratch(kernel_context *x, int64_t each) {
    size_t bytes = sizeof(double) * (size_t)each * (size_t)x->threads;
    if (bytes > x->scratch_size) {
        mem_free(x->scratch);
        x->scratch = mem_alloc(bytes, "scratch of the ref backend");
        x->scratch_size = bytes;
    }
    return x->scratch;
}

void *ref_alloc(kernel_context *ctx, size_t bytes, const char *what) {
    (void)ctx;
    return mem_alloc_pages(bytes, what);
}

void ref_free(kernel_context *ctx, void *p) {
    (void)ctx;
    mem_free(p);
}

void ref_zero(kernel_context *ctx, int64_t n, real *x) {
    (void)ctx;
    for (int64_t i = 0; i < n; i++) x[i] = 0;
}

void ref_copy(kernel_context *ctx, int64_t n, real *y, const real *x) {
    (void)ctx;
    for (int64_t i = 0; i < n; i++) y[i] = x[i];
}

void ref_add(kernel_context *ctx, int64_t n, real *y, const real *d, int64_t parts, const real *const *part) {
    (void)ctx;
    for (int64_t i = 0; i < n; i++) {
        real sum = d ? d[i] : part[0][i];
        for (int64_t p = !d; p < parts; p++) sum += part[p][i];
        y[i] = sum;
    }
}

void ref_copy_rows(kernel_context *ctx, int64_t n, int64_t cols, real *dst, const int32_t *dst_row,
                   const real *src, const int32_t *src_row) {
    for (int64_t i = 0; i < n; i++)
        ref_copy(ctx, cols, dst + (dst_row ? dst_row[i] : i) * cols, src + (src_row ? src_row[i] : i) * cols);
}

void ref_to_host(kernel_context *ctx, void *host, const void *device, size_t bytes) {
    (void)ctx;
    if (bytes) memcpy(host, device, bytes);
}

void ref_to_device(kernel_context *ctx, void *device, const void *host, size_t bytes) {
    (void)ctx;
    if (bytes) memcpy(device, host, bytes);
}

static void destroy(kernels *k) {
    mem_free(k->ctx->scratch);
    mem_free(k->ctx);
}

void kernels_ref(kernels *k, int threads) {
    kernel_context *ctx = mem_alloc(sizeof *ctx, "the ref backend");
    ctx->threads = threads;
    *k = (kernels){
        .name = "ref",
        .ctx = ctx,
        .head_rows = HEAD_TILE,
        .host_memory = 1,
        .alloc = ref_alloc,
        .free = ref_free,
        .zero = ref_zero,
        .copy = ref_copy,
        .add = ref_add,
        .copy_rows = ref_copy_rows,
        .hold = ref_hold,
        .gemm = ref_gemm,
        .gemm_float32 = ref_gemm, /* there is no other dtype */
        .grouped_gemm = ref_grouped_gemm,
        .grouped_gemm_dw = ref_grouped_gemm_dw,
        .rms_norm_forward = ref_rms_norm_forward,
        .rms_norm_backward = ref_rms_norm_backward,
        .rope = ref_rope,
        .attention_forward = ref_attention_forward,
        .attention_backward = ref_attention_backward,
        .swiglu_forward = ref_swiglu_forward,
        .swiglu_backward = ref_swiglu_backward,
        .embedding_forward = ref_embedding_forward,
        .embedding_backward = ref_embedding_backward,
        .router_forward = ref_router_forward,
        .router_backward = ref_router_backward,
        .combine_forward = ref_combine_forward,
        .combine_backward = ref_combine_backward,
        .cross_entropy = ref_cross_entropy,
        .hidden_z = ref_hidden_z,
        .adamw = ref_adamw,
        .sum_squares = ref_sum_squares,
        .digest = ref_digest,
        .to_host = ref_to_host,
        .to_device = ref_to_device,
        .destroy = destroy,
    };
}
