/* Tiles of bf16 operands in shared memory, and their products on tensor cores.
 *
 * A tile is a row of panels; a panel is `rows` rows of 64 elements (128 bytes), in which the 16-byte chunk c
 * of row r lies at place c ^ (r % 8): eight rows' chunks of the same number then lie in all 32 banks, for
 * ldmatrix, and this is also the one layout that Hopper's wgmma reads at full speed.  An operand lies in a
 * tile in one of two ways: ALONG_K   rows are the operand's rows of the result (m or n), columns are k;
 *   ACROSS_K  rows are k, columns are the operand's rows of the result.
 *
 * Products are made by a group of four warps that go through the same code together: 64 rows of the result,
 * warp w of the group its rows 16 w .. 16 w + 15, as fragments acc[N / 8][4]: with g = lane / 4 and t = lane
 * % 4, acc[j][0] and acc[j][1] are columns 8 j + 2 t and + 1 of row g, acc[j][2] and acc[j][3] those of row g
 * + 8.  On sm_90a they are wgmma instructions, elsewhere ldmatrix and mma.sync, with the same fragments. */
#ifndef CARACAL_KERNELS_CUDA_TENSOR_CUH
#define CARACAL_KERNELS_CUDA_TENSOR_CUH

#include "kernels/cuda/device.cuh"

typedef uint16_t bf16;
typedef enum { ALONG_K, ACROSS_K } tile_order;

enum {
    PANEL = 64,               /* elements of a row of a panel */
    CHUNK = 8,                /* elements of 16 bytes: every row in device memory is a multiple of it long */
    GROUP = 128,              /* threads of a group of warps */
    GROUP_ROWS = 64,          /* rows of a group's result */
    TILE_ALIGNMENT = 8 * 128, /* bytes: the swizzle counts rows from here */
};

/* Bytes of a tile. */
static constexpr __host__ __device__ int tile_bytes(int rows, int columns) {
    return (columns + PANEL - 1) / PANEL * rows * 2 * PANEL;
}
/* Between the panels of a tile with so many rows. */
static constexpr __host__ __device__ int panel_bytes(int rows) {
    return rows * 2 * PANEL;
}

/* The launch's shared memory from its first aligned byte; ask for TILE_ALIGNMENT bytes more. */
static __device__ __forceinline__ char *tile_memory(char *shared) {
    return shared + (TILE_ALIGNMENT - (uintptr_t)shared % TILE_ALIGNMENT) % TILE_ALIGNMENT;
}

static __device__ __forceinline__ char *tile_chunk(char *tile, int panel, int row, int chunk) {
    return tile + (chunk / CHUNK) * panel + row * (2 * PANEL) + ((chunk ^ row) % CHUNK) * 16;
}

/* Starts to fill a tile [ROWS, COLUMNS] from src, of which the first `rows` rows and `columns` columns are
 * there (none, where a number is negative); the rest becomes zero.  All THREADS threads of the block take
 * part.  src is a multiple of 16 bytes, ld of CHUNK, and what lies between `columns` and the next multiple of
 * CHUNK is zero.  Addresses of what is not there are made, too, and not read: to choose others takes longer.
 */
template <int ROWS, int COLUMNS, int THREADS>
static __device__ __forceinline__ void tile_load(char *tile, const bf16 *src, int64_t ld, int rows,
                                                 int columns) {
    constexpr int ACROSS = PANEL / CHUNK, STEP = THREADS / ACROSS;
    static_assert(STEP % ACROSS == 0 && ROWS % STEP == 0,
                  "a thread's rows have their chunk at the same place");
    int row = (int)threadIdx.x / ACROSS, chunk = (int)threadIdx.x % ACROSS;
    char *to = tile_chunk(tile, 0, row, chunk);
    const bf16 *from = src + row * ld + chunk * CHUNK;
#pragma unroll
    for (int p = 0; p * PANEL < COLUMNS; p++) {
        int column = p * PANEL + chunk * CHUNK;
        if (COLUMNS % PANEL && column >= COLUMNS) break;
#pragma unroll
        for (int r = 0; r < ROWS; r += STEP) {
            bool there = row + r < rows && column < columns;
            copy_async16(to + p * panel_bytes(ROWS) + r * (2 * PANEL), from + r * ld + p * PANEL,
                         there ? 16 : 0);
        }
    }
}

/* Four chunks of a tile as fragments for rows [row, row + 16) of the result and k in [k, k + 16).
 * As a: r is mma's a.  As b: r[0], r[1] are the b of the first eight rows, r[2], r[3] that of the others. */
