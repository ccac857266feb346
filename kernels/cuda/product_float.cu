/* Products of float32 operands: one chain of fused multiply-adds for each element and block of GEMM_K_BLOCK,
 * in the order that kernels.h promises, so that they have the cpu backend's bits.  For verification: no
 * tensor cores. */
#include "kernels/cuda/matrix.cuh"

enum {
    SIDE = 64,  /* of a block's square of C */
    DEPTH = 16, /* of what lies in shared memory at one time; divides GEMM_K_BLOCK */
    EACH = 4,   /* a thread has a square of so many rows and columns */
    THREADS = (SIDE / EACH) * (SIDE / EACH),
};

tile_shape product_float_tile(int64_t) {
    return tile_shape{SIDE, SIDE};
}

/* tile [DEPTH][SIDE + 1] = elements (i, k) of an operand of which `rows` rows and `depth` columns are there.
 */
static __device__ __forceinline__ void load(float (*tile)[SIDE + 1], const float *x, int64_t step_i,
                                            int64_t step_k, int64_t rows, int64_t depth) {
    bool along_k = step_k == 1; /* neighbouring threads read neighbouring elements */
#pragma unroll
    for (int j = 0; j < SIDE * DEPTH; j += THREADS) {
        int at = j + (int)threadIdx.x, i = along_k ? at / DEPTH : at % SIDE,
            k = along_k ? at % DEPTH : at / SIDE;
        tile[k][i] = i < rows && k < depth ? x[i * step_i + k * step_k] : 0;
    }
}

static __global__ void __launch_bounds__(THREADS)
    product_float_kernel(const __grid_constant__ product_call p, const __grid_constant__ device_list l) {
    kernel_begins();
    SHARED(float, left, [DEPTH][SIDE + 1]);
    SHARED(float, right, [DEPTH][SIDE + 1]);
    const product_job job = *job_of_tile(l, blockIdx.x);
    const product_run *runs = runs_of(l);
    int64_t tile = blockIdx.x - job.first_tile, tiles_m = (job.m + SIDE - 1) / SIDE;
    int64_t m = tile % tiles_m * SIDE, n = tile / tiles_m * SIDE;
    int row = threadIdx.x / (SIDE / EACH), column = threadIdx.x % (SIDE / EACH);
    int64_t a_i = p.form == GEMM_TN ? 1 : p.lda, a_k = p.form == GEMM_TN ? p.lda : 1;
    int64_t b_i = p.form == GEMM_NT ? p.ldb : 1, b_k = p.form == GEMM_NT ? 1 : p.ldb;
    const float *a = (const float *)p.a + m * a_i, *b = (const float *)p.b + n * b_i;

    float sum[EACH][EACH] = {};
    bool begun = p.d != NULL;
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) {
            int64_t r = m + row + i * (SIDE / EACH), c = n + column + j * (SIDE / EACH);
            if (begun && r < job.m && c < p.n) sum[i][j] = p.d[job.c + r * p.ldc + c];
        }
    for (int64_t run = job.first_run; run < job.first_run + job.runs; run++) {
        const product_run u = runs[run];
        for (int64_t block = 0; block < u.k; block += GEMM_K_BLOCK) {
            int64_t end = min((int64_t)u.k, block + GEMM_K_BLOCK);
            float chain[EACH][EACH] = {};
            for (int64_t k = block; k < end; k += DEPTH) {
                load(left, a + u.a + k * a_k, a_i, a_k, job.m - m, end - k);
                load(right, b + u.b + k * b_k, b_i, b_k, p.n - n, end - k);
                __syncthreads();
                int depth =
                    (int)min((int64_t)DEPTH, end - k); /* zeros would turn -0 into 0, and inf into NaN */
                for (int d = 0; d < depth; d++)
#pragma unroll
                    for (int i = 0; i < EACH; i++)
#pragma unroll
                        for (int j = 0; j < EACH; j++)
                            chain[i][j] = fmaf(left[d][row + i * (SIDE / EACH)],
                                               right[d][column + j * (SIDE / EACH)], chain[i][j]);
                __syncthreads();
            }
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++) sum[i][j] = begun ? sum[i][j] + chain[i][j] : chain[i][j];
            begun = true;
        }
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) {
            int64_t r = m + row + i * (SIDE / EACH), c = n + column + j * (SIDE / EACH);
            if (r < job.m && c < p.n) p.c[job.c + r * p.ldc + c] = sum[i][j];
        }
}

void product_float(kernel_context *ctx, const product_call *p, const product_list *l, char *room) {
    if (!l->tiles) return;
    LAUNCH(product_float_kernel, grid3(l->tiles), THREADS, 0, ctx, *p, list_upload(ctx, l, room));
}
