/* One table of parameters: published name, shape, group, decay, initial deviation, who holds it and where.
 * Everything that walks over parameters (initialisation, optimizer, checkpoints, digests, the parameter
 * count) walks over this table, and nothing else knows an offset.
 *
 * Parameters lie in buckets: the embedding, each layer, the head, the MTP head.  A bucket has a dense array,
 * held by every rank, and an array of those experts that this rank holds (N / expert_parallel of them).
 */
#ifndef CARACAL_MODEL_PARAMS_H
#define CARACAL_MODEL_PARAMS_H

#include "kernels/kernels.h"
#include "model/config.h"

enum param_group { GROUP_EMBEDDING, GROUP_HIDDEN, GROUP_UNEMBEDDING, GROUP_NORM, PARAM_GROUPS };

typedef struct param {
    char *name;
    int rank; /* dimensions: 1 or 2 */
    int64_t shape[2], count;
    enum param_group group; /* norms start at one and do not decay; the others are normal and do */
    int64_t bucket;
    int64_t expert;      /* -1: dense */
    int64_t offset;      /* in the bucket's dense or expert array; -1: an expert that another rank holds */
    int64_t first_block; /* number of its first SUM_BLOCK block, counted over the whole table */
} param;

typedef struct bucket {
    int64_t first, params;               /* its rows of the table */
    int64_t dense_count, expert_count;   /* elements on this rank */
    int64_t dense_offset, expert_offset; /* of the two arrays in this rank's weights */
} bucket;

typedef struct params {
    model_config model;
    int64_t n, buckets, blocks;
    param *param;
    bucket *bucket;
    int64_t weights; /* elements that this rank holds */
    int mtp;         /* the table has an MTP bucket (the last) */
} params;

/* Bucket numbers. */
enum { BUCKET_EMBEDDING = 0, BUCKET_LAYER_0 = 1 };
static inline int64_t bucket_head(const params *p) {
    return BUCKET_LAYER_0 + p->model.num_layers;
}
static inline int64_t bucket_mtp(const params *p) {
    return bucket_head(p) + 1;
}

/* Allocates the table (not the weights); free with params_free. */
void params_create(params *p, const model_config *c, int mtp, int expert_parallel, int expert_rank);
void params_free(params *p);
/* A parameter's first element in this rank's weights; the rank must hold it. */
static inline real *params_weight(const params *p, real *weights, const param *q) {
    const bucket *b = &p->bucket[q->bucket];
    return weights + (q->expert < 0 ? b->dense_offset : b->expert_offset) + q->offset;
}
/* Row of the table with this name, or -1. */
int64_t params_find(const params *p, const char *name);

/* Where part s of `parts` begins in a bucket's dense (experts = 0) or expert array: an even cut, moved up to
 * the next SUM_BLOCK boundary of the tensor it falls into.  s = parts gives the array's end. */
int64_t params_cut(const params *p, int64_t bucket, int experts, int64_t parts, int64_t s);
/* Elements of part s, and of the largest part. */
int64_t params_part(const params *p, int64_t bucket, int experts, int64_t parts, int64_t s);
int64_t params_largest_part(const params *p, int64_t bucket, int experts, int64_t parts);
/* So many elements that what follows n of them begins on a cache line. */
static inline int64_t params_whole_lines(int64_t n) {
    return (n + 15) / 16 * 16;
}

/* ---- the tensors of a bucket as the model's code names them ----
 * The same struct serves weights (base = the bucket's arrays) and gradients (base = a gradient buffer). */
typedef struct mla_tensors {
    real *a; /* [q_lora + kv_lora + rope, H]: q_a_proj, then kv_a_proj_with_mqa */
    real *q_a_norm, *q_b, *kv_a_norm, *kv_b, *o;
} mla_tensors;

typedef struct ffn_tensors {
    real *gate_up; /* [2F, H]: gate_proj, then up_proj */
    real *down;    /* [H, F] */
} ffn_tensors;

typedef struct layer_tensors {
    real *input_norm[2], *post_norm[2]; /* [H] */
    mla_tensors mla[2];
    ffn_tensors ffn[2];
    real *router;        /* [N+Z, H] */
    ffn_tensors experts; /* of this rank's first expert; the next ones follow at expert_stride */
    int64_t expert_stride;
} layer_tensors;

typedef struct mtp_tensors {
    real *embedding_norm, *hidden_norm; /* enorm, hnorm [H] */
    real *eh_proj;                      /* [H, 2H] */
    real *input_norm, *post_norm;
    mla_tensors mla;
    ffn_tensors ffn;
    real *norm; /* the branch's own final norm */
} mtp_tensors;

typedef struct head_tensors {
    real *norm;    /* [H] */
    real *lm_head; /* [V, H] */
} head_tensors;

/* experts may be NULL: the view then has none. */
layer_tensors params_layer(const params *p, real *dense, real *experts);
head_tensors params_head(const params *p, real *dense);
mtp_tensors params_mtp(const params *p, real *dense);

/* Logical parameter counts of the whole model (all ranks): in total, with the input embedding and without
 * MTP; and per token when `ffn_experts` FFN experts are used, without the input embedding. */
double params_total(const model_config *c);
double params_active(const model_config *c, double ffn_experts);

#endif
