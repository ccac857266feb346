/* Products of float32 operands: one chain of fused multiply-adds for each element and block of GEMM_K_BLOCK,
 * in the order that kernels.h promises, so that they have the cpu backend's bits.  For verification: no
 * tensor cores. */
#include "kernels/cuda/matrix.cuh"

enum {
    SIDE = 64,  /* of a block's square of C */
    DEPTH = 16, /* of what lies in shared memory at one time; divides GEMM_K_BLOCK */
    EACH = 4,   /* a thread has a square of so many rows and columns, which it reads 16 bytes at a time */
    THREADS = (SIDE / EACH) * (SIDE / EACH),
};

tile_shape product_float_tile(int64_t) {
    return tile_shape{SIDE, SIDE};
}

/* tile [DEPTH][SIDE + EACH] = elements (i, k) of an operand of which `rows` rows and `depth` columns are
 * there.
 */
static __device__ __forceinline__ void load(float (*tile)[SIDE + EACH], const float *x, int64_t step_i,
                                            int64_t step_k, int rows, int depth) {
    bool along_k = step_k == 1; /* neighbouring threads read neighbouring elements */
    int thread = (int)threadIdx.x, i = along_k ? thread / DEPTH : thread % SIDE,
        k = along_k ? thread % DEPTH : thread / SIDE;
    int next_i = along_k ? THREADS / DEPTH : 0, next_k = along_k ? 0 : THREADS / SIDE;
    const float *from = x + i * step_i + k * step_k;
    int64_t next = next_i * step_i + next_k * step_k;
#pragma unroll
    for (int j = 0; j < SIDE * DEPTH / THREADS; j++, i += next_i, k += next_k, from += next)
        tile[k][i] = i < rows && k < depth ? *from : 0;
}

static __global__ void __launch_bounds__(THREADS, 3)
    product_float_kernel(const __grid_constant__ product_call p, const __grid_constant__ device_list l) {
    kernel_begins();
    SHARED(float, left, [DEPTH][SIDE + EACH]);
    SHARED(float, right, [DEPTH][SIDE + EACH]);
    const product_job job = *job_of_tile(l, blockIdx.x);
    const product_run *runs = runs_of(l);
    int tile = (int)blockIdx.x - job.first_tile, tiles_m = (job.m + SIDE - 1) / SIDE;
    int m = tile % tiles_m * SIDE, n = tile / tiles_m * SIDE, columns = (int)p.n - n;
    int row = (int)threadIdx.x / (SIDE / EACH) * EACH, column = (int)threadIdx.x % (SIDE / EACH) * EACH;
    int64_t a_i = p.form == GEMM_TN ? 1 : p.lda, a_k = p.form == GEMM_TN ? p.lda : 1;
    int64_t b_i = p.form == GEMM_NT ? p.ldb : 1, b_k = p.form == GEMM_NT ? 1 : p.ldb;
    const float *a = (const float *)p.a + m * a_i, *b = (const float *)p.b + n * b_i;

    float4 sum[EACH] = {};
    bool begun = p.d != NULL;
    bool whole = ((uintptr_t)p.c | (uintptr_t)p.d) % 16 == 0 && p.ldc % 4 == 0 && job.c % 4 == 0;
    int64_t at = job.c + (m + row) * p.ldc + n + column;
    for (int i = 0; i < EACH; i++)
        if (begun && m + row + i < job.m) sum[i] = load4(p.d + at + i * p.ldc, columns - column, whole);
    for (int run = job.first_run; run < job.first_run + job.runs; run++) {
        const product_run u = runs[run];
        for (int block = 0; block < u.k; block += GEMM_K_BLOCK) {
            int end = min(u.k, block + GEMM_K_BLOCK);
            float4 chain[EACH] = {};
            for (int k = block; k < end; k += DEPTH) {
                load(left, a + u.a + k * a_k, a_i, a_k, job.m - m, end - k);
                load(right, b + u.b + k * b_k, b_i, b_k, columns, end - k);
                __syncthreads();
                int depth = min((int)DEPTH, end - k); /* zeros would turn -0 into 0, and inf into NaN */
                for (int d = 0; d < depth; d++) {
                    float4 x = *(const float4 *)&left[d][row], y = *(const float4 *)&right[d][column];
                    chain[0] = fma4(x.x, y, chain[0]);
                    chain[1] = fma4(x.y, y, chain[1]);
                    chain[2] = fma4(x.z, y, chain[2]);
                    chain[3] = fma4(x.w, y, chain[3]);
                }
                __syncthreads();
            }
            for (int i = 0; i < EACH; i++) sum[i] = begun ? add4(sum[i], chain[i]) : chain[i];
            begun = true;
        }
    }
    for (int i = 0; i < EACH; i++)
        if (m + row + i < job.m) store4(p.c + at + i * p.ldc, sum[i], columns - column, whole);
}

void product_float(kernel_context *ctx, const product_call *p, const product_list *l, char *room) {
    if (!l->tiles) return;
    LAUNCH(product_float_kernel, grid3(l->tiles), THREADS, 0, ctx, *p, list_upload(ctx, l, room));
}
