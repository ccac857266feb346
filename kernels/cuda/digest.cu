/* XXH3-64 of each 16 KiB block of a tensor, as github.com/Cyan4973/xxHash defines it: eight 64-bit
 * accumulators, a lane of the device each; stripes of 64 bytes; a scramble after each 16 stripes. */
#include <string.h>
#include <xxhash.h>

#include "kernels/cuda/context.cuh"
#include "kernels/cuda/device.cuh"

enum { THREADS = 256, ACCUMULATORS = 8, STRIPE = 64, STRIPES = 16, SHORT = 240 };

static const unsigned char SECRET[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

/* 64-bit words of the secret: `stripe` of stripe n and accumulator i is word n + i. */
typedef struct digest_keys {
    uint64_t stripe[STRIPES + ACCUMULATORS], last[ACCUMULATORS], merge[ACCUMULATORS];
} digest_keys;

static void read_words(uint64_t *words, int n, int from) {
    memcpy(words, SECRET + from, (size_t)n * sizeof *words); /* little endian, as the device */
}

/* acc += low half of v ^ key times its upper half; the neighbour's acc += v */
static __device__ __forceinline__ uint64_t accumulate(uint64_t acc, uint64_t v, uint64_t key) {
    uint64_t k = v ^ key;
    return acc + (k & 0xffffffffu) * (k >> 32) + __shfl_xor_sync(ALL_LANES, v, 1);
}

static __device__ __forceinline__ uint64_t read64(const float *p, bool whole) {
    if (whole) return *(const uint64_t *)p;
    return (uint64_t)__float_as_uint(p[0]) | (uint64_t)__float_as_uint(p[1]) << 32;
}

/* Eight lanes to a block of more than SHORT bytes; lanes whose block is shorter go along. */
static __global__ void __launch_bounds__(THREADS)
    digest_kernel(int64_t n, int64_t blocks, uint64_t *out, const float *x, digest_keys keys, bool whole) {
    kernel_begins();
    int64_t block = ((int64_t)blockIdx.x * THREADS + threadIdx.x) / ACCUMULATORS,
            left = n - block * SUM_BLOCK;
    int i = (int)threadIdx.x % ACCUMULATORS, full = STRIPE * STRIPES;
    int bytes = block >= blocks ? 0 : 4 * (int)min(left, (int64_t)SUM_BLOCK);
    const float *p = x + block * SUM_BLOCK + 2 * i; /* this lane's eight bytes of each stripe */
    const uint64_t start[ACCUMULATORS] = {0xC2B2AE3D,         0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F,
                                          0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x85EBCA77,
                                          0x27D4EB2F165667C5, 0x9E3779B1};
    uint64_t acc = 0, key[STRIPES];
#pragma unroll
    for (int a = 0; a < ACCUMULATORS; a++) acc = i == a ? start[a] : acc;
#pragma unroll
    for (int s = 0; s < STRIPES; s++) key[s] = keys.stripe[s + i];
    for (int at = 0; at < SUM_BLOCK * 4; at += full) {
#pragma unroll
        for (int s = 0; s < STRIPES; s++) {
            bool on = at + (s + 1) * STRIPE < bytes; /* the last stripe is taken apart, below */
            uint64_t v = on ? read64(p + (at + s * STRIPE) / 4, whole) : 0;
            acc = accumulate(acc, v, on ? key[s] : 0);
        }
        if (at + full < bytes) acc = (acc ^ acc >> 47 ^ keys.stripe[STRIPES + i]) * 0x9E3779B1u;
    }
    uint64_t v = bytes ? read64(p + (bytes - STRIPE) / 4, whole && bytes % 8 == 0) : 0;
    acc = accumulate(acc, v, keys.last[i]) ^ keys.merge[i];
    uint64_t other = __shfl_xor_sync(ALL_LANES, acc, 1), sum = acc * other ^ __umul64hi(acc, other);
    sum += __shfl_xor_sync(ALL_LANES, sum, 2);
    sum += __shfl_xor_sync(ALL_LANES, sum, 4);
    sum += (uint64_t)bytes * 0x9E3779B185EBCA87u;
    sum = (sum ^ sum >> 37) * 0x165667919E3779F9u;
    if (bytes && i == 0) out[block] = sum ^ sum >> 32;
}

extern "C" void cuda_digest(kernel_context *ctx, int64_t n, uint64_t *out, const float *x) {
    int64_t blocks = divide_up(n, SUM_BLOCK), tail = n % SUM_BLOCK;
    /* short inputs are hashed otherwise, in four ways: the library does that on a copy */
    wrote(ctx, out, (size_t)blocks * sizeof *out);
    int is_short = tail && tail * (int64_t)sizeof *x <= SHORT;
    digest_keys keys;
    read_words(keys.stripe, STRIPES + ACCUMULATORS, 0);
    read_words(keys.last, ACCUMULATORS, 192 - STRIPE - 7);
    read_words(keys.merge, ACCUMULATORS, 11);
    if (blocks - is_short > 0)
        LAUNCH(digest_kernel, grid3(divide_up((blocks - is_short) * ACCUMULATORS, THREADS)), THREADS, 0, ctx,
               n, blocks - is_short, out, x, keys, (uintptr_t)x % 8 == 0);
    if (is_short) {
        float copy[SHORT / sizeof(float)];
        size_t bytes = (size_t)tail * sizeof *copy;
        cuda_to_host(ctx, copy, x + (blocks - 1) * SUM_BLOCK, bytes);
        uint64_t hash = XXH3_64bits(copy, bytes);
        cuda_to_device(ctx, out + blocks - 1, &hash, sizeof hash);
    }
}
