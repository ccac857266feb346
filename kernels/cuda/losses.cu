/* Cross-entropy over a tile of logits, and the hidden z-loss. */
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/rows.cuh"

/* v, with `value` where the row has ended. */
static __device__ __forceinline__ float4 fill4(float4 v, int64_t left, float value) {
    return make_float4(left > 0 ? v.x : value, left > 1 ? v.y : value, left > 2 ? v.z : value,
                       left > 3 ? v.w : value);
}
/* exp(v - top) */
static __device__ __forceinline__ float4 exp4(float4 v, float top) {
    return make_float4(exp_f(v.x - top), exp_f(v.y - top), exp_f(v.z - top), exp_f(v.w - top));
}
static __device__ __forceinline__ double add_all(double sum, float4 v) {
    return sum + v.x + v.y + v.z + v.w;
}

/* The largest element that a thread has seen, its first place, and the sum of exp(x - top). */
typedef struct running {
    float top;
    int id;
    double sum; /* a vocabulary is long */
} running;

static __device__ __forceinline__ void see(running &r, float x, int id) {
    if (x > r.top) {
        r.top = x;
        r.id = id;
    }
}
static __device__ __forceinline__ float finite_top(float top) {
    return top == -INFINITY ? 0 : top; /* so that exp(-inf - top) is 0 and not NaN */
}

/* A block for each row: one pass for largest element, sum and loss, one for the gradient. */
template <int TEAM>
static __global__ void __launch_bounds__(TEAM)
    cross_entropy_kernel(int vocab, double scale, float *loss, int32_t *best, float *logits,
                         const int32_t *targets, uint16_t *rounded, bool whole) {
    kernel_begins();
    int64_t row = blockIdx.x;
    float *z = logits + row * vocab;
    if (rounded) rounded += row * vocab;
    int target = targets[row];
    if (target < 0 && !best) { /* the whole block */
        for (int c = 4 * (int)threadIdx.x; scale != 0 && c < vocab; c += 4 * TEAM) {
            store4(z + c, make_float4(0, 0, 0, 0), vocab - c, whole);
            if (rounded) store_rounded4(rounded + c, make_float4(0, 0, 0, 0));
        }
        if (threadIdx.x == 0) loss[row] = 0;
        return;
    }
    double wanted = target < 0 ? 0 : z[target];
    running r = {-INFINITY, INT32_MAX, 0};
#pragma unroll 2
    for (int c = 4 * (int)threadIdx.x; c < vocab; c += 4 * TEAM) {
        float4 v = fill4(load4(z + c, vocab - c, whole), vocab - c, -INFINITY);
        float before = r.top;
        see(r, v.x, c);
        see(r, v.y, c + 1);
        see(r, v.z, c + 2);
        see(r, v.w, c + 3);
        if (r.top > before) r.sum *= exp_f(before - r.top);
        r.sum = add_all(r.sum, exp4(v, finite_top(r.top)));
    }
    float top = team_max<TEAM>(r.top);
    double total = team_sum<TEAM>(r.top == -INFINITY ? r.sum : r.sum * exp_f(r.top - top));
    /* ids as floats: there are fewer than 2^24 */
    float first = -team_max<TEAM>(r.top == top ? -(float)r.id : -INFINITY);
    if (threadIdx.x == 0) {
        if (best) best[row] = first < (float)vocab ? (int)first : 0; /* 0: a row of NaN */
        loss[row] = target < 0 ? 0 : (float)(top - wanted + log_d(total));
    }
    if (scale == 0) return;
    float by = (float)(scale / total);
#pragma unroll 2
    for (int c = 4 * (int)threadIdx.x; c < vocab; c += 4 * TEAM) {
        float4 v = exp4(load4(z + c, vocab - c, whole), top), g = scale4(v, by);
        if (target == c) g.x = (float)(scale * (v.x / total - 1));
        if (target == c + 1) g.y = (float)(scale * (v.y / total - 1));
        if (target == c + 2) g.z = (float)(scale * (v.z / total - 1));
        if (target == c + 3) g.w = (float)(scale * (v.w / total - 1));
        if (target < 0) g = make_float4(0, 0, 0, 0);
        store4(z + c, g, vocab - c, whole);
        if (rounded) store_rounded4(rounded + c, g);
    }
}

