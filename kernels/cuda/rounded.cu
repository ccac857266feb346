/* Operands of matrix products rounded to bf16: the copy of the weights that are held, and copies of the last
 * few activations and gradients, since most are read by two or three products.
 *
 * A copy is made by the first product that reads the operand, or by the kernel that computes it, beside its
 * float32 result (wrote_operand).  It is forgotten when anything writes to what it is a copy of, which every
 * operation and every message says (wrote).  Only memory from alloc has copies: nothing else writes to that.
 */
#include <string.h>

#include "kernels/cuda/matrix.cuh"

enum { THREADS = 256 };

/* Each thread rounds a chunk; a row's blocks lie beside each other. */
static __global__ void __launch_bounds__(THREADS)
    round_kernel(bf16 *dst, const float *src, unsigned blocks_per_row, unsigned rows, int64_t chunks,
                 int64_t cols, int64_t ld, int64_t stride, bool whole) {
    kernel_begins();
    unsigned row = blockIdx.x / blocks_per_row;
    int64_t i = (int64_t)(blockIdx.x % blocks_per_row) * THREADS + threadIdx.x;
    if (i >= chunks) return;
    int64_t at = i * CHUNK, left = cols - at;
    const float *from = src + row / rows * stride + row % rows * ld + at;
    float4 x = load4(from, left, whole), y = load4(from + 4, left - 4, whole);
    ((uint4 *)dst)[row * chunks + i] =
        make_uint4(bf16_pair(x.x, x.y), bf16_pair(x.z, x.w), bf16_pair(y.x, y.y), bf16_pair(y.z, y.w));
}

/* dst [count][rows][whole_chunks(cols)] = the matrices, rounded.  What lies side by side on both sides is one
 * row. */
static void round_all(kernel_context *ctx, bf16 *dst, const matrices *m) {
    int64_t rows = m->rows, count = m->count, cols = m->cols;
    if (cols % CHUNK == 0 && m->ld == cols) cols *= rows, rows = 1;
    if (cols % CHUNK == 0 && rows == 1 && m->stride == cols) cols *= count, count = 1;
    int64_t chunks = whole_chunks(cols) / CHUNK, per_row = divide_up(chunks, THREADS);
    if (!count || !rows || !chunks) return;
    LAUNCH(round_kernel, grid3(count * rows * per_row), THREADS, 0, ctx, dst, m->x, (unsigned)per_row,
           (unsigned)rows, chunks, cols, m->ld, m->stride,
           aligned16(m->x, m->ld) && (count == 1 || m->stride % 4 == 0));
}

/* ---- held weights ---- */

extern "C" void cuda_hold(kernel_context *ctx, int64_t n, const float *x) {
    matrix_state *s = ctx->matrix;
    if (s->dtype == DTYPE_FLOAT32) return;
    s->held = n ? x : NULL;
    s->held_elements = n;
    if (n > s->held_room) {
        s->held_copy =
            (bf16 *)cuda_memory_for(ctx, s->held_copy, (size_t)whole_chunks(n) * sizeof *s->held_copy,
                                    "the rounded copy of the weights");
        s->held_room = n;
    }
    matrices all = {x, 1, 1, n, n, 0};
    round_all(ctx, s->held_copy, &all);
}

/* Whether the rounded copy has them, in rows that begin at whole chunks and end with them. */
static bool is_held(const matrix_state *s, const matrices *m) {
    if (!s->held || m->x < s->held) return false;
    int64_t at = m->x - s->held, end = at + (m->count - 1) * m->stride + (m->rows - 1) * m->ld + m->cols;
    return end <= s->held_elements && at % CHUNK == 0 && m->cols % CHUNK == 0 && m->ld % CHUNK == 0 &&
           (m->count == 1 || m->stride % CHUNK == 0);
}

/* ---- copies of what was read last ---- */

static size_t copy_bytes(const matrices *m) {
    return (size_t)(m->count * m->rows * whole_chunks(m->cols)) * sizeof(bf16);
}
static size_t span_bytes(const matrices *m) {
    return (size_t)((m->rows - 1) * m->ld + m->cols) * sizeof *m->x;
}

