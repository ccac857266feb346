/* Runs fused multiply-adds, or dot products of bf16, in registers on this many threads for about 20 ms: FLOP
 * per second. */
#ifndef CARACAL_KERNELS_CPU_PEAK_H
#define CARACAL_KERNELS_CPU_PEAK_H

#include "kernels/kernels.h"

double measure_peak_avx2(int threads, kernels_dtype dtype);
double measure_peak_avx512(int threads, kernels_dtype dtype);
/* The same for 30 ms, each thread for itself: the sum of what each did when nothing disturbed it. */
double measure_own_peaks_avx2(int threads, kernels_dtype dtype);
double measure_own_peaks_avx512(int threads, kernels_dtype dtype);

#endif
