/* One YAML file, read through one table of keys (train/config_table.c): section, name, type, range, default,
 * and whether the key decides numbers.  The same table serves the file, the command line, error messages, the
 * resolved config.yaml and the digest that a resume checks. */
#ifndef CARACAL_TRAIN_CONFIG_H
#define CARACAL_TRAIN_CONFIG_H

#include <stdio.h>

#include "ckpt/ckpt.h"
#include "data/loader.h"
#include "kernels/kernels.h"
#include "launch/mesh.h"
#include "model/config.h"
#include "optim/config.h"
#include "optim/transfer.h"

enum on_nonfinite { NONFINITE_STOP, NONFINITE_SKIP };

typedef struct train_config {
    int64_t steps, seed, seq_len, micro_batches, micro_batch_size;
    int64_t log_every, eval_every, eval_samples; /* eval_samples: per source */
    int on_nonfinite;
} train_config;

typedef struct metrics_config {
    int64_t digest_every; /* steps between digests of all parameters; 0: never */
    int tensorboard;      /* event files beside the .jsonl */
} metrics_config;

enum on_corruption { CORRUPTION_STOP, CORRUPTION_WARN };

typedef struct sdc_config {
    int64_t interval; /* steps between checks of arithmetic and messages; 0: no checks, not even of memory */
    int on_corruption;
} sdc_config;

enum on_spike { SPIKE_OFF, SPIKE_WARN, SPIKE_ROLLBACK };

enum { SPIKE_MAX_WINDOW = 1000 };

typedef struct spike_config {
    int on_spike;
    int64_t window;                  /* steps of the running mean and deviation */
    double loss_factor, grad_factor; /* deviations above the mean that make a spike; 0: not watched */
    int64_t max_rollbacks;           /* from the same step */
} spike_config;

typedef struct config {
    model_config model;
    init_config init;
    router_config router;
    loss_config loss;
    optim_config optim;
    transfer_config transfer;
    train_config train;
    data_config data;
    parallel_config parallel;
    checkpoint_config checkpoint;
    metrics_config metrics;
    sdc_config sdc;
    spike_config spike;
    kernels_config kernels; /* `device`, `isa`; threads comes from parallel */
    char *run_dir;          /* run.dir */
    double wait_timeout;    /* seconds */
} config;

/* A duration as in the config ("90", "30m", "2h"), for the option --NAME of a command. */
int config_seconds(const char *text, const char *name, double *seconds, error *e);

/* Reads `path` and applies the overrides ("--section.key=value").  Every error names file, line, key, value
 * and what is allowed. */
int config_load(config *c, const char *path, int overrides, char **override, error *e);
void config_free(config *c);
/* Writes the resolved config as YAML: config_load of the output gives the same config. */
int config_write(const config *c, FILE *out);
/* The same as DIRECTORY/config.yaml, whole or not at all. */
int config_save(const config *c, const char *directory, error *e);
/* One line a key, for `caracal train --help`. */
void config_help(FILE *out);
/* XXH3-128 (32 hex digits and a zero) of those keys that decide numbers: not paths, rank counts, devices,
 * threads, logging or train.steps. */
void config_digest(const config *c, char hex[33]);
/* {"section.key": value text, ...} of the keys that decide numbers, in table order: stored in checkpoints so
 * that a resume can name the keys that differ. */
json_t *config_deciding(const config *c);
/* list = "KEY is X, was Y; ..." of the keys in which two of these differ, but for stages that had not begun
 * after so many steps.  A key that one of them lacks has its default there, for it is younger.  Returns
 * whether there are any. */
int config_differences(const json_t *ours, const json_t *was, int64_t steps, char *list, size_t size);
/* Names the keys in which `c` differs from the config_deciding of a checkpoint after so many steps; returns 0
 * if none.  Stages that had not begun then may differ. */
int config_compare(const config *c, const json_t *deciding, int64_t steps, error *e);

#endif