/* May there be a copy of it that outlives the call? */
static bool is_kept(const kernel_context *ctx, const matrices *m) {
    return m->count == 1 && m->rows && m->cols && span_bytes(m) <= cuda_owned_from(ctx, m->x);
}

/* The copy that has these rows, among others maybe; NULL: none has. */
static rounded_copy *find_copy(matrix_state *s, const matrices *m) {
    for (int i = 0; i < COPIES; i++) {
        const matrices *of = &s->copy[i].of;
        if (!of->x || m->x < of->x || m->cols != of->cols || m->ld != of->ld) continue;
        int64_t at = m->x - of->x;
        if (at % of->ld == 0 && at / of->ld + m->rows <= of->rows) return &s->copy[i];
    }
    return NULL;
}

/* The place of the copy that was not used for longest, which is m's from now on. */
static rounded_copy *take_copy(kernel_context *ctx, const matrices *m) {
    matrix_state *s = ctx->matrix;
    rounded_copy *c = s->copy;
    for (int i = 1; i < COPIES; i++)
        if (s->copy[i].used < c->used) c = &s->copy[i];
    if (copy_bytes(m) > c->bytes) {
        c->bytes = copy_bytes(m);
        c->data = (bf16 *)cuda_memory_for(ctx, c->data, c->bytes, "rounded operands of matrix products");
    }
    c->of = *m;
    c->used = ++s->uses;
    return c;
}

void wrote(kernel_context *ctx, const void *x, size_t bytes) {
    matrix_state *s = ctx->matrix;
    uintptr_t begin = (uintptr_t)x, end = begin + bytes;
    for (int i = 0; bytes && i < COPIES; i++) {
        rounded_copy *c = &s->copy[i];
        uintptr_t first = (uintptr_t)c->of.x;
        if (!first || end <= first || begin >= first + span_bytes(&c->of)) continue;
        c->of.x = NULL;
        c->used = 0;
    }
}

bf16 *wrote_operand(kernel_context *ctx, const float *x, int64_t rows, int64_t cols) {
    matrices m = {x, 1, rows, cols, cols, 0};
    wrote(ctx, x, (size_t)(rows * cols) * sizeof *x);
    if (ctx->matrix->dtype == DTYPE_FLOAT32 || cols % CHUNK || !is_kept(ctx, &m)) return NULL;
    return take_copy(ctx, &m)->data;
}

/* ---- operands ---- */

size_t rounding_bytes(const kernel_context *ctx, const matrices *m) {
    return is_held(ctx->matrix, m) || is_kept(ctx, m) ? 0 : whole_256(copy_bytes(m));
}

rounded_matrices round_operand(kernel_context *ctx, const matrices *m, char **room) {
    matrix_state *s = ctx->matrix;
    if (is_held(s, m)) return rounded_matrices{s->held_copy + (m->x - s->held), m->ld, m->stride};
    int64_t ld = whole_chunks(m->cols);
    if (is_kept(ctx, m)) {
        rounded_copy *c = find_copy(s, m);
        if (!c) round_all(ctx, (c = take_copy(ctx, m))->data, m);
        c->used = ++s->uses;
        return rounded_matrices{c->data + (m->x - c->of.x) / m->ld * ld, ld, 0};
    }
    bf16 *to = (bf16 *)*room;
    *room += rounding_bytes(ctx, m);
    round_all(ctx, to, m);
    return rounded_matrices{to, ld, m->rows * ld};
}

/* Scratch is nearly always attention's: what products round there are a few rows or odd sizes. */
size_t cuda_own_bytes(kernel_context *ctx, int64_t held, int64_t operand, attention_shape s) {
    size_t rounded = (size_t)(whole_chunks(held) + COPIES * operand) * sizeof(bf16);
    return (ctx->matrix->dtype == DTYPE_BF16 ? rounded : 0) + attention_scratch_bytes(ctx, s);
}

void rounded_close(matrix_state *s) {
    CUDA_OK(cudaFree(s->held_copy));
    for (int i = 0; i < COPIES; i++) CUDA_OK(cudaFree(s->copy[i].data));
}
