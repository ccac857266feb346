/* What can be checked of a checkpoint's files, and where damage lies. */
#ifndef CARACAL_CKPT_VERIFY_H
#define CARACAL_CKPT_VERIFY_H

#include "ckpt/manifest.h"

/* Size and digest of one file of the checkpoint at `directory`. */
int verify_file(const char *directory, const ckpt_file *f, error *e);

/* After verify_file found damage (EXIT_CORRUPT in *e): adds to the message where it lies. */
void verify_locate(const char *directory, const manifest *m, int64_t file, error *e);

/* Does the checkpoint at `directory` verify: manifest, sizes and digests of all files? */
int verify_whole(const char *directory);

/* Decodes every chunk of every dataset of one file and compares each dataset's digest: the first damage. */
int verify_datasets(const char *directory, const manifest *m, int64_t file, error *e);

#endif
