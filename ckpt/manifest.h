/* The manifest: what a complete checkpoint consists of, with a digest of everything, its own text included.
 * The same content gives the same text.
 */
#ifndef CARACAL_CKPT_MANIFEST_H
#define CARACAL_CKPT_MANIFEST_H

#include <xxhash.h>

#include "ckpt/ckpt.h"

/* The manifest's first lines and its last one stay as they are in every version, so that an older program can
 * tell a newer checkpoint from a damaged one. */
enum { CKPT_VERSION = 1 }; /* of the manifest and of what layout.h and shard.h put into the files */

#define MANIFEST_NAME "manifest.json"

typedef struct ckpt_file {
    char name[24]; /* shard-00000.h5 */
    int64_t bytes;
    XXH128_hash_t digest;
} ckpt_file;

typedef struct manifest {
    int64_t step, n_files, n_tensors;
    ckpt_file *file;
    ckpt_tensor *tensor;
    int64_t *file_of;      /* [n_tensors] */
    XXH128_hash_t *digest; /* [n_tensors] of a tensor's elements, little-endian */
    json_t *state;
} manifest;

void manifest_free(manifest *m); /* and all that it points to */
void manifest_file_name(int64_t file, char name[24]);

/* The text to write (mem_free). */
char *manifest_text(const manifest *m, size_t *bytes);
/* Checks and reads a manifest's text; `path` is for messages.  EXIT_CORRUPT where it is damaged, EXIT_USAGE
 * where a newer program wrote it. */
int manifest_parse(manifest *m, const char *text, size_t bytes, const char *path, error *e);
/* Reads directory/manifest.json as text (mem_free), or parses it too. */
int manifest_read_text(const char *directory, char **text, size_t *bytes, error *e);
int manifest_load(manifest *m, const char *directory, error *e);

/* Of an open checkpoint; borrowed. */
const manifest *ckpt_manifest(const ckpt *k);

#endif
