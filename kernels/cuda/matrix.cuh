/* What matrix products and attention of the cuda backend share: how operands are read, scratch, and lists of
 * products.
 *
 * In dtype bf16 operands are read from copies rounded to bf16 (rounded.cu), in rows of whole 16 bytes with
 * zeros behind their last element; in dtype float32 they are read where they lie. */
#ifndef CARACAL_KERNELS_CUDA_MATRIX_CUH
#define CARACAL_KERNELS_CUDA_MATRIX_CUH

#include "kernels/cuda/context.cuh"
#include "kernels/cuda/tensor.cuh"

/* One result C [m, n] of a launch. */
typedef struct product_job {
    int64_t c;          /* elements from the launch's c */
    int32_t m;          /* rows */
    int32_t first_tile; /* of this job in the launch */
    int32_t first_run, runs;
} product_job;

/* One product A B that is added to a job's C: depth k, operands so many elements from the launch's a and b.
 */
typedef struct product_run {
    int64_t a, b;
    int32_t k;
} product_run;

/* The products of one call, on the host: `jobs`, then `runs`. */
typedef struct product_list {
    product_job *job;
    product_run *run;
    int64_t jobs, runs, tiles;
    int64_t jobs_room, runs_room;
} product_list;

/* All products of a launch have the same form, n and strides.  C = D + sum of the job's runs in their order;
 * d is NULL (no D) or has c's stride.  bf16: GEMM_TN is chained, the others are not. */
typedef struct product_call {
    gemm_form form;
    int64_t n, lda, ldb, ldc;
    float *c;
    const float *d;
    const void *a, *b; /* float or bf16 */
    bool chained;      /* sums over k start anew every GEMM_K_BLOCK and are added to C in order */
} product_call;

/* Matrices [rows, cols], `count` of them: elements of x, and of what a product reads instead. */
typedef struct matrices {
    const float *x;
    int64_t count, rows, cols, ld, stride; /* stride: between matrices; any when count is 1 */
} matrices;
typedef struct rounded_matrices {
    const bf16 *x;
    int64_t ld, stride;
} rounded_matrices;

enum { COPIES = 5 }; /* the backward of an FFN reads four operands in turn, and swiglu_backward makes two */

/* A rounded copy that outlives a call. */
typedef struct rounded_copy {
    matrices of; /* one matrix; x is NULL: of nothing */
    bf16 *data;
    size_t bytes; /* that there is room for */
    int64_t used; /* counts up */
} rounded_copy;

struct cublas;

/* What stands behind kernel_context's `matrix`. */
typedef struct matrix_state {
    kernels_dtype dtype;
    char *scratch; /* on the device, dirty between operations, grown when a call needs more */
    size_t scratch_bytes;
    const float *held; /* [held_elements], of which held_copy has the rounded elements */
    int64_t held_elements;
    bf16 *held_copy;
    int64_t held_room; /* elements */
    rounded_copy copy[COPIES];
    int64_t uses;
    product_list list;
    char *packed; /* a list as the device gets it, in one copy */
    size_t packed_bytes;
    struct cublas *cublas; /* NULL in float32 */
} matrix_state;

/* Returns 0, or an exit code with *e filled; matrix_close is called in either case. */
int matrix_open(kernel_context *ctx, kernels_dtype dtype, error *e);
void matrix_close(kernel_context *ctx);

/* Scratch for one call; the last call's is gone. */
char *matrix_scratch(kernel_context *ctx, size_t bytes);
static inline size_t whole_256(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}
static inline int64_t whole_chunks(int64_t n) {
    return (n + CHUNK - 1) / CHUNK * CHUNK;
}

/* ---- rounded operands (rounded.cu) ---- */

/* Scratch that rounding them needs: none for those that are held, or of which a copy is kept. */
size_t rounding_bytes(const kernel_context *ctx, const matrices *m);
/* Finds them in a rounded copy, or makes one, if it cannot be kept then in *room, which moves on.  The last
 * COPIES operands are sure to lie where they were found. */
rounded_matrices round_operand(kernel_context *ctx, const matrices *m, char **room);
void rounded_close(matrix_state *s);
/* Scratch of attention's backward, which takes more than the forward (attention.cu). */
size_t attention_scratch_bytes(const kernel_context *ctx, attention_shape s);

/* ---- lists of products ---- */

void list_clear(product_list *l);
/* A job whose C is cut into tiles of tile_m x tile_n; then its runs, of which those with k == 0 are left out.
 */
void list_job(product_list *l, int64_t c, int64_t m, int64_t n, int tile_m, int tile_n);
void list_run(product_list *l, int64_t a, int64_t b, int64_t k);
static inline size_t list_bytes(const product_list *l) {
    return whole_256((size_t)l->jobs * sizeof *l->job + (size_t)l->runs * sizeof *l->run);
}

/* Tiles of one block of the kernels below; n decides. */
typedef struct tile_shape {
    int m, n;
} tile_shape;
tile_shape product_float_tile(int64_t n);
tile_shape product_bf16_tile(int64_t n, bool chained);

/* Runs the list; `room` is device memory of list_bytes.  float: exact products, sums over k as kernels.h
 * promises. bf16: tensor cores, float32 sums. */
void product_float(kernel_context *ctx, const product_call *p, const product_list *l, char *room);
void product_bf16(kernel_context *ctx, const product_call *p, const product_list *l, char *room);

/* The list as a launch's parameter, of which there may be 4 KiB; a longer one lies in device memory, for
 * which the launch has to wait. */
enum { WITHIN = 64 };
typedef struct device_list {
    int64_t jobs;
    const product_job *job; /* NULL: they are within */
    const product_run *run;
    product_job job_within[WITHIN];
    product_run run_within[WITHIN];
} device_list;
static_assert(sizeof(product_call) + sizeof(device_list) <= 4096, "parameters of a launch");
device_list list_upload(kernel_context *ctx, const product_list *l, char *room);

/* The runs, and the job that a tile belongs to. */
static __device__ __forceinline__ const product_run *runs_of(const device_list &l) {
    return l.job ? l.run : l.run_within;
}
static __device__ __forceinline__ const product_job *job_of_tile(const device_list &l, int64_t tile) {
    const product_job *job = l.job ? l.job : l.job_within;
    int64_t from = 0, to = l.jobs;
    while (to - from > 1) {
        int64_t middle = (from + to) / 2;
        if (job[middle].first_tile <= tile) from = middle;
        else to = middle;
    }
    return job + from;
}

/* ---- cublasLt (cublas.cu): c = d + a b of bf16 operands whose rows are whole chunks; rows of c and d begin
 * at multiples of 16 bytes; false: the library has no algorithm for these sizes ---- */

int cublas_open(kernel_context *ctx, struct cublas **out, error *e);
void cublas_close(struct cublas *c);
bool cublas_gemm(kernel_context *ctx, gemm_form form, int64_t m, int64_t n, int64_t k, float *c, int64_t ldc,
                 const float *d, const bf16 *a, int64_t lda, const bf16 *b, int64_t ldb);

#endif
