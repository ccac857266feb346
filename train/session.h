/* What every command that runs a model opens, in order: ranks, config, tokenizer, token files, state. */
#ifndef CARACAL_TRAIN_SESSION_H
#define CARACAL_TRAIN_SESSION_H

#include "data/tokenizer.h"
#include "train/state.h"

typedef struct session {
    comm *world;
    config c;
    tokenizer *tokenizer;
    loader *train, *valid; /* NULL when not asked for; valid also when no source has held-out text */
    json_t *inputs;        /* what was read, as a checkpoint records it (inputs.h) */
    state s;
    int opened; /* how far session_open came */
    int owns_world;
} session;

/* Which token files; without SESSION_TRAIN the state is the model alone. */
enum { SESSION_TRAIN = 1, SESSION_VALID = 2 };

/* Reads the config of the run that a checkpoint belongs to, with overrides, and opens everything; on an error
 * rank 0 prints it, all ranks return its code, and what was opened is closed again.  Weights are zero. */
int session_open(session *x, const char *ckpt, int overrides, char **override, int files, error *e);
/* The same with a config on the ranks of `world`, which stays the caller's; nothing is printed. */
int session_open_on(session *x, comm *world, const char *config_path, int overrides, char **override,
                    int files, error *e);
void session_close(session *x);

/* Prints "caracal: ..." on rank 0 and returns the code. */
int session_report(const session *x, const error *e);

/* Opens the checkpoint at `path`: a step-N directory, or a directory of them or a run directory: the newest
 * that verifies.  Collective. */
int session_checkpoint(session *x, const char *path, ckpt **out, error *e);
/* The config.yaml of the run that such a path belongs to; EXIT_USAGE where it is none (ckpt_expected). */
int session_config_of(const char *ckpt, char *path, size_t size, error *e);

#endif
