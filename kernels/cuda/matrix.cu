/* Scratch, rounding of operands, and lists of products. */
#include <string.h>

#include "kernels/cuda/matrix.cuh"

enum { THREADS = 256 };

int matrix_open(kernel_context *ctx, kernels_dtype dtype, error *e) {
    matrix_state *s = (matrix_state *)mem_alloc(sizeof *s, "the cuda backend");
    s->dtype = dtype;
    ctx->matrix = s;
    return dtype == DTYPE_BF16 ? cublas_open(ctx, &s->cublas, e) : 0;
}

void matrix_close(kernel_context *ctx) {
    matrix_state *s = ctx->matrix;
    if (s->cublas) cublas_close(s->cublas);
    CUDA_OK(cudaFree(s->scratch));
    CUDA_OK(cudaFree(s->held_copy));
    mem_free(s->list.job);
    mem_free(s->list.run);
    mem_free(s->packed);
    mem_free(s);
    ctx->matrix = NULL;
}

char *matrix_scratch(kernel_context *ctx, size_t bytes) {
    matrix_state *s = ctx->matrix;
    if (bytes > s->scratch_bytes) {
        CUDA_OK(cudaStreamSynchronize(ctx->stream));
        CUDA_OK(cudaFree(s->scratch));
        s->scratch = (char *)cuda_memory(ctx, bytes, "operands of matrix products and attention");
        s->scratch_bytes = bytes;
    }
    return s->scratch;
}

/* Each thread rounds a chunk; neighbours take neighbouring chunks of a row. */
static __global__ void __launch_bounds__(THREADS)
    round_kernel(bf16 *dst, const float *src, int64_t rows, int64_t chunks, int64_t cols, int64_t ld,
                 int64_t stride, int64_t total, bool whole) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= total) return;
    int64_t row = i / chunks, at = i % chunks * CHUNK, left = cols - at;
    const float *from = src + row / rows * stride + row % rows * ld + at;
    float4 x = load4(from, left, whole), y = load4(from + 4, left - 4, whole);
    ((uint4 *)dst)[i] =
        make_uint4(bf16_pair(x.x, x.y), bf16_pair(x.z, x.w), bf16_pair(y.x, y.y), bf16_pair(y.z, y.w));
}

void round_matrices(kernel_context *ctx, bf16 *dst, const float *src, int64_t count, int64_t rows,
                    int64_t cols, int64_t ld, int64_t stride) {
    int64_t chunks = whole_chunks(cols) / CHUNK, total = count * rows * chunks;
    if (!total) return;
    LAUNCH(round_kernel, dim3((unsigned)divide_up(total, THREADS)), THREADS, 0, ctx->stream, dst, src, rows,
           chunks, cols, ld, stride, total, aligned16(src, ld) && (count == 1 || stride % 4 == 0));
}

extern "C" void cuda_hold(kernel_context *ctx, int64_t n, const float *x) {
    matrix_state *s = ctx->matrix;
    if (s->dtype == DTYPE_FLOAT32) return;
    s->held = n ? x : NULL;
    s->held_elements = n;
    if (n > s->held_room) {
        CUDA_OK(cudaStreamSynchronize(ctx->stream));
        CUDA_OK(cudaFree(s->held_copy));
        s->held_copy = (bf16 *)cuda_memory(ctx, (size_t)whole_chunks(n) * sizeof *s->held_copy,
                                           "the rounded copy of the weights");
        s->held_room = n;
    }
    round_matrices(ctx, s->held_copy, x, 1, 1, n, n, 0);
}

/* Whether the rounded copy has them, in rows that begin at whole chunks and end with them. */
static bool is_held(const matrix_state *s, const matrices *m) {
    if (!s->held || m->x < s->held) return false;
    int64_t at = m->x - s->held, end = at + (m->count - 1) * m->stride + (m->rows - 1) * m->ld + m->cols;
    return end <= s->held_elements && at % CHUNK == 0 && m->cols % CHUNK == 0 && m->ld % CHUNK == 0 &&
           (m->count == 1 || m->stride % CHUNK == 0);
}

size_t rounding_bytes(const kernel_context *ctx, const matrices *m) {
    if (is_held(ctx->matrix, m)) return 0;
    return whole_256((size_t)(m->count * m->rows * whole_chunks(m->cols)) * sizeof(bf16));
}

rounded_matrices round_operand(kernel_context *ctx, const matrices *m, char **room) {
    const matrix_state *s = ctx->matrix;
    if (is_held(s, m)) return rounded_matrices{s->held_copy + (m->x - s->held), m->ld, m->stride};
    bf16 *to = (bf16 *)*room;
    *room += rounding_bytes(ctx, m);
    round_matrices(ctx, to, m->x, m->count, m->rows, m->cols, m->ld, m->stride);
    return rounded_matrices{to, whole_chunks(m->cols), m->rows * whole_chunks(m->cols)};
}

/* ---- lists ---- */

void list_clear(product_list *l) {
    l->jobs = l->runs = l->tiles = 0;
}

void list_job(product_list *l, int64_t c, int64_t m, int64_t n, int tile_m, int tile_n) {
    if (l->jobs == l->jobs_room) {
        l->jobs_room = 2 * l->jobs_room + 64;
        l->job = (product_job *)mem_grow(l->job, (size_t)l->jobs_room * sizeof *l->job, "a list of products");
    }
    l->job[l->jobs++] = product_job{c, m, l->tiles, l->runs, 0};
    l->tiles += divide_up(m, tile_m) * divide_up(n, tile_n);
}

void list_run(product_list *l, int64_t a, int64_t b, int64_t k) {
    if (!k) return;
    if (l->runs == l->runs_room) {
        l->runs_room = 2 * l->runs_room + 64;
        l->run = (product_run *)mem_grow(l->run, (size_t)l->runs_room * sizeof *l->run, "a list of products");
    }
    l->run[l->runs++] = product_run{a, b, k};
    l->job[l->jobs - 1].runs++;
}

device_list list_upload(kernel_context *ctx, const product_list *l, char *room) {
    size_t jobs = (size_t)l->jobs * sizeof *l->job, runs = (size_t)l->runs * sizeof *l->run;
    matrix_state *s = ctx->matrix;
    if (jobs + runs > s->packed_bytes) {
        s->packed_bytes = 2 * (jobs + runs);
        s->packed = (char *)mem_grow(s->packed, s->packed_bytes, "a list of products");
    }
    memcpy(s->packed, l->job, jobs);
    memcpy(s->packed + jobs, l->run, runs);
    cuda_to_device(ctx, room, s->packed, jobs + runs);
    return device_list{(const product_job *)room, (const product_run *)(room + jobs), l->jobs};
}
