/* Descriptors of tiles (tensor.cuh) for Hopper's wgmma: arithmetic alone, so that tests/emulate/tiles.cu can
 * read them as the instruction does. */
#ifndef CARACAL_KERNELS_CUDA_DESCRIPTOR_CUH
#define CARACAL_KERNELS_CUDA_DESCRIPTOR_CUH

/* Where wgmma finds an operand whose tile begins at this address of shared memory, in units of 16 bytes:
 * below, the address, and from bit 16 on the distance of panels (of operands ACROSS_K; not used ALONG_K);
 * above, that eight rows lie 1024 bytes from the next eight, and the 128-byte swizzle. */
template <tile_order ORDER> static __device__ __forceinline__ uint32_t operand_at(unsigned tile, int panel) {
    return tile >> 4 | (uint32_t)(ORDER == ALONG_K ? 1 : panel >> 4) << 16;
}
/* How far the operand's rows from `row` (a multiple of 64) on, and k from 16 s on, are from its beginning. */
template <tile_order ORDER>
static __device__ __forceinline__ uint32_t operand_step(int panel, int row, int s) {
    if (ORDER == ALONG_K) return (uint32_t)(s / 4 * panel + row * (2 * PANEL) + s % 4 * 32) >> 4;
    return (uint32_t)(row / PANEL * panel + s * 16 * (2 * PANEL)) >> 4;
}
static __device__ __forceinline__ uint64_t descriptor(uint32_t operand) {
    return (uint64_t)(1u << 30 | 1024 >> 4) << 32 | operand;
}

#endif
