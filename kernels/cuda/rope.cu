/* RoPE on interleaved pairs, in place. */
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/device.cuh"

enum { THREADS = 256 };

/* A thread for each pair of a row.  The transpose turns by -sin. */
static __global__ void __launch_bounds__(THREADS)
    rope_kernel(int64_t rows, unsigned seq, row_threads t, unsigned heads, unsigned pairs, float sign,
                float *x, int64_t ld, int64_t head_stride, const float *cosine, const float *sine,
                bool whole) {
    kernel_begins();
    int64_t r = thread_row(t);
    unsigned i = (unsigned)thread_chunk(t), head = i / pairs, p = i % pairs;
    if (r >= rows || head >= heads) return;
    int64_t at = (int64_t)((unsigned)r % seq) * pairs + p;
    float c = cosine[at], s = sign * sine[at];
    float *pair = x + r * ld + head * head_stride + 2 * p;
    float2 v = whole ? *(const float2 *)pair : make_float2(pair[0], pair[1]);
    v = make_float2(fmaf(v.x, c, -(v.y * s)), fmaf(v.y, c, v.x * s));
    if (whole) {
        *(float2 *)pair = v;
    } else {
        pair[0] = v.x;
        pair[1] = v.y;
    }
}

extern "C" void cuda_rope(kernel_context *ctx, int64_t rows, int64_t seq, int64_t heads, int64_t pairs,
                          int backward, float *x, int64_t ld, int64_t head_stride, const float *cosine,
                          const float *sine) {
    if (!rows) return;
    row_threads t = threads_of_rows(heads * pairs, THREADS);
    wrote(ctx, x, floats(rows, (heads - 1) * head_stride + 2 * pairs, ld));
    bool whole = (uintptr_t)x % 8 == 0 && ld % 2 == 0 && head_stride % 2 == 0;
    LAUNCH(rope_kernel, grid_of_rows(rows, t, THREADS), THREADS, 0, ctx, rows, (unsigned)seq, t,
           (unsigned)heads, (unsigned)pairs, backward ? -1.0f : 1.0f, x, ld, head_stride, cosine, sine,
           whole);
}
