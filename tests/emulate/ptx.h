/* Twins of kernels/cuda/ptx.cuh: the same fragments, by way of the emulator's exchange between lanes. */
#ifndef CARACAL_TESTS_EMULATE_PTX_H
#define CARACAL_TESTS_EMULATE_PTX_H

#include <cuda_runtime.h>

static inline void kernel_begins() {
    emulate_begin();
}

static inline void copy_async16(void *dst, const void *src, int bytes = 16) {
    emulate_copy_async(dst, src, 16, (size_t)bytes);
}
static inline void copy_async_commit() {
    emulate_copy_commit();
}
template <int GROUPS> static inline void copy_async_wait() {
    emulate_copy_wait(GROUPS);
}

static inline void store16(float *p, float4 v) {
    *(float4 *)p = v;
}
static inline void store8(float *p, float2 v) {
    *(float2 *)p = v;
}
static inline void store8(uint16_t *p, uint32_t lo, uint32_t hi) {
    *(uint2 *)p = make_uint2(lo, hi);
}

/* Element e of row r of matrix m, whose rows' addresses the lanes have given. */
static inline uint16_t emulate_matrix_element(const unsigned char *rows, unsigned m, unsigned r, unsigned e) {
    const uint16_t *row;
    memcpy(&row, rows + (m * 8 + r) * EMULATE_SLOT, sizeof row);
    return row[e];
}
/* The eight rows of each matrix are read at a time: from all 32 banks, if no two begin in the same ones. */
static inline void emulate_count_conflicts(const unsigned char *rows) {
    for (unsigned m = 0; m < 4; m++) {
        unsigned banks = 0;
        for (unsigned r = 0; r < 8; r++) {
            uintptr_t row;
            memcpy(&row, rows + (m * 8 + r) * EMULATE_SLOT, sizeof row);
            banks |= 1u << row % 128 / 16;
        }
        if (banks != 0xff) emulate_count("conflict of banks");
    }
    emulate_count("ldmatrix");
}

static inline void emulate_load_matrix4(uint32_t r[4], const void *row, bool transposed, int line) {
    if ((uintptr_t)row % 16) emulate_bad("ldmatrix of a row that is not aligned to 16 bytes");
    const unsigned char *rows = emulate_exchange(0xffffffffu, &row, sizeof row, __FILE__, line);
    unsigned g = emulate_lane() / 4, t = emulate_lane() % 4;
    if (emulate_lane() == 0) emulate_count_conflicts(rows);
    for (unsigned m = 0; m < 4; m++) {
        uint32_t lo = transposed ? emulate_matrix_element(rows, m, 2 * t, g)
                                 : emulate_matrix_element(rows, m, g, 2 * t);
        uint32_t hi = transposed ? emulate_matrix_element(rows, m, 2 * t + 1, g)
                                 : emulate_matrix_element(rows, m, g, 2 * t + 1);
        r[m] = lo | hi << 16;
    }
    __syncwarp(); /* the instruction has read before any lane goes on */
}
static inline void load_matrix4(uint32_t r[4], const void *row) {
    emulate_load_matrix4(r, row, false, __LINE__);
}
static inline void load_matrix4_transposed(uint32_t r[4], const void *row) {
    emulate_load_matrix4(r, row, true, __LINE__);
}

static inline float emulate_bf16(uint32_t pair, unsigned which) {
    return __uint_as_float(which ? pair & 0xffff0000u : pair << 16);
}

static inline void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const unsigned char *all = emulate_exchange(0xffffffffu, mine, sizeof mine, __FILE__, __LINE__);
    unsigned g = emulate_lane() / 4, t = emulate_lane() % 4;
    for (unsigned i = 0; i < 4; i++) {
        unsigned lower = i / 2, column = 2 * t + i % 2;
        double sum = 0; /* of products that are exact in float */
        for (unsigned k = 0; k < 16; k++) {
            uint32_t from_a[6], from_b[6];
            unsigned pair = k % 8 / 2, half = k / 8;
            memcpy(from_a, all + (g * 4 + pair) * EMULATE_SLOT, sizeof from_a);
            memcpy(from_b, all + (column * 4 + pair) * EMULATE_SLOT, sizeof from_b);
            sum +=
                (double)emulate_bf16(from_a[half * 2 + lower], k % 2) * emulate_bf16(from_b[4 + half], k % 2);
        }
        d[i] = (float)(d[i] + sum);
    }
}

template <class F> static inline void product_later(F product) {
    emulate_product([](const void *p) { (*(const F *)p)(); }, &product, sizeof product);
}
template <int LEFT> static inline void products_over() {
    emulate_products_wait(LEFT);
}

static inline uint32_t emulate_round_bf16(float f) {
    uint32_t u = __float_as_uint(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff; /* as the device's conversion: one NaN */
    return (u + 0x7fffu + (u >> 16 & 1)) >> 16;
}
static inline float exp2_approximate(float x) {
    float y = exp2f(x);
    return y < 0x1p-126f ? 0 : y;
}

static inline uint32_t bf16_pair(float lo, float hi) {
    return emulate_round_bf16(lo) | emulate_round_bf16(hi) << 16;
}

#endif
