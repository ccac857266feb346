/* A program linked with --wrap=kernels_cpu_avx2,--wrap=kernels_cpu_avx512 opens the cpu backend through
 * these, and its one file that includes this puts something of its own around it. */
#ifndef CARACAL_TESTS_WRAP_CPU_H
#define CARACAL_TESTS_WRAP_CPU_H

#include "kernels/kernels.h"

/* Defined by that file: k is the backend, just opened. */
void wrap_cpu(kernels *k);

/* The linker's names for what is wrapped, and for what wraps it. */
void __real_kernels_cpu_avx2(kernels *k, int threads, kernels_dtype dtype);
void __real_kernels_cpu_avx512(kernels *k, int threads, kernels_dtype dtype);
void __wrap_kernels_cpu_avx2(kernels *k, int threads, kernels_dtype dtype);
void __wrap_kernels_cpu_avx512(kernels *k, int threads, kernels_dtype dtype);

void __wrap_kernels_cpu_avx2(kernels *k, int threads, kernels_dtype dtype) {
    __real_kernels_cpu_avx2(k, threads, dtype);
    wrap_cpu(k);
}

void __wrap_kernels_cpu_avx512(kernels *k, int threads, kernels_dtype dtype) {
    __real_kernels_cpu_avx512(k, threads, dtype);
    wrap_cpu(k);
}

#endif
