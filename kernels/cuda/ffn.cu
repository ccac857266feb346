/* SwiGLU, forward and backward, of all rows of a list of segments. */
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/rows.cuh"

enum { THREADS = 256, RUNS = 128 };

/* The rows of one launch, as its parameter: run i begins at row[i], and `before[i]` rows go before it. */
typedef struct row_list {
    int64_t runs, rows;
    int32_t row[RUNS], before[RUNS];
} row_list;

static __device__ __forceinline__ int64_t listed_row(const row_list &l, int64_t i) {
    int64_t from = 0, to = l.runs;
    while (to - from > 1) {
        int64_t middle = (from + to) / 2;
        if (l.before[middle] <= i) from = middle;
        else to = middle;
    }
    return l.row[from] + i - l.before[from];
}

/* The segments from *next on, as many as a list holds; neighbours are one run, and empty ones none. */
static row_list list_rows(int64_t segments, const segment *s, int64_t *next) {
    row_list l = {};
    for (; *next < segments; ++*next) {
        const segment *at = &s[*next];
        if (!at->rows) continue;
        bool joins = l.runs && l.row[l.runs - 1] + l.rows - l.before[l.runs - 1] == at->row;
        if (!joins && l.runs == RUNS) break;
        if (!joins) {
            l.row[l.runs] = (int32_t)at->row;
            l.before[l.runs++] = (int32_t)l.rows;
        }
        l.rows += at->rows;
    }
    return l;
}

/* Says that the listed rows of x [.., cols] are written.  Where they are all that the call writes, and lie
 * side by side: where they are left rounded, too (`readable`: rows are whole chunks of four). */
static uint16_t *wrote_rows(kernel_context *ctx, const float *x, int64_t cols, const row_list *l, bool all,
                            bool readable) {
    if (all && l->runs == 1 && readable) return wrote_operand(ctx, x + l->row[0] * cols, l->rows, cols);
    for (int64_t i = 0; i < l->runs; i++) {
        int64_t end = i + 1 < l->runs ? l->before[i + 1] : l->rows;
        wrote(ctx, x + l->row[i] * cols, floats(end - l->before[i], cols, cols));
    }
    return NULL;
}

static __device__ __forceinline__ float4 sigmoid4(float4 x) {
    return make_float4(sigmoid_f(x.x), sigmoid_f(x.y), sigmoid_f(x.z), sigmoid_f(x.w));
}

/* Four elements a thread.  rounded [rows listed, f] */
static __global__ void __launch_bounds__(THREADS)
    forward_kernel(const __grid_constant__ row_list l, int64_t f, row_threads t, float *h, const float *gu,
                   uint16_t *rounded, bool whole) {
    kernel_begins();
    int64_t i = thread_row(t), c = 4 * thread_chunk(t);
    if (i >= l.rows || c >= f) return;
    int64_t r = listed_row(l, i);
    float4 g = load4(gu + r * 2 * f + c, f - c, whole), u = load4(gu + r * 2 * f + f + c, f - c, whole);
    float4 out = mul4(mul4(g, sigmoid4(g)), u);
    store4(h + r * f + c, out, f - c, whole);
    if (rounded) store_rounded4(rounded + i * f + c, out);
}

extern "C" void cuda_swiglu_forward(kernel_context *ctx, int64_t segments, const segment *s, int64_t f,
                                    float *h, const float *gu) {
    row_threads t = threads_of_rows(divide_up(f, 4), THREADS);
    for (int64_t next = 0, first = 0; next < segments; first = next) {
        row_list l = list_rows(segments, s, &next);
        if (!l.rows) return;
        uint16_t *rounded = wrote_rows(ctx, h, f, &l, !first && next == segments, true);
        LAUNCH(forward_kernel, grid_of_rows(l.rows, t, THREADS), THREADS, 0, ctx, l, f, t, h, gu, rounded,
               aligned16(h, f) && aligned16(gu, f));
    }
}

/* silu' = s (1 + g (1 - s)) with s = sigmoid(g) */
static __device__ __forceinline__ float slope_f(float g, float s) {
    return s * fmaf(g, 1.0f - s, 1.0f);
}

/* A team walks along a row, however long. */
template <int TEAM>
static __global__ void ROW_BOUNDS(TEAM)
    backward_kernel(const __grid_constant__ row_list l, int64_t f, float *dgu, float *h, float *dweight,
                    const float *dh, const float *gu, const float *weight, uint16_t *dgu_rounded,
                    uint16_t *h_rounded, bool whole) {
    kernel_begins();
    int64_t i = team_row<TEAM>(), r = listed_row(l, i), end = i < l.rows ? f : 0;
    float w = weight && end ? weight[r] : 1, dot = 0;
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
        if (h_rounded) store_rounded4(h_rounded + i * f + c, h_c);
        if (dgu_rounded) store_rounded4(dgu_rounded + i * 2 * f + c, dgate_c);
        if (dgu_rounded) store_rounded4(dgu_rounded + (i * 2 + 1) * f + c, dup_c);
    }
    dot = team_sum<TEAM>(dot);
    if (dweight && end && team_thread<TEAM>() == 0) dweight[r] = dot;
}

extern "C" void cuda_swiglu_backward(kernel_context *ctx, int64_t segments, const segment *s, int64_t f,
                                     float *dgu, float *h, float *dweight, const float *dh, const float *gu,
                                     const float *weight) {
    bool whole = aligned16(dgu, f) && aligned16(h, f) && aligned16(dh, f) && aligned16(gu, f);
    for (int64_t next = 0, first = 0; next < segments; first = next) {
        row_list l = list_rows(segments, s, &next);
        if (!l.rows) return;
        bool all = !first && next == segments;
        /* h is read by the last of three products */
        uint16_t *h_rounded = wrote_rows(ctx, h, f, &l, all, true),
                 *dgu_rounded = wrote_rows(ctx, dgu, 2 * f, &l, all, f % 4 == 0);
        if (dweight) wrote_rows(ctx, dweight, 1, &l, all, false);
        if (f <= 1024)
            LAUNCH_TEAMS((backward_kernel<32>), 32, l.rows, ctx, l, f, dgu, h, dweight, dh, gu, weight,
                         dgu_rounded, h_rounded, whole);
        else
            LAUNCH_TEAMS((backward_kernel<256>), 256, l.rows, ctx, l, f, dgu, h, dweight, dh, gu, weight,
                         dgu_rounded, h_rounded, whole);
    }
}
