/* Dense products by cublasLt, which is opened when the program runs in bf16, and not needed otherwise.
 *
 * For every shape the library is asked once which algorithm it would take, with fixed preferences; that one
 * is kept, named on stderr, and used from then on, with a workspace of our own: the choice is a function of
 * the shape, the library and the kind of GPU, and so are the bits. */
#include <cublasLt.h>
#include <stdio.h>
#ifdef __CUDACC__
#include <dlfcn.h>
#endif

#include "kernels/cuda/matrix.cuh"

enum { WORKSPACE = 32 << 20 }; /* what NVIDIA advises for Hopper */

/* Everything that decides which algorithm is right. */
typedef struct shape {
    int64_t m, n, k, lda, ldb, ldc;
    int64_t form, adds;
} shape;

typedef struct plan {
    shape s;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    bool found; /* the library has an algorithm */
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
} plan;

#define FUNCTIONS(DO)                                                                                        \
    DO(cublasLtCreate)                                                                                       \
    DO(cublasLtDestroy)                                                                                      \
    DO(cublasLtGetVersion)                                                                                   \
    DO(cublasLtGetStatusName)                                                                                \
    DO(cublasLtMatmulDescCreate)                                                                             \
    DO(cublasLtMatmulDescDestroy)                                                                            \
    DO(cublasLtMatmulDescSetAttribute)                                                                       \
    DO(cublasLtMatrixLayoutCreate)                                                                           \
    DO(cublasLtMatrixLayoutDestroy)                                                                          \
    DO(cublasLtMatmulPreferenceCreate)                                                                       \
    DO(cublasLtMatmulPreferenceDestroy)                                                                      \
    DO(cublasLtMatmulPreferenceSetAttribute)                                                                 \
    DO(cublasLtMatmulAlgoGetHeuristic)                                                                       \
    DO(cublasLtMatmulAlgoConfigGetAttribute)                                                                 \
    DO(cublasLtMatmul)

struct cublas {
#define POINTER(name) decltype(&::name) name;
    FUNCTIONS(POINTER)
#undef POINTER
    cublasLtHandle_t handle;
    plan *plans;
    int64_t count, room;
    void *workspace; /* on the device */
};

#define CUBLAS_OK(x, call)                                                                                   \
    do {                                                                                                     \
        cublasStatus_t cublas_code = (x)->call;                                                              \
        if (cublas_code != CUBLAS_STATUS_SUCCESS)                                                            \
            FAULT(EXIT_RANK_DIED, "the GPU fails: %s: %s", #call, (x)->cublasLtGetStatusName(cublas_code));  \
    } while (0)

#ifdef __CUDACC__

static int load(cublas *x, error *e) {
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so",
                                        "/usr/local/cuda/lib64/libcublasLt.so"};
    void *library = NULL; /* stays open: the driver may know of what is in it until the process ends */
    char why[256];        /* of the first: there may be one that does not fit this loader */
    for (int i = 0; i < 4 && !library; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (!i && !library) snprintf(why, sizeof why, "%s", dlerror());
    }
    if (!library)
        return error_set(e, EXIT_USAGE,
                         "dtype bf16 needs %s, which cannot be opened (%s): install CUDA's libraries, put "
                         "their folder into LD_LIBRARY_PATH, or use dtype: float32",
                         names[0], why);
#define FIND(name)                                                                                           \
    if (!(x->name = (decltype(&::name))dlsym(library, #name)))                                               \
        return error_set(e, EXIT_USAGE,                                                                      \
                         "dtype bf16: libcublasLt has no %s: it is too old, CUDA 12 or 13 is needed",        \
                         #name);
    FUNCTIONS(FIND)
#undef FIND
    return 0;
}

#else /* the emulator has its own */

static int load(cublas *x, error *) {
#define FIND(name) x->name = ::name;
    FUNCTIONS(FIND)
#undef FIND
    return 0;
}

#endif

int cublas_open(kernel_context *ctx, cublas **out, error *e) {
    cublas *x = (cublas *)mem_alloc(sizeof *x, "cublasLt");
    *out = x;
    int code = load(x, e);
    if (code) return code;
    cublasStatus_t status = x->cublasLtCreate(&x->handle);
    if (status != CUBLAS_STATUS_SUCCESS)
        return error_set(
            e, EXIT_USAGE,
            "dtype bf16: cublasLt does not start (%s); it must fit the driver, and needs some free memory on "
            "the GPU",
            x->cublasLtGetStatusName(status));
    x->workspace = cuda_memory(ctx, WORKSPACE, "cublasLt's workspace");
    return 0;
}

void cublas_close(cublas *x) {
    for (int64_t i = 0; i < x->count; i++) {
        x->cublasLtMatmulDescDestroy(x->plans[i].product);
        x->cublasLtMatrixLayoutDestroy(x->plans[i].a);
        x->cublasLtMatrixLayoutDestroy(x->plans[i].b);
        x->cublasLtMatrixLayoutDestroy(x->plans[i].c);
    }
    if (x->handle) x->cublasLtDestroy(x->handle);
    CUDA_OK(cudaFree(x->workspace));
    mem_free(x->plans);
    mem_free(x);
}

/* One line for each shape: what a report on speed, or on bits that differ, needs to know. */
static void name_algorithm(const cublas *x, const plan *p) {
    static const char *const forms[] = {"NT", "NN", "TN"};
    int id = 0, split = 0, tile = 0, stages = 0, scheme = 0;
    size_t written;
    if (!p->found) {
        fprintf(stderr, "cublasLt %zu: %s %lld x %lld x %lld%s: no algorithm, so a kernel of our own\n",
                x->cublasLtGetVersion(), forms[p->s.form], (long long)p->s.m, (long long)p->s.n,
                (long long)p->s.k, p->s.adds ? ", added" : "");
        return;
    }
    const cublasLtMatmulAlgo_t *a = &p->algorithm;
    x->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_ID, &id, sizeof id, &written);
    x->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_TILE_ID, &tile, sizeof tile, &written);
    x->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_STAGES_ID, &stages, sizeof stages,
                                            &written);
    x->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split, sizeof split,
                                            &written);
    x->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof scheme,
                                            &written);
    fprintf(stderr,
            "cublasLt %zu: %s %lld x %lld x %lld%s: algorithm %d, tile %d, stages %d, split-k %d, reduction "
            "%d, workspace "
            "%zu\n",
            x->cublasLtGetVersion(), forms[p->s.form], (long long)p->s.m, (long long)p->s.n,
            (long long)p->s.k, p->s.adds ? ", added" : "", id, tile, stages, split, scheme, p->workspace);
}

