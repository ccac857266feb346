/* Checkpoints: named logical tensors in HDF5 files, and a manifest that alone says what is complete.
 * This room knows names, numbers and bytes, and nothing of the model.
 *
 *   DIR/step-00000200/manifest.json, shard-00000.h5, ...
 *
 * Which tensor lies in which file, and every byte of every file, is independent of the number of ranks.
 */
#ifndef CARACAL_CKPT_CKPT_H
#define CARACAL_CKPT_CKPT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "launch/comm.h"

typedef struct checkpoint_config {
    int64_t every;      /* steps between checkpoints; 0: only at the end */
    int64_t keep;       /* the newest so many stay */
    int64_t keep_every; /* and every one whose step is a multiple of this; 0: none */
    int64_t shards;     /* files per checkpoint */
} checkpoint_config;

enum ckpt_type { CKPT_F32, CKPT_F64, CKPT_I64 };

/* A logical tensor, the same list on every rank.  Its HDF5 dataset is "/" + name. */
typedef struct ckpt_tensor {
    char *name; /* e.g. "weights/model.layers.0.mlp.experts.3.up_proj.weight", "adam_m/..." */
    int type;   /* enum ckpt_type */
    int rank;   /* 1..4 dimensions */
    int64_t shape[4];
} ckpt_tensor;

/* Elements offset .. offset + count of tensor `tensor`, in this rank's memory. */
typedef struct ckpt_slice {
    int64_t tensor, offset, count;
    void *data;
} ckpt_slice;

/* Saves step `step` under `directory` (created if missing).  Every element of every tensor is given by exactly
 * one slice of exactly one rank; slices of one rank are sorted by (tensor, offset).  `state` (rank 0's counts)
 * is the JSON object of everything that is not a tensor; it is stored in the manifest under "state".
 * Collective.  All ranks return the same code; on failure older checkpoints are intact and no complete-looking
 * step-N exists.  `expected_damage_is_renamed`: an existing step-N that does not verify is renamed aside. */
int ckpt_save(comm *c, const char *directory, int64_t step, int64_t shards, const ckpt_tensor *tensors,
              int64_t n_tensors, const ckpt_slice *slices, int64_t n_slices, const json_t *state, error *e);

/* Retention: deletes complete checkpoints of `directory` that config says to drop, after a successful save.
 * Rank 0 only.  Deletes nothing that this program did not write. */
int ckpt_retain(const char *directory, const checkpoint_config *config, error *e);

/* An opened checkpoint: its manifest, verified (sizes and digests of every file) before anything is used. */
typedef struct ckpt ckpt;

/* Finds the newest checkpoint under `directory` that verifies: *path = its malloc'ed path (mem_free), NULL if there is none.
 * Those that do not verify are named on stderr by rank 0.  Collective. */
int ckpt_newest(comm *c, const char *directory, char **path, error *e);
/* Opens and verifies one step-N directory.  Collective: ranks share the work and agree. */
int ckpt_open(comm *c, const char *path, ckpt **out, error *e);
void ckpt_close(ckpt *k);
const json_t *ckpt_state(const ckpt *k); /* borrowed */
int64_t ckpt_step(const ckpt *k);
int64_t ckpt_tensors(const ckpt *k, const ckpt_tensor **tensors); /* borrowed; returns how many */
int64_t ckpt_find(const ckpt *k, const char *name);               /* index, or -1 */
/* Reads elements into each slice (tensor = index into ckpt_tensors).  Not collective.  Verifies each chunk and, where a whole
 * tensor is read, its digest. */
int ckpt_read(ckpt *k, const ckpt_slice *slices, int64_t n_slices, error *e);

/* `caracal inspect CKPT` and `caracal verify CKPT`: argv[0] is the command's name.  Return an exit code. */
int ckpt_inspect_command(int argc, char **argv);
int ckpt_verify_command(int argc, char **argv);

#endif
