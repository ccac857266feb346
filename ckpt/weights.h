/* A model's weights as other programs keep them: DIR/model.safetensors, or the files that
 * DIR/model.safetensors.index.json names.
 */
#ifndef CARACAL_CKPT_WEIGHTS_H
#define CARACAL_CKPT_WEIGHTS_H

#include "ckpt/safetensors.h"

typedef struct weights {
    int64_t files, tensors;
    safetensors *file;
    const safetensor **tensor; /* of all files, sorted by name */
} weights;

/* Maps all files and checks them, and that index and files say the same.  Every damage is an error that names
 * the file and the tensor; what was opened is closed again. */
int weights_open(weights *w, const char *directory, error *e);
void weights_close(weights *w);
const safetensor *weights_find(const weights *w, const char *name); /* NULL: not there */

/* Writes such files: model.safetensors, or model-00001-of-0000N.safetensors and the index where they would be
 * larger than max_bytes (a tensor that is larger on its own has a file of its own). */
typedef struct weights_writer weights_writer;
/* All tensors are announced first, as in safetensors.h; the list is borrowed until the end. */
int weights_create(weights_writer **out, const char *directory, const safetensor_spec *specs, int64_t n,
                   int64_t max_bytes, error *e);
/* The next values, in order; a call stays inside one tensor. */
int weights_append(weights_writer *w, const float *values, int64_t count, error *e);
/* Completes the files and the index and releases the writer.  Where abandon != 0 or something fails, files
 * that were complete before stay. */
int weights_finish(weights_writer *w, int abandon, error *e);
int64_t weights_files(const weights_writer *w);

#endif
