/* zstd as an HDF5 filter, under its registered id. */
#ifndef CARACAL_CKPT_FILTER_H
#define CARACAL_CKPT_FILTER_H

#include <hdf5.h>

enum {
    FILTER_ZSTD = 32015,
    /* On shuffled weights level 1 is both the fastest that compresses and the smallest: higher levels search
     * for matches that noise does not have, negative ones leave out the entropy coder that does all the work.
     */
    FILTER_ZSTD_LEVEL = 1,
};

extern const H5Z_class2_t filter_zstd;

#endif
