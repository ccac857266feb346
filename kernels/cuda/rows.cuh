/* Teams of threads that work on one row each, and sums over the rows of a matrix. */
#ifndef CARACAL_KERNELS_CUDA_ROWS_CUH
#define CARACAL_KERNELS_CUDA_ROWS_CUH

#include "kernels/cuda/context.cuh"
#include "kernels/cuda/device.cuh"

/* A team of TEAM threads, 32 to 1024 and a power of two, works on a row.  A row of up to 4 * CHUNKS * TEAM
 * elements fits into its registers: thread t has elements 4 (t + i TEAM) .. + 3 for i < CHUNKS.  Blocks have
 * at least ROW_THREADS threads, so several small teams share one, and are to run two or more at a time: one
 * computes while another waits for memory or at a barrier. */
enum { ROW_THREADS = 256, ROW_CHUNKS = 4, ROW_MOST = 4 * ROW_CHUNKS * 1024 };
/* three of the smallest: with room for four, rows and their gradients would not fit into a thread's registers
 */
#define ROW_BOUNDS(team) __launch_bounds__(row_block(team), (team) > ROW_THREADS ? 1024 / (team) : 3)

static constexpr __host__ __device__ int row_block(int team) {
    return team < ROW_THREADS ? ROW_THREADS : team;
}

/* The row of this thread's team, its place in the team. */
template <int TEAM> static __device__ __forceinline__ int64_t team_row() {
    return (int64_t)blockIdx.x * (row_block(TEAM) / TEAM) + threadIdx.x / TEAM;
}
template <int TEAM> static __device__ __forceinline__ int team_thread() {
    return (int)(threadIdx.x % TEAM);
}

/* The sum of one number of each thread of a team, known to all of it; every thread of the block takes part.
 */
template <int TEAM, class T> static __device__ __forceinline__ T team_sum(T v) {
    v = warp_sum(v);
    if (TEAM == WARP) return v;
    SHARED(T, part, [32]);
    int warp = (int)threadIdx.x / WARP, first = warp / (TEAM / WARP) * (TEAM / WARP);
    __syncthreads(); /* what a sum before this one left has been read */
    if (threadIdx.x % WARP == 0) part[warp] = v;
    __syncthreads();
    v = part[first];
#pragma unroll
    for (int i = 1; i < TEAM / WARP; i++) v += part[first + i];
    return v;
}
template <int TEAM> static __device__ __forceinline__ float team_max(float v) {
    v = warp_max(v);
    if (TEAM == WARP) return v;
    SHARED(float, part, [32]);
    int warp = (int)threadIdx.x / WARP, first = warp / (TEAM / WARP) * (TEAM / WARP);
    __syncthreads();
    if (threadIdx.x % WARP == 0) part[warp] = v;
    __syncthreads();
    v = part[first];
#pragma unroll
    for (int i = 1; i < TEAM / WARP; i++) v = fmaxf(v, part[first + i]);
    return v;
}

/* Launches KERNEL with a team for each of `teams`, by threads of a team and what more its template asks for.
 */
#define LAUNCH_TEAMS(kernel, team, teams, ctx, ...)                                                          \
    LAUNCH(kernel, grid3(divide_up(teams, row_block(team) / (team))), row_block(team), 0, ctx, __VA_ARGS__)
/* Launches KERNEL<TEAM, CHUNKS> with the smallest team that holds a row of `cols`, and no more chunks than it
 * needs. */
#define LAUNCH_ROWS_OF(team, KERNEL, teams, cols, ctx, ...)                                                  \
    if ((cols) <= 12 * (team)) LAUNCH_TEAMS((KERNEL<team, 3>), team, teams, ctx, __VA_ARGS__);               \
    else LAUNCH_TEAMS((KERNEL<team, 4>), team, teams, ctx, __VA_ARGS__)
#define LAUNCH_ROWS(KERNEL, teams, cols, ctx, ...)                                                           \
    do {                                                                                                     \
        switch (divide_up(cols, 4 * ROW_CHUNKS * WARP)) { /* warps */                                        \
        case 0:                                                                                              \
        case 1:                                                                                              \
            LAUNCH_ROWS_OF(32, KERNEL, teams, cols, ctx, __VA_ARGS__);                                       \
            break;                                                                                           \
        case 2:                                                                                              \
            LAUNCH_ROWS_OF(64, KERNEL, teams, cols, ctx, __VA_ARGS__);                                       \
            break;                                                                                           \
        case 3 ... 4:                                                                                        \
            LAUNCH_ROWS_OF(128, KERNEL, teams, cols, ctx, __VA_ARGS__);                                      \
            break;                                                                                           \
        case 5 ... 8:                                                                                        \
            LAUNCH_ROWS_OF(256, KERNEL, teams, cols, ctx, __VA_ARGS__);                                      \
            break;                                                                                           \
        case 9 ... 16:                                                                                       \
            LAUNCH_ROWS_OF(512, KERNEL, teams, cols, ctx, __VA_ARGS__);                                      \
            break;                                                                                           \
        default:                                                                                             \
            LAUNCH_ROWS_OF(1024, KERNEL, teams, cols, ctx, __VA_ARGS__);                                     \
        }                                                                                                    \
    } while (0)

/* Ends the program where a row is longer than a team of 1024 holds. */
static inline void require_row(const char *operation, int64_t cols) {
    if (cols > ROW_MOST)
        FAULT(EXIT_USAGE, "cuda %s: rows of %lld elements; at most %d are supported", operation,
              (long long)cols, ROW_MOST);
}

/* out [cols] =, or += where `adds`, the sum of the rows of part [rows, cols], in an order that rows alone
 * decides (rows.cu). */
void sum_of_rows(kernel_context *ctx, int64_t rows, int64_t cols, float *out, bool adds, const float *part);

#endif
