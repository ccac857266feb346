#include "tests/emulate/wrong.h"

#include "kernels/cuda/device.cuh"

enum { THREADS = 64 };

static __global__ void wrong_kernel_of(wrong_kernel which, float *out, const float *in) {
    if (which != NEVER_WAITS) kernel_begins();
    SHARED(float, x, [THREADS + 4]);
    int t = (int)threadIdx.x, lane = t % WARP;
    bool lower = t < THREADS / 2;
    if (which == READS_UNWRITTEN) {
        out[t] = x[t];
        return;
    }
    if (which == SOME_RETURN && lower) return;
    if (which == HALF_A_WARP && lane >= 16) return;
    if (which == NO_COPY_WAIT || which == OUTSIDE_COPY) {
        copy_async16(&x[which == OUTSIDE_COPY ? 1 : 4 * (t % 16)], &in[4 * (t % 16)]);
        copy_async_commit();
        if (which == OUTSIDE_COPY) copy_async_wait<0>();
        out[t] = x[4 * (t % 16)];
        copy_async_wait<0>();
        return;
    }
    if (which == SOME_AT_BARRIER) {
        if (lower) __syncthreads();
        return;
    }
    if (which == TWO_BARRIERS) {
        if (lower) __syncthreads();
        else __syncthreads();
        return;
    }
    if (which == BANKS_SHARED || which == BANKS_APART) { /* rows of 128 bytes, and of 144 */
        SHARED(float, rows, [8 * 36]);
        uint32_t r[4];
        load_matrix4(r, &rows[t % 8 * (which == BANKS_SHARED ? 32 : 36)]);
        out[t] = (float)(r[0] & 1);
        return;
    }
    x[t] = (float)t;
    if (which != NO_BARRIER) __syncthreads();
    float mine = x[THREADS - 1 - t];
    mine += __shfl_xor_sync(which == PARTIAL_MASK ? 1u : ALL_LANES, mine, 1);
    int64_t at = which == BLOCKS_RACE ? t : (int64_t)blockIdx.x * THREADS + t;
    out[at] = mine + (float)blockIdx.x;
}

static __global__ void large_kernel(float *out) {
    kernel_begins();
    DYNAMIC_SHARED(float, x);
    x[0] = out[0];
}

static __global__ void own_kernel(float *out) {
    kernel_begins();
    DYNAMIC_SHARED(float, x);
    SHARED(float, own, [17 << 8]);
    x[0] = own[0] = out[0];
}

void wrong_run(wrong_kernel which, float *out) {
    static const float in[THREADS] __align__(16) = {1};
    if (which == TOO_MUCH_SHARED) LAUNCH(large_kernel, grid3(1), WARP, 228 << 10, 0, out);
    else if (which == UNASKED_SHARED) LAUNCH(own_kernel, grid3(1), WARP, 32 << 10, 0, out);
    else if (which == TOO_MANY_BLOCKS) LAUNCH(large_kernel, grid3(1ll << 31), WARP, 0, 0, out);
    else if (which == TOO_MANY_HEADS) LAUNCH(large_kernel, grid3(1, 1 << 16), WARP, 0, 0, out);
    else LAUNCH(wrong_kernel_of, grid3(3), which == TOO_MANY_THREADS ? 2048 : THREADS, 0, 0, which, out, in);
}
