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
    int64_t keep;       /* the newest so many stay; 0, which no config file can say: all */
    int64_t keep_every; /* and every one whose step is a multiple of this; 0: none */
    int64_t shards;     /* files per checkpoint */
    int64_t threads;    /* of each rank that compress; at least one */
} checkpoint_config;

enum ckpt_type { CKPT_F32, CKPT_F64, CKPT_I64 };

/* A logical tensor, the same list on every rank; at least one element.  Its HDF5 dataset is "/" + name. */
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

/* ---- saving while training goes on ---- */

/* Saves the same tensors again and again, one save at a time.  What a save needs is allocated here, once: on
 * each rank the snapshot, which is as large as the tensors of the files that the rank writes (with ranks P,
 * the files r, r + P, ... of rank r), and frames for the threads that compress. */
typedef struct ckpt_saver ckpt_saver;

/* What became of a save. */
typedef struct ckpt_outcome {
    int64_t step;
    error failure;         /* code 0: step-N is complete and durable; otherwise the same on all ranks */
    error retention;       /* on rank 0: an older checkpoint could not be removed */
    double stalled;        /* seconds that the caller spent in ckpt_start and ckpt_poll, */
    double waited;         /* and in ckpt_finish; */
    double seconds;        /* and from the start to the end */
    int64_t bytes, stored; /* of the tensors, of the files */
} ckpt_outcome;

/* Every element of every tensor is given by exactly one slice of exactly one rank; slices of one rank are
 * sorted by (tensor, offset).  Everything is copied but the slices' data, which every save reads anew.
 * Collective. */
ckpt_saver *ckpt_saver_open(comm *c, const char *directory, const checkpoint_config *config,
                            const ckpt_tensor *tensors, int64_t n_tensors, const ckpt_slice *slices,
                            int64_t n_slices);
/* No save may be under way.  NULL is allowed. */
void ckpt_saver_close(ckpt_saver *s);
/* The most memory that a rank of `ranks` needs for that, in bytes. */
size_t ckpt_saver_bytes(const ckpt_tensor *tensors, int64_t n_tensors, const checkpoint_config *config,
                        int ranks);

/* Starts saving the tensors as they are now as step `step` under the directory, which is created if missing;
 * no save may be under way.  When it returns, the slices' data may change again.  `state` is the JSON object
 * of everything that is not a tensor; the manifest holds it under "state".
 *
 * Collective.  All ranks return the same code; on failure (EXIT_IO) nothing is under way. */
int ckpt_start(ckpt_saver *s, int64_t step, const json_t *state, error *e);
/* How a save that is under way comes on: call it now and then, at the same places on all ranks.  It does not
 * wait for any disk.  1: the save has ended, and *outcome says how; 0: there is none, or it is not done.
 *
 * The new step-N appears when all files are durable: on failure (EXIT_IO: full disk, permission, I/O error)
 * older checkpoints are intact and there is no new step-N.  A step-N that exists already is replaced; one
 * that does not verify is kept as step-N.damaged.  Then retention does its work.
 *
 * While a save is under way, the process may not open or read checkpoints: HDF5 belongs to the saving thread.
 */
int ckpt_poll(ckpt_saver *s, ckpt_outcome *outcome);
/* Waits until the save under way has ended; returns and fills as ckpt_poll.  Ranks wait for one another's
 * disks for as long as those take: the group's deadline does not count here. */
int ckpt_finish(ckpt_saver *s, ckpt_outcome *outcome);

/* All of the above for one save, without retention. */
int ckpt_save(comm *c, const char *directory, int64_t step, int64_t shards, const ckpt_tensor *tensors,
              int64_t n_tensors, const ckpt_slice *slices, int64_t n_slices, const json_t *state, error *e);

/* Before a run, on one rank: removes what an earlier one left unfinished, and says so on stderr.  Can
 * `directory` (created if missing) be written as a save writes, and is there room for two checkpoints of
 * these tensors, of which one that is there already counts as one?  EXIT_IO names the directory, what is
 * needed, what is free, and the difference. */
