/* A GPU in the mind of a processor: runs the kernels of kernels/cuda, compiled by g++, for tests where no GPU
 * is.
 *
 * The threads of a block are fibers of one thread of the machine; blocks run one after another.  A fiber runs
 * until it comes to a barrier or a warp collective, so that a missing barrier shows as a result that depends
 * on the order in which fibers run: tests run everything in several orders and compare bits.  The emulator
 * ends the program where
 *   - some threads of a block wait at a barrier and others have returned or wait at another one;
 *   - some lanes of a warp take part in a collective and others do not (partial masks are not used here);
 *   - a launch asks for more than an H100 gives (threads, shared memory, grid), or uses more shared memory
 * than a block has without asking. Shared memory starts as NaNs; each array of it, and each device
 * allocation, is a block of the heap of its own, so that AddressSanitizer sees what leaves it.
 */
#ifndef CARACAL_TESTS_EMULATE_EMULATE_H
#define CARACAL_TESTS_EMULATE_EMULATE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct emulate_index {
    unsigned x, y, z;
} emulate_index;

/* What a kernel knows of itself. */
extern emulate_index threadIdx, blockIdx, blockDim, gridDim;

enum { EMULATE_BLOCK_SHARED = 227 << 10 }; /* shared memory that a block may ask for: an H100's */

/* In which order blocks, warps and lanes run. */
typedef enum { EMULATE_FORWARD, EMULATE_REVERSED, EMULATE_SHUFFLED } emulate_order;
void emulate_set_order(emulate_order order, uint64_t seed);

/* How often the device was given what: kernels by file and name, "copy", "set", "product of cublasLt"; and
 * what happened in kernels: "ldmatrix", "conflict of banks" of its reads.  In the order of their first times,
 * ended by one without a name. */
typedef struct emulate_figure {
    const char *what;
    int64_t times;
} emulate_figure;
void emulate_count(const char *what);
const emulate_figure *emulate_figures(void);
void emulate_figures_reset(void);
int64_t emulate_times(const char *what);

/* Runs body(argument) once for every thread of every block.  asked: more than 48 KiB of shared memory were
 * asked for. */
void emulate_run(const char *kernel, emulate_index grid, emulate_index block, size_t shared_bytes, int asked,
                 void (*body)(void *), void *argument);

/* ---- inside a kernel ---- */

/* Ends the program: what the running kernel does would go wrong on a device. */
__attribute__((noreturn)) void emulate_bad(const char *what);

/* The thread waits for the kernels before its own: no thread may come to a barrier or return without. */
void emulate_begin(void);
void emulate_barrier(const char *file, int line);

enum { EMULATE_SLOT = 64 };
/* Every lane of the warp (mask says so: it must be all ones) gives `size` bytes, at most EMULATE_SLOT;
 * returns what all have given, lane i's at i * EMULATE_SLOT, until this lane's next collective. */
const unsigned char *emulate_exchange(unsigned mask, const void *mine, size_t size, const char *file,
                                      int line);

/* The block's array of shared memory that this line declares; the launch's dynamic shared memory. */
void *emulate_shared(size_t bytes, const char *file, int line);
void *emulate_dynamic_shared(void);

/* cp.async: bytes are copied as late as the waits allow (and, when the order is EMULATE_SHUFFLED, at once):
 * the first `bytes` come from src, the rest of `size` is zero. */
void emulate_copy_async(void *dst, const void *src, size_t size, size_t bytes);
void emulate_copy_commit(void);
void emulate_copy_wait(int groups); /* until at most that many of this thread's groups are under way */

/* A product on tensor cores that runs beside its threads: body(what is at argument, kept) is run as late as
 * the waits allow (and, when the order is EMULATE_SHUFFLED, at once). */
void emulate_product(void (*body)(const void *), const void *argument, size_t bytes);
void emulate_products_wait(int left); /* until at most that many of this thread's are under way */

/* ---- device memory ---- */

void *emulate_malloc(size_t bytes); /* filled with NaNs */
void emulate_free(void *p);
size_t emulate_given(void); /* bytes in use */

#ifdef __cplusplus
}
#endif

#endif
