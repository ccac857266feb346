/* What a save works with, between ckpt_saver_open and ckpt_saver_close: save.c runs it, saver.c makes it. */
#ifndef CARACAL_CKPT_SAVER_H
#define CARACAL_CKPT_SAVER_H

#include <pthread.h>

#include "ckpt/compress.h"
#include "ckpt/manifest.h"
#include "ckpt/route.h"
#include "launch/memory.h"

struct ckpt_saver {
    comm *c;
    char *directory, *temporary; /* step-N.tmp of the save under way */
    checkpoint_config config;
    manifest m;         /* each rank fills in its own files and tensors, then all are shared */
    int64_t *first;     /* [files + 1] the tensors of a file */
    ckpt_slice *slices; /* what this rank holds */
    route route;        /* to the ranks that write: rank r the files r, r + ranks, ... */
    window *window;
    arena snapshot; /* the elements of this rank's files, one tensor after the other */
    compressor *compressor;
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
