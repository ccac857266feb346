/* SwiGLU, forward and backward. */
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/rows.cuh"

enum { THREADS = 256 };

static __device__ __forceinline__ float4 sigmoid4(float4 x) {
    return make_float4(sigmoid_f(x.x), sigmoid_f(x.y), sigmoid_f(x.z), sigmoid_f(x.w));
}

/* Four elements a thread; a row's blocks lie beside each other. */
static __global__ void __launch_bounds__(THREADS)
    forward_kernel(int64_t f, unsigned blocks_per_row, float *h, const float *gu, uint16_t *rounded,
                   bool whole) {
    int64_t r = blockIdx.x / blocks_per_row,
            c = 4 * (int64_t)(blockIdx.x % blocks_per_row * THREADS + threadIdx.x);
    if (c >= f) return;
    float4 g = load4(gu + r * 2 * f + c, f - c, whole), u = load4(gu + r * 2 * f + f + c, f - c, whole);
    float4 out = mul4(mul4(g, sigmoid4(g)), u);
    store4(h + r * f + c, out, f - c, whole);
    if (rounded) store_rounded4(rounded + r * f + c, out);
}

extern "C" void cuda_swiglu_forward(kernel_context *ctx, int64_t rows, int64_t f, float *h, const float *gu) {
    if (!rows) return;
    int64_t per_row = divide_up(f, 4 * THREADS);
    LAUNCH(forward_kernel, dim3((unsigned)(rows * per_row)), THREADS, 0, ctx->stream, f, (unsigned)per_row, h,
           gu, wrote_operand(ctx, h, rows, f), aligned16(h, f) && aligned16(gu, f));
}

/* silu' = s (1 + g (1 - s)) with s = sigmoid(g) */
static __device__ __forceinline__ float slope_f(float g, float s) {
    return s * fmaf(g, 1.0f - s, 1.0f);
}

/* A team walks along a row, however long. */
template <int TEAM>
static __global__ void ROW_BOUNDS(TEAM)
    backward_kernel(int64_t rows, int64_t f, float *dgu, float *h, float *dweight, const float *dh,
                    const float *gu, const float *weight, uint16_t *dgu_rounded, uint16_t *h_rounded,
                    bool whole) {
    int64_t r = team_row<TEAM>(), end = r < rows ? f : 0;
    float w = weight && r < rows ? weight[r] : 1, dot = 0;
    const float *gate = gu + r * 2 * f, *up = gate + f;
    float *dgate = dgu + r * 2 * f, *dup = dgate + f;
#pragma unroll 2
    for (int64_t c = 4 * team_thread<TEAM>(); c < end; c += 4 * TEAM) {
        int64_t left = end - c;
        float4 g = load4(gate + c, left, whole), u = load4(up + c, left, whole);
        float4 d = load4(dh + r * f + c, left, whole), s = sigmoid4(g);
        float4 silu = mul4(g, s), out = mul4(silu, u);
        dot = dot4(d, out, dot);
        d = scale4(d, w);
        float4 slope =
            make_float4(slope_f(g.x, s.x), slope_f(g.y, s.y), slope_f(g.z, s.z), slope_f(g.w, s.w));
        float4 h_c = scale4(out, w), dgate_c = mul4(mul4(d, u), slope), dup_c = mul4(d, silu);
        store4(h + r * f + c, h_c, left, whole);
        store4(dgate + c, dgate_c, left, whole);
        store4(dup + c, dup_c, left, whole);
        if (h_rounded) store_rounded4(h_rounded + r * f + c, h_c);
        if (dgu_rounded) store_rounded4(dgu_rounded + r * 2 * f + c, dgate_c);
        if (dgu_rounded) store_rounded4(dgu_rounded + (r * 2 + 1) * f + c, dup_c);
    }
    dot = team_sum<TEAM>(dot);
    if (dweight && r < rows && team_thread<TEAM>() == 0) dweight[r] = dot;
}

extern "C" void cuda_swiglu_backward(kernel_context *ctx, int64_t rows, int64_t f, float *dgu, float *h,
                                     float *dweight, const float *dh, const float *gu, const float *weight) {
    if (!rows) return;
    /* h is read by the last of three products */
    uint16_t *h_rounded = wrote_operand(ctx, h, rows, f), *dgu_rounded = NULL;
    if (f % 4 == 0) dgu_rounded = wrote_operand(ctx, dgu, rows, 2 * f);
    else wrote(ctx, dgu, floats(rows, 2 * f, 2 * f));
    if (dweight) wrote(ctx, dweight, floats(1, rows, rows));
    bool whole = aligned16(dgu, f) && aligned16(h, f) && aligned16(dh, f) && aligned16(gu, f);
    if (f <= 1024)
        LAUNCH_TEAMS((backward_kernel<32>), 32, rows, ctx->stream, rows, f, dgu, h, dweight, dh, gu, weight,
                     dgu_rounded, h_rounded, whole);
    else
        LAUNCH_TEAMS((backward_kernel<256>), 256, rows, ctx->stream, rows, f, dgu, h, dweight, dh, gu, weight,
                     dgu_rounded, h_rounded, whole);
}
