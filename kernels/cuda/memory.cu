/* Memory, and moving elements about: no arithmetic but the fold's one addition. */
#include <string.h>

#include "kernels/cuda/context.cuh"
#include "kernels/cuda/device.cuh"

enum { THREADS = 256 };

/* One thread for each four elements. */
static launch_grid grid_for(int64_t n) {
    return grid3(divide_up(n, 4 * THREADS));
}

void *cuda_memory(kernel_context *ctx, size_t bytes, const char *what) {
    void *p = NULL;
    if (cudaMalloc(&p, bytes ? bytes : 1) == cudaErrorMemoryAllocation) {
        size_t left = 0, all = 0;
        CUDA_OK(cudaMemGetInfo(&left, &all));
        FAULT(EXIT_NO_MEMORY,
              "%s: no %zu bytes for %s: %zu of %zu are free; model.recompute: true, a smaller "
              "train.micro_batch_size or train.seq_len, or more ranks, each with a GPU of its own, need less",
              ctx->name, bytes, what, left, all);
    }
    CUDA_OK(cudaGetLastError());
    return p;
}

void *cuda_memory_for(kernel_context *ctx, void *old, size_t bytes, const char *what) {
    CUDA_OK(cudaStreamSynchronize(ctx->stream));
    CUDA_OK(cudaFree(old));
    return cuda_memory(ctx, bytes, what);
}

extern "C" void *cuda_alloc(kernel_context *ctx, size_t bytes, const char *what) {
    void *p = NULL;
    if (ctx->host_reaches) CUDA_OK(cudaMallocHost(&p, bytes ? bytes : 1));
    else p = cuda_memory(ctx, bytes, what);
    CUDA_OK(cudaMemsetAsync(p, 0, bytes, ctx->stream));
    if (ctx->host_reaches) return p; /* what is there may be the host's work */
    if (ctx->owned_count == ctx->owned_room) {
        ctx->owned_room = 2 * ctx->owned_room + 32;
        ctx->owned = (allocation *)mem_grow(ctx->owned, (size_t)ctx->owned_room * sizeof *ctx->owned,
                                            "the list of allocations");
    }
    ctx->owned[ctx->owned_count++] = allocation{(const char *)p, bytes};
    return p;
}

size_t cuda_owned_from(const kernel_context *ctx, const void *p) {
    for (int i = 0; i < ctx->owned_count; i++) {
        size_t at = (size_t)((const char *)p - ctx->owned[i].base); /* a large number before the base */
        if (at < ctx->owned[i].bytes) return ctx->owned[i].bytes - at;
    }
    return 0;
}

extern "C" void cuda_free(kernel_context *ctx, void *p) {
    CUDA_OK(cudaStreamSynchronize(ctx->stream)); /* nothing uses it any more */
    wrote(ctx, p, cuda_owned_from(ctx, p));
    for (int i = 0; i < ctx->owned_count; i++)
        if (ctx->owned[i].base == p) ctx->owned[i] = ctx->owned[--ctx->owned_count];
    CUDA_OK(ctx->host_reaches ? cudaFreeHost(p) : cudaFree(p));
}

/* Behind what the stream has to do.  Either end may be the host's, which addresses tell; where both are,
 * nobody promises that the copy waits for the stream. */
static void move(kernel_context *ctx, void *to, const void *from, size_t bytes) {
    if (!bytes) return;
    if (ctx->host_reaches) CUDA_OK(cudaStreamSynchronize(ctx->stream));
    CUDA_OK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, ctx->stream));
}

extern "C" void cuda_zero(kernel_context *ctx, int64_t n, float *x) {
    wrote(ctx, x, floats(1, n, n));
    if (n) CUDA_OK(cudaMemsetAsync(x, 0, (size_t)n * sizeof *x, ctx->stream));
}

extern "C" void cuda_copy(kernel_context *ctx, int64_t n, float *y, const float *x) {
    wrote(ctx, y, floats(1, n, n));
    move(ctx, y, x, (size_t)n * sizeof *x);
}

/* What one launch adds up; where there is more, the next goes on from y. */
enum { ADDENDS = 64 };
struct addends {
    const float *first, *part[ADDENDS];
    int parts;
    bool whole;
};

static __global__ void __launch_bounds__(THREADS)
    add_kernel(int64_t n, float *y, const __grid_constant__ addends a) {
    kernel_begins();
    int64_t i = 4 * ((int64_t)blockIdx.x * THREADS + threadIdx.x);
    if (i >= n) return;
    float4 sum = load4(a.first + i, n - i, a.whole);
#pragma unroll 4
    for (int p = 0; p < a.parts; p++) sum = add4(sum, load4(a.part[p] + i, n - i, a.whole));
    store4(y + i, sum, n - i, a.whole);
}

