/* Instructions that CUDA C++ has no plain word for.  tests/emulate/ptx.h has a twin of each. */
#ifndef CARACAL_KERNELS_CUDA_PTX_CUH
#define CARACAL_KERNELS_CUDA_PTX_CUH

#include <stdint.h>

static __device__ __forceinline__ unsigned shared_address(const void *p) {
    return (unsigned)__cvta_generic_to_shared(p);
}

/* ---- griddepcontrol: what a kernel begins with.  Waits until all that the stream had before it is done and
 * can be seen, which every kernel here does, so that the one that is waited for has waited in its turn; from
 * then on the next kernel may be set up.  A100: nothing is early, nothing waits. ---- */
static __device__ __forceinline__ void kernel_begins() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\n" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}

/* ---- cp.async: 16 bytes from device to shared memory while the thread goes on; the bytes after the first
 * `bytes` become zero, and with 0 src is not read.  Both addresses are multiples of 16. ---- */
static __device__ __forceinline__ void copy_async16(void *dst, const void *src, int bytes = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(dst)), "l"(src),
                 "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void copy_async_commit() {
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}
/* Waits until at most GROUPS of this thread's groups are under way; others see the data after a barrier. */
template <int GROUPS> static __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(GROUPS) : "memory");
}

/* ---- stores of 16 and of 8 bytes: the compiler takes some of *(float4 *)p = v apart, into four ---- */
static __device__ __forceinline__ void store16(float *p, float4 v) {
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};\n" ::"l"(p), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
                 : "memory");
}
static __device__ __forceinline__ void store8(float *p, float2 v) {
    asm volatile("st.global.v2.f32 [%0], {%1, %2};\n" ::"l"(p), "f"(v.x), "f"(v.y) : "memory");
}
static __device__ __forceinline__ void store8(uint16_t *p, uint32_t lo, uint32_t hi) {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};\n" ::"l"(p), "r"(lo), "r"(hi) : "memory");
}

/* ---- ldmatrix: four 8x8 matrices of 16-bit elements.  Lane l gives the address of row l % 8 of matrix l / 8
 * (16 bytes, a multiple of 16) and gets in r[i] elements 2 (l % 4), 2 (l % 4) + 1 of row l / 4 of matrix i;
 * transposed, of column l / 4. ---- */
static __device__ __forceinline__ void load_matrix4(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
static __device__ __forceinline__ void load_matrix4_transposed(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* ---- mma: d [16,8] += a [16,16] b [16,8] of bf16 with float32 sums.  With g = lane / 4 and t = lane % 4:
 * a[0] = row g, columns 2t, 2t+1; a[1] = row g+8; a[2], a[3] the same, columns 2t+8, 2t+9;
 * b[0] = rows 2t, 2t+1 of column g; b[1] = rows 2t+8, 2t+9;
 * d[0], d[1] = row g, columns 2t, 2t+1; d[2], d[3] = row g+8. ---- */
static __device__ __forceinline__ void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* ---- products that run beside the program: here they do not; Hopper's (wgmma.cuh) and the emulator's do
 * ---- */
template <class F> static __device__ __forceinline__ void product_later(F product) {
    product();
}
template <int LEFT> static __device__ __forceinline__ void products_over() {}

/* 2^x by the special function unit: within 2^-22 of it, the same bits on all GPUs of a kind, 0 for -inf, and
 * 0 where it is below 2^-126: to tell those apart takes three more instructions each. */
static __device__ __forceinline__ float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

/* Two floats rounded to nearest even, lo in the lower half. */
static __device__ __forceinline__ uint32_t bf16_pair(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

#endif
