/* Runs fused multiply-adds in registers on this many threads for about 20 ms: FLOP per second. */
#ifndef CARACAL_KERNELS_CPU_PEAK_H
#define CARACAL_KERNELS_CPU_PEAK_H

double measure_peak_avx2(int threads);
double measure_peak_avx512(int threads);

#endif
