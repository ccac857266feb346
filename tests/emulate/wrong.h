/* Kernels that are wrong on purpose (and one that is not): what the emulator must find. */
#ifndef CARACAL_TESTS_EMULATE_WRONG_H
#define CARACAL_TESTS_EMULATE_WRONG_H

enum { WRONG_OUT = 256 }; /* floats that a kernel may write */

typedef enum {
    RIGHT,
    NO_BARRIER,       /* reads shared memory that another thread writes */
    BLOCKS_RACE,      /* every block writes the same element */
    READS_UNWRITTEN,  /* shared memory that nobody wrote */
    NO_COPY_WAIT,     /* what an asynchronous copy brings, before it is there */
    SOME_AT_BARRIER,  /* a barrier that half of the threads pass by */
    SOME_RETURN,      /* half of the threads return before a barrier */
    TWO_BARRIERS,     /* halves of a block wait at different barriers */
    HALF_A_WARP,      /* a collective without its upper lanes */
    PARTIAL_MASK,     /* */
    TOO_MANY_THREADS, /* 2048 */
    TOO_MUCH_SHARED,  /* 228 KiB */
    TOO_MANY_BLOCKS,  /* 2^31 */
    TOO_MANY_HEADS,   /* 65,536 across */
    UNASKED_SHARED,   /* 32 KiB that the launch brings and 17 of the kernel's own */
    OUTSIDE_COPY,     /* an asynchronous copy to an address that is not aligned */
    BANKS_SHARED,     /* ldmatrix of rows that lie in the same banks */
    BANKS_APART,      /* not wrong: of rows that do not */
    NEVER_WAITS,      /* for the kernels before it */
    WRONGS
} wrong_kernel;

#ifdef __cplusplus
extern "C"
#endif
    void
    wrong_run(wrong_kernel which, float *out);
/* tiles.cu: whether descriptors of tiles for Hopper's tensor cores say where their elements lie. */
#ifdef __cplusplus
extern "C"
#endif
    int
    tiles_are_described(void);

#endif
