/* The project's own exp, log, sin, cos and pow in double precision: the C library's differ between versions,
 * and every bit of a run must not.  Error below 1 ulp, pow included; fma is used where written.  sin and cos
 * take |x| < 2^20 and give NaN beyond; elsewhere infinities and NaN are treated as the C library does, but
 * for pow, which gives NaN for x < 0. */
#ifndef CARACAL_KERNELS_MATH_H
#define CARACAL_KERNELS_MATH_H

double fixed_exp(double x);
double fixed_log(double x);
double fixed_sin(double x);
double fixed_cos(double x);
double fixed_pow(double x, double y); /* x > 0 */

#endif
