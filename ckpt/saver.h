/* What a save works with, between ckpt_saver_open and ckpt_saver_close: save.c runs it, saver.c makes it. */
#ifndef CARACAL_CKPT_SAVER_H
#define CARACAL_CKPT_SAVER_H

#include <pthread.h>

#include "ckpt/compress.h"
#include "ckpt/manifest.h"
#include "ckpt/route.h"
#include "launch/memory.h"

/* By how much a file may be ahead of what it was made from: HDF5's own structure, and frames of noise.  A
 * file that needs more (many tiny tensors) is written without an image from there on. */
enum { SAVER_MARGIN = 4 << 20 };

struct ckpt_saver {
    comm *c;
    char *directory, *temporary; /* step-N.tmp of the save under way */
    checkpoint_config config;
    manifest m;         /* each rank fills in its own files and tensors, then all are shared */
    int64_t *first;     /* [files + 1] the tensors of a file */
    ckpt_slice *slices; /* what this rank holds */
    route route;        /* to the ranks that write: rank r the files r, r + ranks, ... */
    window *window;
    /* SAVER_MARGIN, then the elements of this rank's files, one tensor after the other.  From the front on,
     * the files' images take the place of what is compressed. */
    arena snapshot;
    compressor *compressor;
    XXH3_state_t *digest; /* of a tensor */
    enum { IDLE, WRITING, COMMITTING } part;
    pthread_t thread;
    int has_thread;
    int done; /* atomic: the thread has nothing left to do */
    double began;
    ckpt_outcome out;
};

/* The bytes of a file's tensors. */
size_t saver_file_bytes(const ckpt_tensor *tensors, const int64_t *first, int64_t file);

#endif
