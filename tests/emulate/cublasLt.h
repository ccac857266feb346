/* Stands where cublasLt's header does when g++ compiles kernels/cuda for the emulator: as much of it as
 * kernels/cuda/cublas.cu uses, column-major, as plain loops over bf16 operands and float32 results. */
#ifndef CARACAL_TESTS_EMULATE_CUBLASLT_H
#define CARACAL_TESTS_EMULATE_CUBLASLT_H

#include <cuda_runtime.h>
#include <stdlib.h>

typedef enum {
    CUBLAS_STATUS_SUCCESS,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_NOT_SUPPORTED = 15
} cublasStatus_t;
typedef enum { CUBLAS_OP_N, CUBLAS_OP_T } cublasOperation_t;
typedef enum { CUBLAS_COMPUTE_32F = 68 } cublasComputeType_t;
typedef enum { CUDA_R_32F = 0, CUDA_R_16BF = 14 } cudaDataType_t;
typedef enum {
    CUBLASLT_MATMUL_DESC_TRANSA = 3,
    CUBLASLT_MATMUL_DESC_TRANSB = 4
} cublasLtMatmulDescAttributes_t;
typedef enum {
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
    CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 3,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
} cublasLtMatmulPreferenceAttributes_t;
typedef enum {
    CUBLASLT_ALGO_CONFIG_ID,
    CUBLASLT_ALGO_CONFIG_TILE_ID,
    CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
    CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
    CUBLASLT_ALGO_CONFIG_STAGES_ID = 6,
} cublasLtMatmulAlgoConfigAttributes_t;
enum { CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE = 2 };
enum { EMULATE_NO_ALGORITHM = 11 }; /* the depth of products that the library has no algorithm for */

typedef int *cublasLtHandle_t;
typedef struct {
    cublasOperation_t first, second;
} * cublasLtMatmulDesc_t;
typedef struct {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
} * cublasLtMatrixLayout_t;
typedef struct {
    int unused;
} * cublasLtMatmulPreference_t;
typedef struct {
    uint64_t data[8];
} cublasLtMatmulAlgo_t;
typedef struct {
    cublasLtMatmulAlgo_t algo;
    size_t workspaceSize;
    cublasStatus_t state;
    float wavesCount;
    int reserved[4];
} cublasLtMatmulHeuristicResult_t;

template <class T> static inline cublasStatus_t emulate_new(T **p, T value) {
    *p = (T *)malloc(sizeof value);
    **p = value;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t emulate_gone(void *p) {
    free(p);
    return CUBLAS_STATUS_SUCCESS;
}

static inline size_t cublasLtGetVersion(void) {
    return 0;
}
static inline const char *cublasLtGetStatusName(cublasStatus_t s) {
    return s ? "CUBLAS_STATUS_INVALID_VALUE" : "CUBLAS_STATUS_SUCCESS";
}
static inline cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
    return emulate_new(h, 1);
}
static inline cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
    return emulate_gone(h);
}
static inline cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t,
                                                      cudaDataType_t) {
    return emulate_new(d, {CUBLAS_OP_N, CUBLAS_OP_N});
}
static inline cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
    return emulate_gone(d);
}
static inline cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                                            cublasLtMatmulDescAttributes_t a,
                                                            const void *value, size_t) {
    (a == CUBLASLT_MATMUL_DESC_TRANSA ? d->first : d->second) = *(const cublasOperation_t *)value;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type,
                                                        uint64_t rows, uint64_t cols, int64_t ld) {
    return emulate_new(l, {type, rows, cols, ld});
}
static inline cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    return emulate_gone(l);
}
static inline cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
    return emulate_new(p, {0});
}
static inline cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    return emulate_gone(p);
}
static inline cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                                  cublasLtMatmulPreferenceAttributes_t,
                                                                  const void *, size_t) {
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *,
                                                                  cublasLtMatmulAlgoConfigAttributes_t,
                                                                  void *value, size_t size, size_t *) {
    memset(value, 0, size);
    return CUBLAS_STATUS_SUCCESS;
}

/* Shapes that do not fit one another, and rows that are shorter than their elements, are refused as by the
 * library. */
static inline cublasStatus_t
cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                               cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t,
                               cublasLtMatmulPreference_t, int, cublasLtMatmulHeuristicResult_t *found,
                               int *count) {
    uint64_t m = d->first ? a->cols : a->rows, k = d->first ? a->rows : a->cols;
    uint64_t n = d->second ? b->rows : b->cols, k_too = d->second ? b->cols : b->rows;
    *found = {};
    *count = k == k_too && m == c->rows && n == c->cols && (int64_t)a->rows <= a->ld &&
             (int64_t)b->rows <= b->ld && (int64_t)c->rows <= c->ld && a->ld % 8 == 0 && b->ld % 8 == 0 &&
             a->type == CUDA_R_16BF && b->type == CUDA_R_16BF && c->type == CUDA_R_32F;
    if (!*count) return CUBLAS_STATUS_INVALID_VALUE;
    if (k != EMULATE_NO_ALGORITHM) return CUBLAS_STATUS_SUCCESS;
    *count = d->second; /* it says so in either of two ways: no result, or one that is of no use */
    found->state = CUBLAS_STATUS_NOT_SUPPORTED;
    return *count ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

static inline cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t op, const void *alpha,
                                            const void *a, cublasLtMatrixLayout_t al, const void *b,
                                            cublasLtMatrixLayout_t bl, const void *beta, const void *c,
                                            cublasLtMatrixLayout_t cl, void *d, cublasLtMatrixLayout_t,
                                            const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t) {
    emulate_count("product of cublasLt");
    int64_t k = (int64_t)(op->first ? al->rows : al->cols);
    int64_t a_row = op->first ? al->ld : 1, a_col = op->first ? 1 : al->ld;
    int64_t b_row = op->second ? bl->ld : 1, b_col = op->second ? 1 : bl->ld;
    auto widen = [](const void *x, int64_t i) {
        return __uint_as_float((unsigned)((const uint16_t *)x)[i] << 16);
    };
    for (int64_t j = 0; j < (int64_t)cl->cols; j++) {
        for (int64_t i = 0; i < (int64_t)cl->rows; i++) {
            float sum = 0, by = *(const float *)beta, old = by != 0 ? ((const float *)c)[i + j * cl->ld] : 0;
            for (int64_t p = 0; p < k; p++)
                sum = fmaf(widen(a, i * a_row + p * a_col), widen(b, p * b_row + j * b_col), sum);
            ((float *)d)[i + j * cl->ld] = *(const float *)alpha * sum + by * old;
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

#endif
