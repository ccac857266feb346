#ifndef CARACAL_F64
#include <string.h>

#include "kernels/cpu/peak.h"
#include "kernels/kernels.h"

double kernels_measure_peak(const char *isa, int threads, kernels_dtype dtype) {
    const int dots = dtype == DTYPE_FLOAT32 || __builtin_cpu_supports("avx512bf16");
    const int wide =
        strcmp(isa, "auto") == 0 ? __builtin_cpu_supports("avx512f") && dots : strcmp(isa, "avx512") == 0;
    return (wide ? measure_peak_avx512 : measure_peak_avx2)(threads, dtype);
}
#else
typedef int empty_translation_unit; /* the double-precision build has no cpu backend */
#endif
