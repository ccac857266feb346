#ifndef CARACAL_F64
#include <omp.h>
#include <string.h>

#include "kernels/cpu/peak.h"
#include "kernels/kernels.h"

static int is_wide(const kernels_config *c) {
    const int dots = c->dtype == DTYPE_FLOAT32 || __builtin_cpu_supports("avx512bf16");
    return strcmp(c->isa, "auto") == 0 ? __builtin_cpu_supports("avx512f") && dots
                                       : strcmp(c->isa, "avx512") == 0;
}

double kernels_measure_peak(const kernels_config *c) {
    return (is_wide(c) ? measure_peak_avx512 : measure_peak_avx2)(c->threads, (kernels_dtype)c->dtype);
}

double kernels_measure_own_peaks(const kernels_config *c) {
    const int processors = omp_get_num_procs(); /* more threads take turns, and each sees a whole one */
    const double peak =
        (is_wide(c) ? measure_own_peaks_avx512 : measure_own_peaks_avx2)(c->threads, (kernels_dtype)c->dtype);
    return c->threads > processors ? peak * processors / c->threads : peak;
}
#else
typedef int empty_translation_unit; /* the double-precision build has no cpu backend */
#endif
