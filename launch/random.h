/* Counter-based random numbers (Philox 4x32-10): a number depends on (seed, stream, index) and nothing else,
 * never on rank, order or thread. */
#ifndef CARACAL_LAUNCH_RANDOM_H
#define CARACAL_LAUNCH_RANDOM_H

#include <stdint.h>

/* A stream's number from a name: XXH3 of the text. */
uint64_t random_stream(const char *name);
/* 64 random bits. */
uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t index);
/* Uniform in (0, 1). */
double random_uniform(uint64_t seed, uint64_t stream, uint64_t index);
/* A keyed permutation of 0..n-1: the image of i, in constant time (Feistel network with cycle walking). */
uint64_t random_permute(uint64_t seed, uint64_t stream, uint64_t n, uint64_t i);

#endif
