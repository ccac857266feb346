/* Embedding: rows of a table, and the sum of their gradients. */
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/device.cuh"

enum { THREADS = 256, COLUMNS = 4 * THREADS };

extern "C" void cuda_embedding_forward(kernel_context *ctx, int64_t rows, int64_t h, float *x, const float *w,
                                       const int32_t *ids) {
    cuda_copy_rows(ctx, rows, h, x, NULL, w, ids);
}

/* Whether any thread of the block says so. */
static __device__ __forceinline__ bool any_of_block(bool mine) {
    SHARED(unsigned, found, [THREADS / WARP]);
    unsigned votes = __ballot_sync(ALL_LANES, mine);
    if (threadIdx.x % WARP == 0) found[threadIdx.x / WARP] = votes;
    __syncthreads();
    unsigned any = 0;
    for (int i = 0; i < THREADS / WARP; i++) any |= found[i];
    return any;
}

/* A block for each row and COLUMNS columns.  The block of an id's first row adds all of that id's rows, in
 * their order; the others see that they are not the first and leave. */
static __global__ void __launch_bounds__(THREADS)
    backward_kernel(int64_t rows, int64_t h, float *dw, const float *dx, const int32_t *ids, bool whole) {
    kernel_begins();
    SHARED(unsigned, votes, [THREADS / WARP]);
    int64_t first = blockIdx.x, c = (int64_t)blockIdx.y * COLUMNS + 4 * threadIdx.x, left = h - c;
    int32_t id = ids[first];
    bool before = false;
    for (int64_t r = threadIdx.x; r < first; r += THREADS) before |= ids[r] == id;
    if (any_of_block(before)) return;
    float4 sum = load4(dw + id * h + c, left, whole);
    for (int64_t start = first; start < rows; start += THREADS) {
        /* which of these rows have the id: a bit each */
        int64_t r = start + threadIdx.x;
        unsigned mine = __ballot_sync(ALL_LANES, r < rows && ids[r] == id);
        __syncthreads(); /* the votes before have been read */
        if (threadIdx.x % WARP == 0) votes[threadIdx.x / WARP] = mine;
        __syncthreads();
        for (int i = 0; i < THREADS / WARP; i++)
            for (unsigned bits = votes[i]; bits; bits &= bits - 1) {
                int64_t hit = start + i * WARP + __ffs((int)bits) - 1;
                sum = add4(sum, load4(dx + hit * h + c, left, whole));
            }
    }
    store4(dw + id * h + c, sum, left, whole);
}

extern "C" void cuda_embedding_backward(kernel_context *ctx, int64_t rows, int64_t h, float *dw,
                                        const float *dx, const int32_t *ids) {
    if (!rows) return;
    wrote(ctx, dw, cuda_owned_from(ctx, dw)); /* ids say which rows */
    LAUNCH(backward_kernel, grid3(rows, divide_up(h, COLUMNS)), THREADS, 0, ctx, rows, h, dw, dx, ids,
           aligned16(dw, h) && aligned16(dx, h));
}
