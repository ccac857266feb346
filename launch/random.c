#include "launch/random.h"

#include <Random123/philox.h>
#include <string.h>
#include <xxhash.h>

uint64_t random_stream(const char *name) {
    return XXH3_64bits(name, strlen(name));
}

static philox4x32_ctr_t draw(uint64_t seed, uint64_t stream, uint64_t index) {
    philox4x32_ctr_t counter = {
        {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)}};
    philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    return philox4x32(counter, key);
}

uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t index) {
    philox4x32_ctr_t r = draw(seed, stream, index);
    return (uint64_t)r.v[0] << 32 | r.v[1];
}

double random_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
    return ((double)(random_bits(seed, stream, index) >> 12) + 0.5) * 0x1p-52;
}

uint64_t random_permute(uint64_t seed, uint64_t stream, uint64_t n, uint64_t i) {
    unsigned half = 1;
    while (half < 32 && (1ull << (2 * half)) < n) half++;
    uint64_t mask = (1ull << half) - 1;
    do { /* the network permutes 0 .. 4^half - 1, less than 4 n; walk the cycle until back inside */
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint64_t next = left ^ (random_bits(seed, stream, round << 32 | right) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
