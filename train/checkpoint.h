/* State to checkpoint and back.  A checkpoint holds everything that the next step reads. */
#ifndef CARACAL_TRAIN_CHECKPOINT_H
#define CARACAL_TRAIN_CHECKPOINT_H

#include "train/state.h"

/* Before the first step, on rank 0: can checkpoints be written under run.dir, and is there room for them? */
int checkpoint_preflight(const state *s, error *e);

/* What saves this state under run.dir/checkpoints, as often as asked, as checkpoint.* say.  Collective. */
ckpt_saver *checkpoint_saver(const state *s);
/* The memory of that on the rank of `ranks` that needs most; threads: what checkpoint.threads = auto means.
 */
size_t checkpoint_saver_bytes(const config *c, const params *p, int ranks, int threads);
/* Starts saving the state after step s->step (ckpt_start); ckpt_poll or ckpt_finish tells how it ended.
 * inputs: what the run reads (inputs_record).  Collective. */
int checkpoint_start(ckpt_saver *saver, const state *s, const json_t *inputs, error *e);

/* Loads a checkpoint into a created state: weights, moments, biases, controller history, counters.  An error
 * that names the keys or the file when the config's deciding keys or what the run reads (`inputs`) differ
 * from those of the checkpoint.  Collective. */
int checkpoint_resume(state *s, ckpt *k, const json_t *inputs, error *e);

/* The state of an open checkpoint (ckpt_state) as that of one made with config c: the counters stay, and
 * which text it was trained on is open.  A new reference. */
json_t *checkpoint_state_with(const json_t *about, const config *c);

/* Takes only the model from a checkpoint (weights and router biases); the optimizer and all counters stay
 * fresh.  Shapes must match; anything else may differ.  Collective. */
int checkpoint_init_from(state *s, ckpt *k, error *e);

/* For those who make a checkpoint without a state: its tensors, in the order in which they are stored, and
 * everything that is not a tensor where no step was done yet. */
ckpt_tensor *checkpoint_tensors(const params *p, int64_t *n);
void checkpoint_tensors_free(ckpt_tensor *tensor, int64_t n);
json_t *checkpoint_describe_fresh(const config *c, const json_t *inputs);

#endif