extern "C" void cuda_add(kernel_context *ctx, int64_t n, float *y, const float *d, int64_t parts,
                         const float *const *part) {
    int64_t p = d ? 0 : 1;
    wrote(ctx, y, floats(1, n, n));
    if (n && p == parts && y != d) cuda_copy(ctx, n, y, d ? d : part[0]);
    for (const float *first = d ? d : part[0]; n && p < parts; first = y) {
        addends a = {};
        a.first = first;
        a.whole = aligned16(y, 0) && aligned16(first, 0);
        for (; a.parts < ADDENDS && p < parts; a.parts++, p++) {
            a.part[a.parts] = part[p];
            a.whole = a.whole && aligned16(part[p], 0);
        }
        LAUNCH(add_kernel, grid_for(n), THREADS, 0, ctx, n, y, a);
    }
}

static __global__ void __launch_bounds__(THREADS)
    copy_rows_kernel(int64_t n, int64_t cols, row_threads t, float *dst, const int32_t *dst_row,
                     const float *src, const int32_t *src_row, uint16_t *rounded, bool whole) {
    kernel_begins();
    int64_t i = thread_row(t), c = 4 * thread_chunk(t);
    if (i >= n || c >= cols) return;
    int64_t to = dst_row ? dst_row[i] : i, from = src_row ? src_row[i] : i;
    float4 v = load4(src + from * cols + c, cols - c, whole);
    store4(dst + to * cols + c, v, cols - c, whole);
    if (rounded) store_rounded4(rounded + i * cols + c, v);
}

extern "C" void cuda_copy_rows(kernel_context *ctx, int64_t n, int64_t cols, float *dst,
                               const int32_t *dst_row, const float *src, const int32_t *src_row) {
    if (!n || !cols) return;
    row_threads t = threads_of_rows(divide_up(cols, 4), THREADS);
    uint16_t *rounded = NULL;
    if (dst_row) wrote(ctx, dst, cuda_owned_from(ctx, dst));
    else rounded = wrote_operand(ctx, dst, n, cols);
    LAUNCH(copy_rows_kernel, grid_of_rows(n, t, THREADS), THREADS, 0, ctx, n, cols, t, dst, dst_row, src,
           src_row, rounded, aligned16(dst, cols) && aligned16(src, cols));
}

extern "C" void cuda_to_host(kernel_context *ctx, void *host, const void *device, size_t bytes) {
    move(ctx, host, device, bytes);
    CUDA_OK(cudaStreamSynchronize(ctx->stream));
}

extern "C" void cuda_fetch(kernel_context *ctx, void *host, const void *device, size_t bytes) {
    if (bytes > CUDA_INBOX - ctx->inbox_used || ctx->arrivals == CUDA_ARRIVALS) {
        cuda_to_host(ctx, host, device, bytes);
        return;
    }
    char *to = ctx->inbox + ctx->inbox_used;
    move(ctx, to, device, bytes);
    CUDA_OK(cudaEventRecord(ctx->inbox_filled, ctx->stream));
    ctx->arriving[ctx->arrivals++] = arrival{host, to, bytes};
    ctx->inbox_used += (bytes + 255) / 256 * 256;
}

extern "C" void cuda_fetched(kernel_context *ctx) {
    if (!ctx->arrivals) return;
    CUDA_OK(cudaEventSynchronize(ctx->inbox_filled));
    for (int i = 0; i < ctx->arrivals; i++) {
        const arrival *a = &ctx->arriving[i];
        memcpy(a->host, a->from, a->bytes);
    }
    ctx->arrivals = 0;
    ctx->inbox_used = 0;
}

/* The caller may change `host` at once.  What fits into the outbox is brought from there, and the host goes
 * on giving the device work meanwhile: a layer's tables come this way. */
extern "C" void cuda_to_device(kernel_context *ctx, void *device, const void *host, size_t bytes) {
    if (!bytes) return;
    wrote(ctx, device, bytes);
    if (bytes > CUDA_OUTBOX) {
        move(ctx, device, host, bytes);
        CUDA_OK(cudaStreamSynchronize(ctx->stream));
        return;
    }
    if (ctx->outbox_used + bytes > CUDA_OUTBOX) { /* the other half, once it has been read */
        CUDA_OK(cudaEventRecord(ctx->outbox_read[ctx->outbox_half], ctx->stream));
        ctx->outbox_half ^= 1;
        ctx->outbox_used = 0;
        CUDA_OK(cudaEventSynchronize(ctx->outbox_read[ctx->outbox_half]));
    }
    char *from = ctx->outbox + ctx->outbox_half * CUDA_OUTBOX + ctx->outbox_used;
    memcpy(from, host, bytes);
    move(ctx, device, from, bytes);
    ctx->outbox_used += (bytes + 255) / 256 * 256;
}
