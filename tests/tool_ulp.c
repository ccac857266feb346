/* Prints docs/numerics.md's tables: the error of every operation of every backend in units of the last place
 * (tests/ulp.h), matrix products beside OpenBLAS where it is installed, and the project's own functions.
 *     ulp [path of libopenblas]
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/vmath.h"
#include "kernels/kernels.h"
#include "kernels/math.h"
#include "launch/error.h"
#include "launch/random.h"
#include "tests/ulp.h"

enum { BACKENDS = 3, POINTS = 200000 };

/* ---- OpenBLAS in the place of a backend's gemm ---- */

typedef void sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
                   int lda, const float *b, int ldb, float beta, float *c, int ldc);
static sgemm *openblas;

static void blas_gemm(kernel_context *x, gemm_form form, int64_t m, int64_t n, int64_t k, real *c,
                      int64_t ldc, const real *d, const real *a, int64_t lda, const real *b, int64_t ldb) {
    enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };
    (void)x, (void)d; /* no case has one */
    openblas(ROW_MAJOR, form == GEMM_TN ? TRANSPOSED : PLAIN, form == GEMM_NT ? TRANSPOSED : PLAIN, (int)m,
             (int)n, (int)k, 1, a, (int)lda, b, (int)ldb, 0, c, (int)ldc);
}

