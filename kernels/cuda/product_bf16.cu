/* Products of bf16 operands on tensor cores, many in one launch: a block makes one tile of one job's C, and
 * uneven or empty jobs only make fewer tiles.  Tiles of both operands come through a ring of STAGES in shared
 * memory. */
#include "kernels/cuda/matrix.cuh"

enum { DEPTH = PANEL, GROUP_COLUMNS = 128 };

/* Which part of the runs a step of DEPTH takes; GEMM_K_BLOCK is a multiple of DEPTH.  What a run says is read
 * when it begins: inside, a step has no time to wait for it. */
typedef struct product_step {
    int run, end, k;
    product_run of; /* nothing behind the last */
} product_step;

static __device__ __forceinline__ product_step first_step(const product_job &job, const product_run *run) {
    product_step s = {job.first_run, job.first_run + job.runs, 0, {}};
    if (s.run < s.end) s.of = run[s.run];
    return s;
}

static __device__ __forceinline__ void next_step(product_step &s, const product_run *run) {
    s.k += DEPTH;
    if (s.k < s.of.k) return;
    s.k = 0;
    if (++s.run < s.end) s.of = run[s.run];
}

/* Whether a sum that starts anew every GEMM_K_BLOCK, and with every run, ends with this step. */
static __device__ __forceinline__ bool ends_chain(const product_step &s) {
    return (s.k + DEPTH) % GEMM_K_BLOCK == 0 || s.k + DEPTH >= s.of.k;
}

/* The tile of an operand for one step: x, which has `rows` rows of the result from there on, from its k-th
 * column or row on, of which `left` are there. */
template <int ROWS, tile_order ORDER, int THREADS>
static __device__ __forceinline__ void load_operand(char *tile, const bf16 *x, int64_t ld, int rows, int k,
                                                    int left) {
    if (ORDER == ALONG_K) tile_load<ROWS, DEPTH, THREADS>(tile, x + k, ld, rows, left);
    else tile_load<DEPTH, ROWS, THREADS>(tile, x + k * ld, ld, left, rows);
}

/* Where an operand's rows from `row` on begin. */
template <tile_order ORDER>
static __device__ __forceinline__ const bf16 *operand_row(const void *x, int64_t ld, int row) {
    return (const bf16 *)x + (ORDER == ALONG_K ? row * ld : row);
}

/* f(row, column, fragment's index, place in it) for the pairs of fragments that lie in C. */
template <class F> static __device__ __forceinline__ void each_pair(int rows, int columns, F f) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int j = 0; j < GROUP_COLUMNS / 8; j++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = 16 * warp_of_group() + lane / 4 + 8 * half, column = 8 * j + lane % 4 * 2;
            if (row < rows && column < columns) f(row, column, j, 2 * half);
        }
}

