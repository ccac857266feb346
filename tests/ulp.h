/* The error of every operation in units of the last place, against the same operation in double.
 *
 * tests/ulp_cases.c is compiled twice.  With real = float it runs a case on any backend (ulp_run); with real
 * = double, together with the ref backend, it gives the yardstick (ulp_exact).  Both have the same inputs,
 * which are floats, and where a backward needs what its forward returned, each has its own, as in training.
 *
 * The unit of an element is the distance between floats where the exact value, rounded to float, lies.  A sum
 * of large terms that nearly cancels is far from exact in that unit whoever adds, and the RMS of such errors
 * is ruled by the few elements that came out smallest.  So errors are also counted in units at the element's
 * `scale`: the sum of the absolute values of the terms for matrix products, and elsewhere the larger of the
 * element and the root mean square of its output.  An element below 2^-24 of its scale is a residue of
 * roundings (the gradient of a query that sees one key is exactly zero), and counted at scale only. */
#ifndef CARACAL_TESTS_ULP_H
#define CARACAL_TESTS_ULP_H

#include <float.h>
#include <math.h>
#include <stdint.h>

struct kernels;

enum { ULP_OUTPUTS = 5 };

typedef struct ulp_output {
    const char *name;
    int64_t n;
    double *x, *magnitude; /* [n]; magnitude: of the exact result of a matrix product, else NULL */
} ulp_output;

typedef struct ulp_result {
    ulp_output out[ULP_OUTPUTS];
    int outputs;
} ulp_result;

typedef struct ulp_case {
    const char *operation, *config; /* config: whose shapes these are */
    char sizes[64];
    double limit; /* that tests/test_ulp.c holds scaled_rms to; 0: not run there */
} ulp_case;

int ulp_cases(void);
ulp_case ulp_describe(int i);
/* Runs case i; the caller frees the result. */
void ulp_run(int i, const struct kernels *k, ulp_result *r);
void ulp_exact(int i, ulp_result *r);
void ulp_free(ulp_result *r);

typedef struct ulp_figures {
    double max, rms, scaled_max, scaled_rms;
} ulp_figures;

static inline double ulp_unit(double x) {
    int e = x == 0 || fabs(x) < FLT_MIN ? FLT_MIN_EXP - 1 : ilogbf((float)fabs(x));
    return ldexp(1, e - (FLT_MANT_DIG - 1));
}

/* Infinite where an element is not a number. */
static inline ulp_figures ulp_compare(const ulp_output *got, const ulp_output *exact) {
    ulp_figures f = {0, 0, 0, 0};
    double square = 0, sum = 0, scaled_sum = 0, counted = 0;
    for (int64_t i = 0; i < exact->n; i++) square += exact->x[i] * exact->x[i];
    double rms = sqrt(square / (double)exact->n);
    for (int64_t i = 0; i < exact->n; i++) {
        double scale = exact->magnitude ? exact->magnitude[i] : fmax(fabs(exact->x[i]), rms);
        double error = isfinite(got->x[i]) ? fabs(got->x[i] - exact->x[i]) : INFINITY;
        double ulps = error / ulp_unit(exact->x[i]), scaled = error / ulp_unit(scale);
        f.scaled_max = fmax(f.scaled_max, scaled);
        scaled_sum += scaled * scaled;
        if (fabs(exact->x[i]) < 0x1p-24 * scale) continue;
        f.max = fmax(f.max, ulps);
        sum += ulps * ulps;
        counted++;
    }
    f.rms = sqrt(sum / counted);
    f.scaled_rms = sqrt(scaled_sum / (double)exact->n);
    return f;
}

#endif
