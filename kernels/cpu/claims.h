/* Work that threads balance among themselves.  Each has units 0 .. n - 1 of its own and takes them from the
 * front; who has none left takes others' from the back.  So a thread mostly does what lies in its cache, and
 * nobody waits for one that the system, or a neighbour on its core, has slowed down.  Who computes a unit
 * must not matter to a bit of it.
 */
#ifndef CARACAL_KERNELS_CPU_CLAIMS_H
#define CARACAL_KERNELS_CPU_CLAIMS_H

#include <stdint.h>

/* The units that are left, begin in the lower half, end in the upper. */
typedef struct claims {
    _Alignas(64) uint64_t left; /* each on a cache line of its own */
} claims;

/* Makes n units claimable; what they read and write must be in order by then. */
static inline void claims_open(claims *c, int64_t n) {
    __atomic_store_n(&c->left, (uint64_t)n << 32, __ATOMIC_RELEASE);
}

/* Takes the first unit that is left; -1: there is none. */
static inline int64_t claims_first(claims *c) {
    uint64_t left = __atomic_load_n(&c->left, __ATOMIC_ACQUIRE);
    do {
        if ((uint32_t)left >= left >> 32) return -1;
    } while (!__atomic_compare_exchange_n(&c->left, &left, left + 1, 1, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    return (int64_t)(uint32_t)left;
}

/* Takes the last unit that is left; -1: there is none. */
static inline int64_t claims_last(claims *c) {
    uint64_t left = __atomic_load_n(&c->left, __ATOMIC_ACQUIRE);
    do {
        if ((uint32_t)left >= left >> 32) return -1;
    } while (!__atomic_compare_exchange_n(&c->left, &left, left - (UINT64_C(1) << 32), 1, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
    return (int64_t)(left >> 32) - 1;
}

#endif
