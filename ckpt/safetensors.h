/* The safetensors format: an 8-byte length, a JSON header, raw little-endian data. */
#ifndef CARACAL_CKPT_SAFETENSORS_H
#define CARACAL_CKPT_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "launch/error.h"

typedef struct safetensor {
    char *name;
    char dtype[8]; /* "F32", "F64", "BF16", "F16", "I64", ... */
    int rank;
    int64_t shape[8];
    int64_t count;             /* elements */
    const unsigned char *data; /* in the mapping */
} safetensor;

typedef struct safetensors {
    void *map;
    size_t map_bytes;
    int64_t n;
    safetensor *tensor; /* sorted by name */
} safetensors;

/* Maps and checks a file: header length against the file, offsets inside the data, no overlaps, sizes that
 * fit shapes.  Every damage is an error that names the file and the tensor. */
int safetensors_open(safetensors *s, const char *path, error *e);
void safetensors_close(safetensors *s);
const safetensor *safetensors_find(const safetensors *s, const char *name); /* NULL: not there */
/* Elements offset .. offset+count as float32 (from F64, F32, BF16 or F16). */
int safetensors_read_f32(const safetensor *t, int64_t offset, int64_t count, float *out, error *e);

/* Writes a new file through a temporary name: all tensors are announced first (names differ, dtype F32 or
 * BF16), then given in order. */
typedef struct safetensors_writer safetensors_writer;
typedef struct safetensor_spec {
    const char *name, *dtype;
    int rank;
    int64_t shape[8];
} safetensor_spec;
int safetensors_create(safetensors_writer **w, const char *path, const safetensor_spec *specs, int64_t n,
                       error *e);
/* Appends float32 values of the next tensor in order (in pieces if you like), converted to its dtype (F32 or
 * BF16, round to nearest even). */
int safetensors_append(safetensors_writer *w, const float *values, int64_t count, error *e);
/* Completes the file (fsync, rename) and releases the writer.  Where abandon != 0, not everything was given
 * (an error) or something fails, the temporary file is removed and `path` stays as it was. */
int safetensors_finish(safetensors_writer *w, int abandon, error *e);

#endif