/* What it says of itself, or NULL where there is none. */
static const char *open_openblas(const char *path) {
    unsetenv("OPENBLAS_CORETYPE"); /* of the processor's own choice, whatever a host presets */
    unsetenv("OPENBLAS_L2_SIZE");
    void *library = dlopen(path ? path : "libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) return NULL;
    openblas = (sgemm *)dlsym(library, "cblas_sgemm");
    const char *(*describe)(void) = (const char *(*)(void))dlsym(library, "openblas_get_config");
    return openblas && describe ? describe() : NULL;
}

/* ---- tables ---- */

static int open_backends(kernels *k) {
    static const char *const device[] = {"ref", "cpu", "cpu"}, *const isa[] = {"auto", "avx2", "avx512"};
    int n = 0;
    for (int i = 0; i < BACKENDS; i++) {
        kernels_config c = {.threads = 2};
        error e;
        snprintf(c.device, sizeof c.device, "%s", device[i]);
        snprintf(c.isa, sizeof c.isa, "%s", isa[i]);
        if (!kernels_open(&k[n], &c, &e)) n++;
    }
    return n;
}

static void print_operations(const kernels *k, int n) {
    printf("| operation | shapes of | size | output |");
    for (int b = 0; b < n; b++) printf(" %s |", k[b].name);
    printf(" %s, at scale |\n|---|---|---|---|", k[n - 1].name);
    for (int b = 0; b <= n; b++) printf("---|");
    printf("\n");
    for (int i = 0; i < ulp_cases(); i++) {
        ulp_case c = ulp_describe(i);
        ulp_result exact, got[BACKENDS];
        ulp_exact(i, &exact);
        for (int b = 0; b < n; b++) ulp_run(i, &k[b], &got[b]);
        for (int o = 0; o < exact.outputs; o++) {
            ulp_figures f;
            printf("| %s | %s | %s | %s |", c.operation, c.config, c.sizes, exact.out[o].name);
            for (int b = 0; b < n; b++) {
                f = ulp_compare(&got[b].out[o], &exact.out[o]);
                printf(" %.3g / %.3g |", f.max, f.rms);
            }
            printf(" %.3g / %.3g |\n", f.scaled_max, f.scaled_rms);
        }
        ulp_free(&exact);
        for (int b = 0; b < n; b++) ulp_free(&got[b]);
        fflush(stdout);
    }
}

/* Returns the largest ratio of RMS errors. */
static double print_beside_openblas(const kernels *cpu) {
    kernels blas = *cpu;
    double largest = 0;
    blas.name = "OpenBLAS";
    blas.gemm = blas_gemm;
    printf("| product | shapes of | m x n x k | %s | OpenBLAS | ratio of RMS |\n|---|---|---|---|---|---|\n",
           cpu->name);
    for (int i = 0; i < ulp_cases(); i++) {
        ulp_case c = ulp_describe(i);
        if (strncmp(c.operation, "gemm", 4)) continue;
        ulp_result exact, ours, theirs;
        ulp_exact(i, &exact);
        ulp_run(i, cpu, &ours);
        ulp_run(i, &blas, &theirs);
        ulp_figures f = ulp_compare(&ours.out[0], &exact.out[0]),
                    g = ulp_compare(&theirs.out[0], &exact.out[0]);
        double ratio = f.scaled_rms / g.scaled_rms;
        printf("| %s | %s | %s | %.3g / %.3g | %.3g / %.3g | %.2f |\n", c.operation, c.config, c.sizes,
               f.scaled_max, f.scaled_rms, g.scaled_max, g.scaled_rms, ratio);
        largest = fmax(largest, ratio);
        ulp_free(&exact);
        ulp_free(&ours);
        ulp_free(&theirs);
    }
    return largest;
}

/* ---- functions ---- */

typedef struct tally {
    double max, square, n;
} tally;

/* Errors in units of a number with `digits` binary digits. */
static void take(tally *t, double got, long double exact, int digits) {
    int e;
    frexpl(exact, &e);
    double ulps = (double)(fabsl((long double)got - exact) / ldexpl(1, e - digits));
    t->max = fmax(t->max, ulps);
    t->square += ulps * ulps;
    t->n++;
}

static void print_function(const char *name, const char *range, tally t) {
    printf("| %s | %s | %.3f / %.3f |\n", name, range, t.max, sqrt(t.square / t.n));
}

static double lane(vf x) {
    float y[LANES];
    vf_store(y, x);
    return (double)y[0];
}

static void print_functions(void) {
    enum { EXP, LOG, SIN, COS, POW, VECTOR_EXP, VECTOR_EXP2, VECTOR_LOG, FUNCTIONS };
    tally t[FUNCTIONS] = {{0, 0, 0}};
    for (uint64_t i = 0; i < POINTS; i++) {
        double u = 2 * random_uniform(3, 0, i) - 1, v = 2 * random_uniform(3, 1, i) - 1;
        double x = exp(30 * u), angle = 8192 * u;
        float narrow = (float)(87 * u), powers = (float)(126 * u), positive = (float)exp(80 * v);
        take(&t[EXP], fixed_exp(700 * u), expl(700 * u), DBL_MANT_DIG);
        take(&t[LOG], fixed_log(x), logl(x), DBL_MANT_DIG);
        take(&t[SIN], fixed_sin(angle), sinl(angle), DBL_MANT_DIG);
        take(&t[COS], fixed_cos(angle), cosl(angle), DBL_MANT_DIG);
        take(&t[POW], fixed_pow(x, 20 * v), powl(x, 20 * v), DBL_MANT_DIG);
        take(&t[VECTOR_EXP], lane(vf_exp(vf_set1(narrow))), expl(narrow), FLT_MANT_DIG);
        take(&t[VECTOR_EXP2], lane(vf_exp2(vf_set1(powers))), exp2l(powers), FLT_MANT_DIG);
        take(&t[VECTOR_LOG], lane(vf_log(vf_set1(positive))), logl(positive), FLT_MANT_DIG);
    }
    printf("| function | arguments | max / RMS |\n|---|---|---|\n");
    print_function("exp, double", "-700 .. 700", t[EXP]);
    print_function("log, double", "1e-13 .. 1e13", t[LOG]);
    print_function("sin, double", "-8192 .. 8192", t[SIN]);
    print_function("cos, double", "-8192 .. 8192", t[COS]);
    print_function("pow, double", "1e-13 .. 1e13 to -20 .. 20", t[POW]);
    print_function("exp, float (cpu)", "-87 .. 87", t[VECTOR_EXP]);
    print_function("2^x, float (cpu)", "-126 .. 126", t[VECTOR_EXP2]);
    print_function("log, float (cpu)", "1e-35 .. 1e35", t[VECTOR_LOG]);
}

/* The processor's name, as the system tells it. */
static void print_machine(void) {
    char line[256], date[32];
    time_t now = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "model name", 10)) {
            printf("Measured on %s, %s", date, strchr(line, ':') + 2);
            break;
        }
    if (f) fclose(f);
    printf("\n");
}

int main(int argc, char **argv) {
    kernels k[BACKENDS];
    const char *blas = open_openblas(argc > 1 ? argv[1] : NULL);
    int n = open_backends(k), code = 0;
    print_machine();
    print_operations(k, n);
    if (blas) {
        printf("\n%s\n\n", blas);
        double ratio = print_beside_openblas(&k[n - 1]);
        printf("\nLargest ratio %.2f.\n\n", ratio);
        code = ratio > 2;
    } else {
        printf("\nOpenBLAS: not found (Debian's libopenblas0-pthread; or name a library).\n\n");
    }
    print_functions();
    for (int b = 0; b < n; b++) kernels_close(&k[b]);
    return code;
}