extern "C" void cuda_cross_entropy(kernel_context *ctx, int64_t rows, int64_t vocab, double scale,
                                   float *loss, int32_t *best, float *logits, const int32_t *targets) {
    if (!rows) return;
    bool whole = aligned16(logits, vocab);
    wrote(ctx, loss, floats(1, rows, rows));
    if (best) wrote(ctx, best, (size_t)rows * sizeof *best);
    uint16_t *rounded = scale != 0 ? wrote_operand(ctx, logits, rows, vocab) : NULL;
    launch_grid grid = grid3(rows);
    if (vocab <= 4096)
        LAUNCH((cross_entropy_kernel<256>), grid, 256, 0, ctx, (int)vocab, scale, loss, best, logits, targets,
               rounded, whole);
    else
        LAUNCH((cross_entropy_kernel<1024>), grid, 1024, 0, ctx, (int)vocab, scale, loss, best, logits,
               targets, rounded, whole);
}

static __device__ __forceinline__ float4 abs4(float4 v) {
    return make_float4(fabsf(v.x), fabsf(v.y), fabsf(v.z), fabsf(v.w));
}
/* d with the sign of x, and 0 at 0 */
static __device__ __forceinline__ float signed_f(float d, float x) {
    return x < 0 ? -d : x == 0 ? 0 : d;
}

template <int TEAM, int CHUNKS>
static __global__ void ROW_BOUNDS(TEAM)
    hidden_z_kernel(int64_t rows, int64_t h, double scale, float *loss, float *sum_sq, float *max_abs,
                    float *dx, const float *x, bool whole) {
    kernel_begins();
    int64_t r = team_row<TEAM>(), end = r < rows ? h : 0;
    int t = team_thread<TEAM>();
    float4 v[CHUNKS];
    float squares = 0, top = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int c = 4 * (t + i * TEAM);
        v[i] = load4(x + r * h + c, end - c, whole);
        squares = dot4(v[i], v[i], squares);
        float4 a = abs4(v[i]);
        top = fmaxf(fmaxf(top, fmaxf(a.x, a.y)), fmaxf(a.z, a.w));
    }
    squares = team_sum<TEAM>(squares);
    top = team_max<TEAM>(top);
    double sum = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int c = 4 * (t + i * TEAM);
        sum = add_all(sum, fill4(exp4(abs4(v[i]), top), end - c, 0));
    }
    double total = team_sum<TEAM>(sum);
    if (!end) return;
    double lse = top + log_d(total);
    if (t == 0) {
        loss[r] = (float)(lse * lse);
        sum_sq[r] = squares;
        max_abs[r] = top;
    }
    if (!dx) return;
    /* d loss / dx = 2 lse softmax(|x|) sign(x) */
    float by = (float)(scale * 2 * lse / total);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int c = 4 * (t + i * TEAM);
        float *dx_c = dx + r * h + c;
        float4 d = scale4(exp4(abs4(v[i]), top), by);
        d = make_float4(signed_f(d.x, v[i].x), signed_f(d.y, v[i].y), signed_f(d.z, v[i].z),
                        signed_f(d.w, v[i].w));
        store4(dx_c, add4(load4(dx_c, end - c, whole), d), end - c, whole);
    }
}

extern "C" void cuda_hidden_z(kernel_context *ctx, int64_t rows, int64_t h, double scale, float *loss,
                              float *sum_sq, float *max_abs, float *dx, const float *x) {
    if (!rows) return;
    require_row("hidden_z", h);
    wrote(ctx, loss, floats(1, rows, rows));
    wrote(ctx, sum_sq, floats(1, rows, rows));
    wrote(ctx, max_abs, floats(1, rows, rows));
    if (dx) wrote(ctx, dx, floats(rows, h, h));
    LAUNCH_ROWS(hidden_z_kernel, rows, h, ctx, rows, h, scale, loss, sum_sq, max_abs, dx, x,
                aligned16(x, h) && aligned16(dx, h));
}