int ckpt_preflight(const char *directory, const ckpt_tensor *tensors, int64_t n_tensors, error *e);

/* Retention, after step `saved` was saved: removes complete checkpoints older than it that the config does
 * not keep.  Rank 0 only.  What stays, and is not counted: newer ones (the run went back to before them),
 * damaged ones, those of a run with another state.config_digest, links, unknown names, and every file that
 * this program did not write. */
int ckpt_retain(const char *directory, int64_t saved, const checkpoint_config *config, error *e);

/* ---- reading ---- */

/* An open checkpoint: manifest, sizes and digests of every file were verified before anything is used. */
typedef struct ckpt ckpt;

/* Opens one step-N directory.  Collective: the ranks share the work and agree.  EXIT_CORRUPT: it is damaged
 * or incomplete; EXIT_USAGE: a newer program wrote it. */
int ckpt_open(comm *c, const char *path, ckpt **out, error *e);
/* Opens the newest checkpoint under `directory` that verifies; *out = NULL and success when there is none at
 * all.  Those that do not verify are named on stderr by rank 0; when none does, that is an error.  A newer
 * program's checkpoint is an error too: an older one would only hide it.  Collective. */
int ckpt_newest(comm *c, const char *directory, ckpt **out, error *e);
void ckpt_close(ckpt *k);
/* What a path given by a user means: one checkpoint (it has a manifest), or, in a string of its own
 * (mem_free), the directory of checkpoints that a run directory has or that the path itself is. */
int ckpt_is_one(const char *path);
/* EXIT_USAGE, with what is wanted, unless the path is a step-N (whole or not), a directory of them or a run
 * directory with one. */
int ckpt_expected(const char *path, error *e);
char *ckpt_directory_of(const char *path);
/* The steps of `directory`'s checkpoints, ascending, damaged ones too (*steps: mem_free). */
int ckpt_steps(const char *directory, int64_t **steps, int64_t *n, error *e);

const char *ckpt_path(const ckpt *k);    /* borrowed */
const json_t *ckpt_state(const ckpt *k); /* borrowed */
int64_t ckpt_step(const ckpt *k);
int64_t ckpt_tensors(const ckpt *k, const ckpt_tensor **tensors); /* borrowed; returns how many */
int64_t ckpt_find(const ckpt *k, const char *name);               /* index, or -1 */
int64_t ckpt_files(const ckpt *k);                                /* how many hold its tensors */
/* Type and shape; and the digests of two tensors' elements, which the manifests hold. */
int ckpt_same_shape(const ckpt_tensor *x, const ckpt_tensor *y);
int ckpt_same_digest(const ckpt *a, int64_t i, const ckpt *b, int64_t j);
/* Reads elements into each slice (tensor = index into ckpt_tensors).  Not collective.  Verifies every chunk's
 * checksum and, where a slice is a whole tensor, its digest. */
int ckpt_read(ckpt *k, const ckpt_slice *slices, int64_t n_slices, error *e);

/* How many layers an open checkpoint has: tensors named PREFIX/model.layers.K.REST, K = 0 .. layers - 1. */
int64_t ckpt_layers(const ckpt *k);
/* Growth: saves under `directory` (created if missing), as the same step, the checkpoint with its layers
 * stacked `times` times (1..n, 1..n, ...) and everything else as it is; `state` takes the place of its state.
 * The files are those that a training run of the larger model would write.  For one process.  EXIT_USAGE: no
 * layers, or the step is there already, which stays as it is; EXIT_IO: nothing new is there. */
int ckpt_stack(const ckpt *k, const char *directory, int64_t times, int64_t shards, const json_t *state,
               error *e);

/* `caracal inspect CKPT` and `caracal verify CKPT`: argv[0] is the command's name.  Return an exit code. */
int ckpt_inspect_command(int argc, char **argv);
int ckpt_verify_command(int argc, char **argv);

#endif
