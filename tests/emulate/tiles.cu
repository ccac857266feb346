#include <stdlib.h>

#include "tests/emulate/wrong.h"

#include "kernels/cuda/tensor.cuh"

#include "kernels/cuda/descriptor.cuh"

/* The address of element (row, k) of what d describes, as "Strides" and the canonical layouts of PTX's
 * wgmma.mma_async say: in units of 16 bytes ((8,n),2):((8,SBO),1) along k, ((8,n),(8,k)):((1,LBO),(8,SBO))
 * across, and of the address bits 4 to 6 the exclusive or of themselves and 7 to 9. */
static unsigned described(uint64_t d, tile_order order, int row, int k) {
    unsigned start = (d & 0x3fff) << 4, leading = (d >> 16 & 0x3fff) << 4, stride = (d >> 32 & 0x3fff) << 4;
    unsigned r = (unsigned)row, c = (unsigned)k, at;
    if (order == ALONG_K) at = start + r % 8 * 128 + r / 8 * stride + c * 2;
    else at = start + r % 64 * 2 + r / 64 * leading + c % 8 * 128 + c / 8 * stride;
    return at ^ (at >> 7 & 7) << 4;
}

/* Whether the descriptors of rows [row, row + n) of an operand, for each 16 of k, lead where the tile has
 * them. */
template <tile_order ORDER> static bool leads(int tile_rows, int row, int n, int steps) {
    char *memory = (char *)aligned_alloc(TILE_ALIGNMENT, 256 << 10), *tile = memory + 3 * TILE_ALIGNMENT;
    int panel = panel_bytes(tile_rows);
    bool right = true;
    for (int s = 0; s < steps; s++) {
        uint64_t d = descriptor(operand_at<ORDER>(3 * TILE_ALIGNMENT, panel) +
                                operand_step<ORDER>(panel, row, 0) + operand_step<ORDER>(panel, 0, s));
        right = right && d >> 49 == (1ull << 13); /* no base offset, the swizzle of 128 bytes */
        for (int i = 0; i < n; i++)
            for (int k = 0; k < 16; k++) {
                int r = ORDER == ALONG_K ? row + i : 16 * s + k, c = ORDER == ALONG_K ? 16 * s + k : row + i;
                char *want = tile_chunk(tile, panel, r, c / CHUNK) + c % CHUNK * 2;
                right = right && described(d, ORDER, i, k) == want - memory;
            }
    }
    free(memory);
    return right;
}

int tiles_are_described(void) {
    bool right = true;
    for (int row = 0; row < 256; row += 128) { /* grouped products */
        right = right && leads<ALONG_K>(256, row, 128, 4) && leads<ACROSS_K>(64, row, 128, 4);
        right = right && leads<ALONG_K>(128, row / 2, 64, 4) && leads<ACROSS_K>(64, row / 2, 64, 4);
    }
    for (int row = 0; row < 192;
         row += 64) /* attention: rows of a group, keys of a block, parts of a result */
        right = right && leads<ALONG_K>(128, row % 128, 64, 12) && leads<ACROSS_K>(64, row, 64, 4);
    return right && leads<ALONG_K>(64, 0, 64, 12) && leads<ALONG_K>(64, 0, 64, 6) &&
           leads<ACROSS_K>(64, 0, 128, 4);
}
