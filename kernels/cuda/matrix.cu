/* Scratch and lists of products of matrix products and attention. */
#include <string.h>

#include "kernels/cuda/matrix.cuh"

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
    rounded_close(s);
    mem_free(s->list.job);
    mem_free(s->list.run);
    mem_free(s->packed);
    mem_free(s);
    ctx->matrix = NULL;
}

char *matrix_scratch(kernel_context *ctx, size_t bytes) {
    matrix_state *s = ctx->matrix;
    if (bytes > s->scratch_bytes) {
        s->scratch =
            (char *)cuda_memory_for(ctx, s->scratch, bytes, "operands of matrix products and attention");
        s->scratch_bytes = bytes;
    }
    return s->scratch;
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
    l->job[l->jobs++] = product_job{c, (int32_t)m, (int32_t)l->tiles, (int32_t)l->runs, 0};
    l->tiles += divide_up(m, tile_m) * divide_up(n, tile_n);
}

void list_run(product_list *l, int64_t a, int64_t b, int64_t k) {
    if (!k) return;
    if (l->runs == l->runs_room) {
        l->runs_room = 2 * l->runs_room + 64;
        l->run = (product_run *)mem_grow(l->run, (size_t)l->runs_room * sizeof *l->run, "a list of products");
    }
    l->run[l->runs++] = product_run{a, b, (int32_t)k};
    l->job[l->jobs - 1].runs++;
}

device_list list_upload(kernel_context *ctx, const product_list *l, char *room) {
    size_t jobs = (size_t)l->jobs * sizeof *l->job, runs = (size_t)l->runs * sizeof *l->run;
    matrix_state *s = ctx->matrix;
    device_list d = {};
    d.jobs = l->jobs;
    if (l->jobs <= WITHIN && l->runs <= WITHIN) {
        if (jobs) memcpy(d.job_within, l->job, jobs);
        if (runs) memcpy(d.run_within, l->run, runs); /* none where k is 0 */
        return d;
    }
    if (jobs + runs > s->packed_bytes) {
        s->packed_bytes = 2 * (jobs + runs);
        s->packed = (char *)mem_grow(s->packed, s->packed_bytes, "a list of products");
    }
    memcpy(s->packed, l->job, jobs);
    if (runs) memcpy(s->packed + jobs, l->run, runs);
    cuda_to_device(ctx, room, s->packed, jobs + runs);
    d.job = (const product_job *)room;
    d.run = (const product_run *)(room + jobs);
    return d;
}
