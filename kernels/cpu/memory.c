/* Moving elements about: no arithmetic but the fold's one addition. */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"
#include "launch/memory.h"

void *CPU_(alloc)(kernel_context *ctx, size_t bytes, const char *what) {
    (void)ctx;
    return mem_alloc_pages(bytes, what);
}

void CPU_(free)(kernel_context *ctx, void *p) {
    (void)ctx;
    mem_free(p);
}

/* Elements that one thread takes at a time.  Large, so that memcpy sees a large copy and streams past the
 * caches where that is faster. */
enum { PIECE = 1 << 22 };

static int64_t piece_of(const kernel_context *ctx, int64_t n) {
    int64_t share = (n + ctx->threads - 1) / ctx->threads;
    share = (share / LANES + 1) * LANES;
    return share < PIECE ? share : PIECE;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Operands are read as they are. */
void CPU_(hold)(kernel_context *ctx, int64_t n, const float *x) {
    (void)ctx, (void)n, (void)x;
}

void CPU_(zero)(kernel_context *ctx, int64_t n, float *x) {
    int64_t piece = piece_of(ctx, n);
#pragma omp parallel for num_threads(threads_for(ctx, n)) schedule(static)
    for (int64_t i = 0; i < n; i += piece) memset(x + i, 0, (size_t)smaller(piece, n - i) * sizeof *x);
}

void CPU_(copy)(kernel_context *ctx, int64_t n, float *y, const float *x) {
    int64_t piece = piece_of(ctx, n);
#pragma omp parallel for num_threads(threads_for(ctx, n)) schedule(static)
    for (int64_t i = 0; i < n; i += piece) memcpy(y + i, x + i, (size_t)smaller(piece, n - i) * sizeof *x);
}

void CPU_(add)(kernel_context *ctx, int64_t n, float *y, const float *x) {
#pragma omp parallel for num_threads(threads_for(ctx, n)) schedule(static)
    for (int64_t i = 0; i < n; i += LANES)
        vf_store_n(y + i, vf_add(vf_load_n(y + i, n - i), vf_load_n(x + i, n - i)), n - i);
}

void CPU_(copy_rows)(kernel_context *ctx, int64_t n, int64_t cols, float *dst, const int32_t *dst_row,
                     const float *src, const int32_t *src_row) {
#pragma omp parallel for num_threads(threads_for(ctx, n *cols)) schedule(static)
    for (int64_t i = 0; i < n; i++)
        memcpy(dst + (dst_row ? dst_row[i] : i) * cols, src + (src_row ? src_row[i] : i) * cols,
               (size_t)cols * sizeof *dst);
}

void CPU_(to_host)(kernel_context *ctx, void *host, const void *device, size_t bytes) {
    (void)ctx;
    if (bytes) memcpy(host, device, bytes);
}

void CPU_(to_device)(kernel_context *ctx, void *device, const void *host, size_t bytes) {
    (void)ctx;
    if (bytes) memcpy(device, host, bytes);
}