template <tile_order ORDER>
static __device__ __forceinline__ void fragment_a(uint32_t r[4], char *tile, int panel, int row, int k) {
    int lane = threadIdx.x % WARP;
    if (ORDER == ALONG_K)
        load_matrix4(r, tile_chunk(tile, panel, row + lane % 16, (k + lane / 16 * 8) / CHUNK));
    else
        load_matrix4_transposed(
            r, tile_chunk(tile, panel, k + lane / 16 * 8 + lane % 8, (row + lane / 8 % 2 * 8) / CHUNK));
}
template <tile_order ORDER>
static __device__ __forceinline__ void fragment_b(uint32_t r[4], char *tile, int panel, int row, int k) {
    int lane = threadIdx.x % WARP;
    if (ORDER == ALONG_K)
        load_matrix4(r,
                     tile_chunk(tile, panel, row + lane / 16 * 8 + lane % 8, (k + lane / 8 % 2 * 8) / CHUNK));
    else load_matrix4_transposed(r, tile_chunk(tile, panel, k + lane % 16, (row + lane / 16 * 8) / CHUNK));
}

/* The bf16 a-fragments of k [16 s, 16 s + 16) of a result's fragments, which so become the left operand of a
 * product. */
static __device__ __forceinline__ void fragment_of_result(uint32_t a[4], const float (*acc)[4], int s) {
    a[0] = bf16_pair(acc[2 * s][0], acc[2 * s][1]);
    a[1] = bf16_pair(acc[2 * s][2], acc[2 * s][3]);
    a[2] = bf16_pair(acc[2 * s + 1][0], acc[2 * s + 1][1]);
    a[3] = bf16_pair(acc[2 * s + 1][2], acc[2 * s + 1][3]);
}

/* This thread's warp in its group; a is the tile from the group's first row on. */
static __device__ __forceinline__ int warp_of_group() {
    return threadIdx.x % GROUP / WARP;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) && !defined(CARACAL_NO_WGMMA)
#include "kernels/cuda/wgmma.cuh"
#else

/* Makes tiles that this thread has filled (copy_async_wait) visible to the tensor cores after the next
 * barrier. */
static __device__ __forceinline__ void tile_filled() {}

/* Before products are started: their accumulators, and fragments, are as the program has left them. */
template <class... T> static __device__ __forceinline__ void products_begin(T &...) {}

/* Starts acc [64, N] += a [64, 16 STEPS] b [N, 16 STEPS]^T, or acc = where it does not add; a_row, b_row:
 * where the operand's rows begin in its tile.  Until products_wait, acc is not touched, and the tiles stay as
 * they are. */
template <int N, tile_order A, tile_order B, int STEPS>
static __device__ __forceinline__ void tile_product_start(float (&acc)[N / 8][4], char *a, int a_panel,
                                                          int a_row, char *b, int b_panel, int b_row,
                                                          bool adds = true) {
    product_later([=, &acc] {
#pragma unroll
        for (int j = 0; j < N / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[j][i] = adds ? acc[j][i] : 0;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            uint32_t left[4];
            fragment_a<A>(left, a, a_panel, a_row + 16 * warp_of_group(), 16 * s);
#pragma unroll
            for (int j = 0; j < N / 8; j += 2) {
                uint32_t right[4];
                fragment_b<B>(right, b, b_panel, b_row + 8 * j, 16 * s);
                mma_bf16(acc[j], left, right);
                mma_bf16(acc[j + 1], left, right + 2);
            }
        }
    });
}

/* The same with a in registers, for PARTS results side by side: a[s] holds the warp's fragments of k
 * [16 s, 16 s + 16), and acc[p] is of rows [N p, N p + N) of b.  a is not touched either. */
template <int N, tile_order B, int STEPS, int PARTS>
static __device__ __forceinline__ void fragment_product_start(float (&acc)[PARTS][N / 8][4],
                                                              uint32_t (&a)[STEPS][4], char *b, int b_panel) {
    product_later([=, &acc, &a] {
#pragma unroll
        for (int p = 0; p < PARTS; p++)
#pragma unroll
            for (int s = 0; s < STEPS; s++)
#pragma unroll
                for (int j = 0; j < N / 8; j += 2) {
                    uint32_t right[4];
                    fragment_b<B>(right, b, b_panel, N * p + 8 * j, 16 * s);
                    mma_bf16(acc[p][j], a[s], right);
                    mma_bf16(acc[p][j + 1], a[s], right + 2);
                }
    });
}

/* Until at most LEFT of the products that this group has started are under way.  `touched`: accumulators, and
 * fragments, of which that was so. */
template <int LEFT, class... T> static __device__ __forceinline__ void products_wait(T &...) {
    products_over<LEFT>();
}

#endif

#endif
