/* The filter that HDF5 calls itself, in this program and, as the plugin build/libH5Zzstd.so, in h5dump and
 * h5py. A chunk is one zstd frame that carries its content's size and checksum.
 *
 * Buffers here are HDF5's own and come from its allocator: in h5py this is a guest, and what does not decode
 * or fit in memory must be the caller's error, never the end of the program.
 */
#include "ckpt/filter.h"

#include <H5PLextern.h>
#include <zstd.h>

static size_t compress(const void *in, size_t bytes, int level, void **out, size_t *capacity) {
    ZSTD_CCtx *z = ZSTD_createCCtx();
    size_t made = 0;
    *capacity = ZSTD_compressBound(bytes);
    *out = H5allocate_memory(*capacity, 0);
    if (z && *out) {
        ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, level);
        ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1);
        made = ZSTD_compress2(z, *out, *capacity, in, bytes);
        if (ZSTD_isError(made)) made = 0;
    }
    ZSTD_freeCCtx(z);
    return made;
}

static size_t decompress(const void *in, size_t bytes, void **out, size_t *capacity) {
    unsigned long long size = ZSTD_getFrameContentSize(in, bytes);
    if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR || size == 0) return 0;
    *capacity = (size_t)size;
    *out = H5allocate_memory(*capacity, 0);
    if (!*out) return 0;
    size_t made = ZSTD_decompress(*out, *capacity, in, bytes);
    return ZSTD_isError(made) ? 0 : made;
}

/* 0 says failure; otherwise *buffer holds that many bytes of *buffer_size. */
static size_t filter(unsigned flags, size_t values, const unsigned value[], size_t bytes, size_t *buffer_size,
                     void **buffer) {
    void *out = NULL;
    size_t capacity = 0, made;
    if (flags & H5Z_FLAG_REVERSE) made = decompress(*buffer, bytes, &out, &capacity);
    else made = compress(*buffer, bytes, values ? (int)value[0] : FILTER_ZSTD_LEVEL, &out, &capacity);
    if (!made) {
        H5free_memory(out);
        return 0;
    }
    H5free_memory(*buffer);
    *buffer = out;
    *buffer_size = capacity;
    return made;
}

const H5Z_class2_t filter_zstd = {.version = H5Z_CLASS_T_VERS,
                                  .id = FILTER_ZSTD,
                                  .encoder_present = 1,
                                  .decoder_present = 1,
                                  .name = "zstd",
                                  .filter = filter};

/* What HDF5 asks a plugin. */
H5PL_type_t H5PLget_plugin_type(void) {
    return H5PL_TYPE_FILTER;
}
const void *H5PLget_plugin_info(void) {
    return &filter_zstd;
}
