/* Moving elements about: no arithmetic but the fold's one addition. */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/stream.h"
#include "launch/memory.h"

void *CPU_(alloc)(kernel_context *ctx, size_t bytes, const char *what) {
    (void)ctx;
    return mem_alloc_pages(bytes, what);
}

void CPU_(free)(kernel_context *ctx, void *p) {
    (void)ctx;
    mem_free(p);
}

/* Pieces of so many elements: copied by the C library where they are to stay in the cache. */
enum { PIECE = 1 << 10 };

static int64_t piece_at(int64_t n, int64_t i) {
    return n - i < PIECE ? n - i : PIECE;
}

void CPU_(zero)(kernel_context *ctx, int64_t n, float *x) {
    const int stream = stream_wanted(n * (int64_t)sizeof *x, x, LANES);
#pragma omp parallel num_threads(threads_for(ctx, n))
    {
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < n; i += PIECE) {
            if (!stream) memset(x + i, 0, (size_t)piece_at(n, i) * sizeof *x);
            else
                for (int64_t j = 0; j < piece_at(n, i); j += LANES)
                    vf_put_n(x + i + j, vf_zero(), n - i - j, 1);
        }
        stream_end(stream);
    }
}

/* y = x, of n elements; asks for `next` [n] meanwhile */
VEC void copy_streamed(int64_t n, float *y, const float *x, const float *next) {
    for (int64_t i = 0; i < n; i += LANES) {
        vf_fetch(next + i);
        vf_put_n(y + i, vf_load_n(x + i, n - i), n - i, 1);
    }
}

void CPU_(copy)(kernel_context *ctx, int64_t n, float *y, const float *x) {
    const int stream = stream_wanted(2 * n * (int64_t)sizeof *x, y, LANES);
#pragma omp parallel num_threads(threads_for(ctx, n))
    {
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < n; i += PIECE) {
            if (stream) copy_streamed(piece_at(n, i), y + i, x + i, x + i + AHEAD);
            else memcpy(y + i, x + i, (size_t)piece_at(n, i) * sizeof *x);
        }
        stream_end(stream);
    }
}

/* All that is added is read once, a vector of each part after the other, and only the sum is written. */
void CPU_(add)(kernel_context *ctx, int64_t n, float *y, const float *d, int64_t parts,
               const float *const *part) {
    const int64_t bytes = (parts + 1) * n * (int64_t)sizeof *y;
    const int stream = d != y && stream_wanted(bytes, y, LANES);
    const float *first = d ? d : part[0];
#pragma omp parallel num_threads(threads_for(ctx, n))
    {
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < n; i += LANES) {
            vf sum = vf_load_n(first + i, n - i);
            vf_fetch(first + i + AHEAD);
            for (int64_t p = d ? 0 : 1; p < parts; p++) {
                vf_fetch(part[p] + i + AHEAD);
                sum = vf_add(sum, vf_load_n(part[p] + i, n - i));
            }
            vf_put_n(y + i, sum, n - i, stream);
        }
        stream_end(stream);
    }
}

void CPU_(sum_blocks)(kernel_context *ctx, int64_t blocks, int64_t cols, int accumulate, float *sum,
                      const float *part) {
#pragma omp parallel for num_threads(threads_for(ctx, blocks *cols)) schedule(static)
    for (int64_t c = 0; c < cols; c += LANES) {
        vf total = accumulate ? vf_load_n(sum + c, cols - c) : vf_zero();
        for (int64_t b = 0; b < blocks; b++) total = vf_add(total, vf_load_n(part + b * cols + c, cols - c));
        vf_store_n(sum + c, total, cols - c);
    }
}

void CPU_(copy_rows)(kernel_context *ctx, int64_t n, int64_t cols, float *dst, const int32_t *dst_row,
                     const float *src, const int32_t *src_row) {
    const int64_t ahead = AHEAD / cols + 1; /* rows in no order are no stream that the hardware would see */
    const int stream = stream_wanted(2 * n * cols * (int64_t)sizeof *dst, dst, cols);
#pragma omp parallel num_threads(threads_for(ctx, n *cols))
    {
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < n; i++) {
            const int64_t later = i + ahead < n ? i + ahead : i;
            float *to = dst + (dst_row ? dst_row[i] : i) * cols;
            const float *from = src + (src_row ? src_row[i] : i) * cols;
            const float *next = src + (src_row ? src_row[later] : later) * cols;
            if (stream) copy_streamed(cols, to, from, next);
            else memcpy(to, from, (size_t)cols * sizeof *dst);
        }
        stream_end(stream);
    }
}

void CPU_(to_host)(kernel_context *ctx, void *host, const void *device, size_t bytes) {
    (void)ctx;
    if (bytes) memcpy(host, device, bytes);
}

void CPU_(to_device)(kernel_context *ctx, void *device, const void *host, size_t bytes) {
    (void)ctx;
    if (bytes) memcpy(device, host, bytes);
}