static void prefer(const cublas *x, cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t what,
                   const void *value, size_t size) {
    CUBLAS_OK(x, cublasLtMatmulPreferenceSetAttribute(p, what, value, size));
}

static void choose(const cublas *x, plan *p) {
    cublasLtMatmulPreference_t wish;
    CUBLAS_OK(x, cublasLtMatmulPreferenceCreate(&wish));
    const uint64_t workspace = WORKSPACE;
    const uint32_t alignment = 16;                                   /* of all four: cuda_gemm sees to it */
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* split sums are added in one order */
    prefer(x, wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    prefer(x, wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes);
    prefer(x, wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment, sizeof alignment);
    prefer(x, wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment, sizeof alignment);
    prefer(x, wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment, sizeof alignment);
    prefer(x, wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment, sizeof alignment);
    cublasLtMatmulHeuristicResult_t best;
    int count = 0;
    cublasStatus_t code = x->cublasLtMatmulAlgoGetHeuristic(x->handle, p->product, p->a, p->b, p->c, p->c,
                                                            wish, 1, &best, &count);
    x->cublasLtMatmulPreferenceDestroy(wish);
    if (code != CUBLAS_STATUS_SUCCESS && code != CUBLAS_STATUS_NOT_SUPPORTED)
        FAULT(EXIT_RANK_DIED, "cublasLt refuses a product of %lld x %lld x %lld (%s)", (long long)p->s.m,
              (long long)p->s.n, (long long)p->s.k, x->cublasLtGetStatusName(code));
    p->found = code == CUBLAS_STATUS_SUCCESS && count && best.state == CUBLAS_STATUS_SUCCESS;
    if (!p->found) return;
    p->algorithm = best.algo;
    p->workspace = best.workspaceSize;
}

/* Row-major C = A B is column-major C^T = B^T A^T: cublasLt's first operand is b, its second a. */
static plan make_plan(const cublas *x, shape s) {
    plan p = {};
    p.s = s;
    cublasOperation_t first = s.form == GEMM_NT ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t second = s.form == GEMM_TN ? CUBLAS_OP_T : CUBLAS_OP_N;
    uint64_t rows_a = (uint64_t)(s.form == GEMM_TN ? s.k : s.m),
             cols_a = (uint64_t)(s.form == GEMM_TN ? s.m : s.k);
    uint64_t rows_b = (uint64_t)(s.form == GEMM_NT ? s.n : s.k),
             cols_b = (uint64_t)(s.form == GEMM_NT ? s.k : s.n);
    CUBLAS_OK(x, cublasLtMatmulDescCreate(&p.product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    CUBLAS_OK(x,
              cublasLtMatmulDescSetAttribute(p.product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
    CUBLAS_OK(x,
              cublasLtMatmulDescSetAttribute(p.product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second));
    CUBLAS_OK(x, cublasLtMatrixLayoutCreate(&p.b, CUDA_R_16BF, cols_b, rows_b, s.ldb));
    CUBLAS_OK(x, cublasLtMatrixLayoutCreate(&p.a, CUDA_R_16BF, cols_a, rows_a, s.lda));
    CUBLAS_OK(x, cublasLtMatrixLayoutCreate(&p.c, CUDA_R_32F, (uint64_t)s.n, (uint64_t)s.m, s.ldc));
    plan swapped = p; /* as cublasLt counts them */
    swapped.a = p.b;
    swapped.b = p.a;
    choose(x, &swapped);
    name_algorithm(x, &swapped);
    return swapped;
}

static const plan *plan_for(cublas *x, shape s) {
    for (int64_t i = 0; i < x->count; i++)
        if (!memcmp(&x->plans[i].s, &s, sizeof s)) return &x->plans[i];
    if (x->count == x->room) {
        x->room = 2 * x->room + 32;
        x->plans = (plan *)mem_grow(x->plans, (size_t)x->room * sizeof *x->plans, "cublasLt's algorithms");
    }
    x->plans[x->count] = make_plan(x, s);
    return &x->plans[x->count++];
}

bool cublas_gemm(kernel_context *ctx, gemm_form form, int64_t m, int64_t n, int64_t k, float *c, int64_t ldc,
                 const float *d, const bf16 *a, int64_t lda, const bf16 *b, int64_t ldb) {
    cublas *x = ctx->matrix->cublas;
    shape s = {m, n, k, lda, ldb, ldc, form, d != NULL};
    const plan *p = plan_for(x, s);
    if (!p->found) return false;
    const float one = 1, beta = d ? 1 : 0;
    CUBLAS_OK(x, cublasLtMatmul(x->handle, p->product, &one, b, p->a, a, p->b, &beta, d ? d : c, p->c, c,
                                p->c, &p->algorithm, x->workspace, WORKSPACE, ctx->stream));
    return true;
}
