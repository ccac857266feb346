#include "ckpt/chunk.h"

#include <stdint.h>
#include <string.h>
#include <zstd.h>

#include "ckpt/filter.h"
#include "ckpt/layout.h"
#include "launch/memory.h"

struct chunk_codec {
    ZSTD_CCtx *compressor;
    ZSTD_DCtx *decompressor;
    unsigned char *shuffled; /* between shuffle and zstd */
    unsigned char *out;      /* frame or values */
};

chunk_codec *chunk_codec_new(void) {
    chunk_codec *k = mem_alloc(sizeof *k, "a chunk codec");
    k->compressor = ZSTD_createCCtx();
    k->decompressor = ZSTD_createDCtx();
    if (!k->compressor || !k->decompressor) FAULT(EXIT_NO_MEMORY, "out of memory: zstd's contexts");
    ZSTD_CCtx_setParameter(k->compressor, ZSTD_c_compressionLevel, FILTER_ZSTD_LEVEL);
    ZSTD_CCtx_setParameter(k->compressor, ZSTD_c_checksumFlag, 1);
    k->shuffled = mem_alloc(CHUNK_BYTES, "a chunk");
    k->out = mem_alloc(ZSTD_compressBound(CHUNK_BYTES), "a compressed chunk");
    return k;
}

void chunk_codec_free(chunk_codec *k) {
    if (!k) return;
    ZSTD_freeCCtx(k->compressor);
    ZSTD_freeDCtx(k->decompressor);
    mem_free(k->shuffled);
    mem_free(k->out);
    mem_free(k);
}

/* Byte j of element i goes to j * full + i; after n elements come zeros.  A word at a time, which the
 * compiler turns into vector code. */
static void shuffle4(unsigned char *restrict out, const unsigned char *restrict in, size_t n, size_t full) {
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, in + 4 * i, 4);
        for (size_t j = 0; j < 4; j++) out[j * full + i] = (unsigned char)(v >> (8 * j));
    }
    for (size_t j = 0; j < 4; j++) memset(out + j * full + n, 0, full - n);
}

static void shuffle8(unsigned char *restrict out, const unsigned char *restrict in, size_t n, size_t full) {
    for (size_t i = 0; i < n; i++) {
        uint64_t v;
        memcpy(&v, in + 8 * i, 8);
        for (size_t j = 0; j < 8; j++) out[j * full + i] = (unsigned char)(v >> (8 * j));
    }
    for (size_t j = 0; j < 8; j++) memset(out + j * full + n, 0, full - n);
}

static void unshuffle4(unsigned char *restrict out, const unsigned char *restrict in, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t v = 0;
        for (size_t j = 0; j < 4; j++) v |= (uint32_t)in[j * n + i] << (8 * j);
        memcpy(out + 4 * i, &v, 4);
    }
}

static void unshuffle8(unsigned char *restrict out, const unsigned char *restrict in, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t v = 0;
        for (size_t j = 0; j < 8; j++) v |= (uint64_t)in[j * n + i] << (8 * j);
        memcpy(out + 8 * i, &v, 8);
    }
}

size_t chunk_encode(chunk_codec *k, size_t size, const void *values, size_t elements, size_t full,
                    const void **frame) {
    size_t bytes = full * size;
    REQUIRE((size == 4 || size == 8) && elements <= full && bytes <= CHUNK_BYTES);
    (size == 4 ? shuffle4 : shuffle8)(k->shuffled, values, elements, full);
    size_t made = ZSTD_compress2(k->compressor, k->out, ZSTD_compressBound(CHUNK_BYTES), k->shuffled, bytes);
    if (ZSTD_isError(made))
        FAULT(EXIT_NO_MEMORY, "zstd cannot compress %zu bytes: %s", bytes, ZSTD_getErrorName(made));
    *frame = k->out;
    return made;
}

int chunk_decode(chunk_codec *k, size_t size, const void *frame, size_t bytes, size_t full,
                 const void **values, error *e) {
    REQUIRE((size == 4 || size == 8) && full * size <= CHUNK_BYTES);
    size_t made = ZSTD_decompressDCtx(k->decompressor, k->shuffled, full * size, frame, bytes);
    if (ZSTD_isError(made)) return error_set(e, EXIT_CORRUPT, "zstd: %s", ZSTD_getErrorName(made));
    if (made != full * size)
        return error_set(e, EXIT_CORRUPT, "it holds %zu bytes in place of %zu", made, full * size);
    (size == 4 ? unshuffle4 : unshuffle8)(k->out, k->shuffled, full);
    *values = k->out;
    return 0;
}

size_t chunk_frame_limit(size_t size, size_t full) {
    return ZSTD_compressBound(full * size);
}
