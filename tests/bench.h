/* What the parts of `make bench` share: the backends that are timed, the machine's own limits, and the table
 * of results, which becomes build/bench.json. */
#ifndef CARACAL_TESTS_BENCH_H
#define CARACAL_TESTS_BENCH_H

#include <jansson.h>

#include "kernels/kernels.h"

static const char *const bench_dtype[] = {"float32", "bf16"};
enum { BENCH_VARIANTS = 2 };                   /* one thread, and all cores */
enum { LIMIT_COPY = 2, LIMIT_GATHER, LIMITS }; /* after the peaks of the dtypes */
enum { BENCH_PASSES = 9, BENCH_LINES = 512 };  /* at most */

/* A line of the table, of which each pass has a sample. */
typedef struct bench_line {
    struct json_t *entry; /* in the root */
    int in_memory;        /* its limit is copying right before and right after, not the peak */
    double rate[BENCH_PASSES], copy[BENCH_PASSES];
} bench_line;

typedef struct bench {
    const char *isa; /* auto, avx2 or avx512 */
    int variants, threads[BENCH_VARIANTS];
    kernels kernel[BENCH_VARIANTS];
    int dtypes; /* 2 where the processor has bf16's dot products, or 1 */
    kernels bf16[BENCH_VARIANTS];
    double peak[2][BENCH_VARIANTS]; /* [dtype] FLOP/s: what a fraction is a fraction of */
    double copy[BENCH_VARIANTS];    /* bytes/s, read and written, likewise */
    double gather[BENCH_VARIANTS];  /* seconds in which threads begin and end together with nothing to do */
    double *limit[LIMITS][BENCH_VARIANTS]; /* what bench_limits saw, of which these are the medians */
    int64_t limits;
    float *copied[2];     /* what the copies of bench_limits go between */
    double budget;        /* seconds for a line */
    const char *only;     /* sections and operations whose name holds this; NULL: all */
    int64_t passes, pass; /* over all lines, so that a bad minute is one sample of each */
    int line;
    bench_line lines[BENCH_LINES];
    json_t *root;
} bench;

int bench_wants(const bench *b, const char *name);
/* The median over calls that last about b->budget seconds together (at least three), again while the cores
 * have not their usual speed, or their usual way to one another, before and after them. */
double bench_median(const bench *b, int variant, void (*run)(void *), void *what);
/* Looks at the machine's limits: before every line, for they move as the lines do. */
void bench_limits(bench *b);
/* The backend of a dtype. */
const kernels *bench_kernels(const bench *b, kernels_dtype dtype, int variant);
/* Appends `entry` (taken over) to a section in the first pass, and a sample to the same line in later ones;
 * its "dtype", if any, says of which peak it is a fraction.  work is FLOP or bytes of one call.  Rate and
 * fraction are worked out at the end; that of "memory_bound" is of copying right before (bench_limits) and
 * right after. */
void bench_add(bench *b, const char *section, json_t *entry, int variant, double work, double seconds);
/* n floats between 0.1 and 1.1, never two buffers at the same place of a page; mem_free does not apply: they
 * lie in the arena. */
struct arena;
float *bench_buffer(struct arena *a, int64_t n);

void bench_gemm(bench *b);
void bench_attention(bench *b);
void bench_memory(bench *b);
/* Some steps of that config on all cores, operation by operation; what stands in the root's "roofline"
 * becomes fractions and a table when the limits are known. */
int bench_roofline(bench *b, const char *config, struct error *e);
void bench_roofline_finish(const bench *b);

#endif
