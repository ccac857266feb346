/* The cuda backend's context, and how its sources see the rest of the program. */
#ifndef CARACAL_KERNELS_CUDA_CONTEXT_CUH
#define CARACAL_KERNELS_CUDA_CONTEXT_CUH

/* The headers are C11's. */
#define _Noreturn __attribute__((noreturn))
extern "C" {
#include "kernels/kernels.h"
#include "launch/error.h"
#include "launch/memory.h"
}
#undef _Noreturn

#include <cuda_runtime.h>

enum { CUDA_SCRATCH = 32 << 20, CUDA_OUTBOX = 4 << 20, CUDA_INBOX = 4 << 20, CUDA_ARRIVALS = 256 };

typedef struct allocation {
    const char *base;
    size_t bytes;
} allocation;

typedef struct arrival {
    void *host;
    const char *from; /* in the inbox */
    size_t bytes;
} arrival;

/* Everything of a context runs on its one stream, in order. */
struct kernel_context {
    char name[64]; /* "cuda (NVIDIA H100 80GB HBM3)" */
    int device;
    cudaStream_t stream;
    unsigned sets_up_early; /* 1: a kernel may be set up while another ends (LAUNCH); 0: the GPU cannot */
    size_t block_shared;    /* bytes of shared memory that a block of this GPU may ask for */
    bool host_reaches;      /* device "check:cuda": alloc's memory is the host's, which the GPU reads too */
    allocation *owned;      /* what alloc has given and is in use */
    int owned_count, owned_room;
    char *scratch;               /* [CUDA_SCRATCH] on the device, dirty between operations */
    struct matrix_state *matrix; /* of matrix products and attention: matrix.cuh */
    /* What to_device has still to bring: two halves of pinned memory that are filled in turn. */
    char *outbox; /* [2][CUDA_OUTBOX] */
    int outbox_half;
    size_t outbox_used;
    cudaEvent_t outbox_read[2];
    /* What fetch has begun to bring: it lands in pinned memory, and goes from there to where it is wanted. */
    char *inbox; /* [CUDA_INBOX] */
    size_t inbox_used;
    arrival arriving[CUDA_ARRIVALS];
    int arrivals;
    cudaEvent_t inbox_filled; /* behind the last of them */
};

/* A call of the runtime that fails ends the program: bad input is found before anything runs. */
#define CUDA_OK(call)                                                                                        \
    do {                                                                                                     \
        cudaError_t cuda_code = (call);                                                                      \
        if (cuda_code != cudaSuccess)                                                                        \
            FAULT(EXIT_RANK_DIED, "the GPU fails: %s: %s (%s)", #call, cudaGetErrorString(cuda_code),        \
                  cudaGetErrorName(cuda_code));                                                              \
    } while (0)

/* memory.cu: on the device and not zeroed; ends the program (exit 7), naming `what`, if there is none. */
void *cuda_memory(kernel_context *ctx, size_t bytes, const char *what);
/* The same in place of `old`, once the device is done with that. */
void *cuda_memory_for(kernel_context *ctx, void *old, size_t bytes, const char *what);
/* device.cu: the GPU of this rank, an error where there is none; what its memory still has. */
int cuda_choose(const kernels_config *c, int *device, error *e);
size_t cuda_left(kernel_context *ctx);
size_t cuda_own_bytes(kernel_context *ctx, int64_t held, int64_t operand, attention_shape s);
extern "C" const struct wires cuda_wires; /* nccl.cu */
/* memory.cu: bytes from p to the end of the allocation that p lies in; 0: it is not one of alloc's, which
 * nothing but operations and messages writes to. */
size_t cuda_owned_from(const kernel_context *ctx, const void *p);

/* rounded.cu.  Every operation says what it writes, when it has asked for its operands: rounded copies of it
 * are forgotten.  An operation that does not know how far it writes says `cuda_owned_from`. */
void wrote(kernel_context *ctx, const void *x, size_t bytes);
/* Bytes from the first to behind the last element of such a matrix. */
static inline size_t floats(int64_t rows, int64_t cols, int64_t ld) {
    return rows && cols ? (size_t)((rows - 1) * ld + cols) * sizeof(float) : 0;
}
/* The same for x [rows, cols] that a product will read next: where the kernel may leave its elements rounded
 * to bf16 beside the float32 ones, at the same places, as a copy for that product; NULL: nowhere.  The last
 * COPIES are good at one time. */
uint16_t *wrote_operand(kernel_context *ctx, const float *x, int64_t rows, int64_t cols);

/* The table's operations, each in the file that its name suggests. */
#define CUDA_OPERATION(name) extern __typeof__(*((kernels *)0)->name) cuda_##name
extern "C" {
CUDA_OPERATION(alloc);
CUDA_OPERATION(free);
CUDA_OPERATION(zero);
CUDA_OPERATION(copy);
CUDA_OPERATION(add);
CUDA_OPERATION(copy_rows);
CUDA_OPERATION(rms_norm_forward);
CUDA_OPERATION(rms_norm_backward);
CUDA_OPERATION(rope);
CUDA_OPERATION(swiglu_forward);
CUDA_OPERATION(swiglu_backward);
CUDA_OPERATION(embedding_forward);
CUDA_OPERATION(embedding_backward);
CUDA_OPERATION(router_forward);
CUDA_OPERATION(router_backward);
CUDA_OPERATION(combine_forward);
CUDA_OPERATION(combine_backward);
CUDA_OPERATION(cross_entropy);
CUDA_OPERATION(hidden_z);
CUDA_OPERATION(hold);
CUDA_OPERATION(gemm);
CUDA_OPERATION(gemm_float32);
CUDA_OPERATION(grouped_gemm);
CUDA_OPERATION(grouped_gemm_dw);
CUDA_OPERATION(attention_forward);
CUDA_OPERATION(attention_backward);
CUDA_OPERATION(adamw);
CUDA_OPERATION(sum_squares);
CUDA_OPERATION(digest);
CUDA_OPERATION(to_host);
CUDA_OPERATION(to_device);
CUDA_OPERATION(fetch);
CUDA_OPERATION(fetched);
}

#endif
