#ifndef CARACAL_F64
#include <string.h>

#include "kernels/cpu/peak.h"
#include "kernels/kernels.h"

double kernels_measure_peak(const kernels_config *c) {
    const int dots = c->dtype == DTYPE_FLOAT32 || __builtin_cpu_supports("avx512bf16");
    const int wide = strcmp(c->isa, "auto") == 0 ? __builtin_cpu_supports("avx512f") && dots
                                                 : strcmp(c->isa, "avx512") == 0;
    return (wide ? measure_peak_avx512 : measure_peak_avx2)(c->threads, (kernels_dtype)c->dtype);
}
#else
typedef int empty_translation_unit; /* the double-precision build has no cpu backend */
#endif
