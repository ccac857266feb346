/* The project's own exp, log, sin, cos and pow in double precision: the C library's differ between versions,
 * and every bit of a run must not.  Error below 1 ulp for exp, log, sin and cos over the ranges used here
 * (|x| < 2^20 for sin and cos), a few ulp for pow.  fma is used where written. */
#ifndef CARACAL_KERNELS_MATH_H
#define CARACAL_KERNELS_MATH_H

double fixed_exp(double x);
double fixed_log(double x);
double fixed_sin(double x);
double fixed_cos(double x);
double fixed_pow(double x, double y); /* x > 0 */

#endif