template <int TILE_M, int TILE_N, tile_order A, tile_order B, bool CHAINED, int STAGES>
static __global__ void __launch_bounds__(TILE_M / GROUP_ROWS * (TILE_N / GROUP_COLUMNS) * GROUP, 1)
    product_bf16_kernel(const __grid_constant__ product_call p, const __grid_constant__ device_list l) {
    kernel_begins();
    constexpr int GROUPS_N = TILE_N / GROUP_COLUMNS, THREADS = TILE_M / GROUP_ROWS * GROUPS_N * GROUP;
    constexpr int A_BYTES = tile_bytes(TILE_M, DEPTH), STAGE = A_BYTES + tile_bytes(TILE_N, DEPTH);
    constexpr int A_PANEL = panel_bytes(A == ALONG_K ? TILE_M : DEPTH),
                  B_PANEL = panel_bytes(B == ALONG_K ? TILE_N : DEPTH);
    DYNAMIC_SHARED(char, shared);
    char *stages = tile_memory(shared);
    const product_job job = *job_of_tile(l, blockIdx.x);
    const product_run *run = runs_of(l);
    int tile = (int)blockIdx.x - job.first_tile, tiles_m = (job.m + TILE_M - 1) / TILE_M;
    int m = tile % tiles_m * TILE_M, n = tile / tiles_m * TILE_N;
    int group_m = threadIdx.x / GROUP / GROUPS_N * GROUP_ROWS,
        group_n = threadIdx.x / GROUP % GROUPS_N * GROUP_COLUMNS;

    product_step load = first_step(job, run), work = load;
    const bf16 *a = operand_row<A>(p.a, p.lda, m), *b = operand_row<B>(p.b, p.ldb, n);
    auto fill = [&](int stage) {
        if (load.run < load.end) {
            char *to = stages + stage * STAGE;
            int left = load.of.k - load.k;
            load_operand<TILE_M, A, THREADS>(to, a + load.of.a, p.lda, job.m - m, load.k, left);
            load_operand<TILE_N, B, THREADS>(to + A_BYTES, b + load.of.b, p.ldb, (int)p.n - n, load.k, left);
            next_step(load, run);
        }
        copy_async_commit(); /* empty ones too: groups are counted */
    };
    for (int stage = 0; stage < STAGES - 1; stage++) fill(stage);

    int64_t at = job.c + (int64_t)(m + group_m) * p.ldc + n + group_n;
    float *c = p.c + at;
    const float *d = p.d ? p.d + at : NULL;
    int rows = job.m - m - group_m, columns = (int)p.n - n - group_n;
    float acc[GROUP_COLUMNS / 8][4] = {}, sum[CHAINED ? GROUP_COLUMNS / 8 : 1][4] = {};
    if (CHAINED && d)
        each_pair(rows, columns, [&](int row, int column, int j, int i) {
            const float *from = d + row * p.ldc + column;
            sum[CHAINED ? j : 0][i] = from[0];
            if (column + 1 < columns) sum[CHAINED ? j : 0][i + 1] = from[1];
        });
    copy_async_wait<STAGES - 2>();
    tile_filled();
    __syncthreads();
    bool adds = false; /* what comes next, to its chain */
    for (int stage = 0; work.run < work.end; stage = (stage + 1) % STAGES) {
        char *from = stages + stage * STAGE;
        products_begin(acc);
        tile_product_start<GROUP_COLUMNS, A, B, DEPTH / 16>(acc, from, A_PANEL, group_m, from + A_BYTES,
                                                            B_PANEL, group_n, adds);
        adds = true;
        products_wait<1>(acc);
        copy_async_wait<STAGES - 3>();
        tile_filled();
        __syncthreads(); /* the next stage is there; the one before is read, and filled beside this product */
        fill((stage + STAGES - 1) % STAGES);
        if (CHAINED && ends_chain(work)) {
            products_wait<0>(acc);
#pragma unroll
            for (int j = 0; j < GROUP_COLUMNS / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) sum[CHAINED ? j : 0][i] += acc[j][i];
            adds = false;
        }
        next_step(work, run);
    }
    products_wait<0>(acc);
    bool pairs = (uintptr_t)p.c % 8 == 0 && p.ldc % 2 == 0 && job.c % 2 == 0;
    each_pair(rows, columns, [&](int row, int column, int j, int i) {
        float first = CHAINED ? sum[CHAINED ? j : 0][i] : acc[j][i];
        float second = CHAINED ? sum[CHAINED ? j : 0][i + 1] : acc[j][i + 1];
        float *to = c + row * p.ldc + column;
        if (!CHAINED && d) {
            first += d[row * p.ldc + column];
            if (column + 1 < columns) second += d[row * p.ldc + column + 1];
        }
        if (pairs && column + 1 < columns) {
            store8(to, make_float2(first, second));
        } else {
            to[0] = first;
            if (column + 1 < columns) to[1] = second;
        }
    });
}

enum { TALL = 128, WIDE = 256 };

tile_shape product_bf16_tile(int64_t n, bool chained) {
    /* chained ones hold a second set of fragments, for which a wide tile has no registers */
    return tile_shape{TALL, n > TALL && !chained ? WIDE : TALL};
}

template <int TILE_N, tile_order A, tile_order B, bool CHAINED, int STAGES>
static void launch(kernel_context *ctx, const product_call *p, const product_list *l, char *room) {
    constexpr int SHARED_BYTES =
        STAGES * (tile_bytes(TALL, DEPTH) + tile_bytes(TILE_N, DEPTH)) + TILE_ALIGNMENT;
    LAUNCH((product_bf16_kernel<TALL, TILE_N, A, B, CHAINED, STAGES>), grid3(l->tiles),
           TALL / GROUP_ROWS * (TILE_N / GROUP_COLUMNS) * GROUP, SHARED_BYTES, ctx, *p,
           list_upload(ctx, l, room));
}

void product_bf16(kernel_context *ctx, const product_call *p, const product_list *l, char *room) {
    if (!l->tiles) return;
    bool wide = product_bf16_tile(p->n, p->chained).n == WIDE;
    if (p->chained) launch<TALL, ACROSS_K, ACROSS_K, true, 5>(ctx, p, l, room);
    else if (p->form == GEMM_NT && wide) launch<WIDE, ALONG_K, ALONG_K, false, 3>(ctx, p, l, room);
    else if (p->form == GEMM_NT) launch<TALL, ALONG_K, ALONG_K, false, 4>(ctx, p, l, room);
    else if (wide) launch<WIDE, ALONG_K, ACROSS_K, false, 3>(ctx, p, l, room);
    else launch<TALL, ALONG_K, ACROSS_K, false, 4>(ctx, p, l, room);
}
