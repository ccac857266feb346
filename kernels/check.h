/* Inside the check backend: how a wrapper compares one call of a backend with ref's.
 *
 * A wrapper names the call (check_begin), asks for a place for each output of ref (check_expect, which also
 * poisons what the backend is to overwrite), runs ref there and the backend in place, and holds each output
 * to a bound that follows from the operation's rounding errors.  Bounds are counted in units of the rounding
 * error of `real` (2^-24 for float) and grow with the length of the sums: for a chain of n additions the
 * error is at most n units of the sum of the absolute values.
 */
#ifndef CARACAL_KERNELS_CHECK_H
#define CARACAL_KERNELS_CHECK_H

#include "kernels/kernels.h"

enum { CHECK_SCRATCHES = 16, CHECK_OPERATIONS = 32 };

/* What one operation's calls have shown so far. */
typedef struct check_figure {
    const char *operation;
    int64_t calls, elements;
    double worst; /* largest error as a fraction of its bound */
    /* errors in units of the larger of the element and its output's root mean square, where that is above the
     * bound: the largest, the sum of squares and the number of elements */
    double max_ulp, error_sq, units;
} check_figure;

struct kernel_context {
    kernels inner, ref;
    char name[48];
    struct {
        void *data;
        size_t bytes;
    } scratch[CHECK_SCRATCHES]; /* grown on first use: this is a debugging device */
    int scratches;              /* in use by the current call */
    check_figure figure[CHECK_OPERATIONS], *current;
    char shape[256]; /* of the current call */
};

/* How far an element may be from ref's:
 * units * (relative * (|ref's| + |added|) + absolute * row[i] * column[j]) + floor. */
typedef struct check_bound {
    double relative, absolute;
    const double *row, *column; /* NULL: 1 */
    const real *added;          /* same stride as the output; NULL: 0 */
    double floor;               /* for results that may underflow on the way */
} check_bound;

/* One call of the yardstick, and of the backend under test, whose results are there afterwards. */
#define REF(x, name, ...) (x)->ref.name((x)->ref.ctx, __VA_ARGS__)
#define INNER(x, name, ...)                                                                                  \
    ((x)->inner.name((x)->inner.ctx, __VA_ARGS__), (x)->inner.to_host((x)->inner.ctx, NULL, NULL, 0))

/* The names and values of a call's sizes, for its message. */
#define CHECK_SIZES(...)                                                                                     \
#__VA_ARGS__, (const int64_t[]){__VA_ARGS__ }, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
void check_begin(kernel_context *x, const char *operation, const char *names, const int64_t *sizes, int n);

/* Memory of the current call. */
void *check_scratch(kernel_context *x, size_t bytes);

typedef enum { CHECK_WRITES, CHECK_UPDATES } check_access;
/* A copy of an output [rows,cols] with its stride, for ref to work on.  Afterwards an output that the backend
 * CHECK_WRITES holds NaN; one that it CHECK_UPDATES is as it was. */
real *check_expect(kernel_context *x, check_access access, real *data, int64_t rows, int64_t cols,
                   int64_t ld);
/* Likewise for bytes of any type, poisoned with 0xA5. */
void *check_expect_bytes(kernel_context *x, void *data, size_t bytes);
/* An operand of a matrix product or of attention as the backend's dtype reads it: itself, or a rounded copy.
 */
const real *check_operand(kernel_context *x, const real *data, int64_t rows, int64_t cols, int64_t ld);

/* Ends the program, naming operation, shapes, element and both values, where got is too far from want, where
 * one is finite and the other is not, or where the gap between two rows has changed. */
void check_close(kernel_context *x, const char *name, const real *got, const real *want, int64_t rows,
                 int64_t cols, int64_t ld, check_bound bound);
/* The same for equality of every byte, of elements of `size` bytes. */
void check_equal(kernel_context *x, const char *name, const void *got, const void *want, size_t elements,
                 size_t size);
_Noreturn void check_fault(const kernel_context *x, const char *name, int64_t row, int64_t col, double got,
                           double want, double bound);

/* Rounding errors of the promised sums (kernels.h), in units of the sum of absolute values. */
double check_chain(int64_t n); /* blocks of GEMM_K_BLOCK */
double check_lanes(int64_t n); /* 16 lanes and a tree */

/* Largest |x| of a matrix; 0 when it is empty. */
double check_largest(int64_t rows, int64_t cols, int64_t ld, const real *x);
/* Euclidean norms of n vectors of length k: element p of vector i is x[i * across + p * along]. */
double *check_norms(kernel_context *x, int64_t n, int64_t k, const real *data, int64_t across, int64_t along);

#define CHECK_OPERATION(name) extern __typeof__(*((kernels *)0)->name) check_##name
CHECK_OPERATION(zero);
CHECK_OPERATION(copy);
CHECK_OPERATION(add);
CHECK_OPERATION(copy_rows);
CHECK_OPERATION(hold);
CHECK_OPERATION(gemm);
CHECK_OPERATION(gemm_float32);
CHECK_OPERATION(grouped_gemm);
CHECK_OPERATION(grouped_gemm_dw);
CHECK_OPERATION(rms_norm_forward);
CHECK_OPERATION(rms_norm_backward);
CHECK_OPERATION(rope);
CHECK_OPERATION(attention_forward);
CHECK_OPERATION(attention_backward);
CHECK_OPERATION(swiglu_forward);
CHECK_OPERATION(swiglu_backward);
CHECK_OPERATION(embedding_forward);
CHECK_OPERATION(embedding_backward);
CHECK_OPERATION(router_forward);
CHECK_OPERATION(router_backward);
CHECK_OPERATION(combine_forward);
CHECK_OPERATION(combine_backward);
CHECK_OPERATION(cross_entropy);
CHECK_OPERATION(hidden_z);
CHECK_OPERATION(adamw);
CHECK_OPERATION(sum_squares);
CHECK_OPERATION(digest);

#endif
