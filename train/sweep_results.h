/* What came of the trials of a sweep: one JSON object a trial, in its own result.json and, in order of the
 * trials, in results.jsonl; the same bytes whoever ran them. */
#ifndef CARACAL_TRAIN_SWEEP_RESULTS_H
#define CARACAL_TRAIN_SWEEP_RESULTS_H

#include "train/sweep_space.h"

typedef struct sweep_result {
    int64_t trial; /* from 1 */
    double value[SWEEP_AXES];
    double loss;        /* held-out at the last step, or train where no text is held out; NaN: diverged */
    double train, held; /* held: NaN where no text is held out */
    int64_t step;       /* the last */
} sweep_result;

typedef struct sweep_results {
    char *name; /* the last part of the sweep's directory */
    int axes;
    char key[SWEEP_AXES][64];
    int64_t n;
    sweep_result *result; /* [n], in order of the trials */
} sweep_results;

/* Reads how the run of a trial (from 0) in `run_dir` ended, after train_run's 0 or EXIT_NONFINITE, and writes
 * RUN_DIR/result.json.  Training loss: the mean lm_loss of the last tenth of the steps.  *loss: as in
 * sweep_result. */
int sweep_result_save(const sweep_space *s, int64_t trial, const char *run_dir, int diverged, double *loss,
                      error *e);

/* Gathers the trials' result.json into DIR/results.jsonl. */
int sweep_results_gather(const char *dir, int64_t trials, error *e);
/* Reads DIR/results.jsonl. */
int sweep_results_read(sweep_results *r, const char *dir, error *e);
void sweep_results_free(sweep_results *r);

/* The trial with the lowest loss, NULL when all diverged. */
const sweep_result *sweep_best(const sweep_results *r);
/* All trials by loss on the console, and a word where the best value is the least or the largest one. */
void sweep_results_print(const sweep_results *r);

/* Loss over the first key as a picture, a panel for each `panel`: one sweep's directory with a curve for each
 * value of the second key, or several, parted by commas, with a curve each; TITLE= may stand before. */
int sweep_picture(const char *path, int panels, char *const *panel, error *e);

/* DIR/trial-0001 of trial 0; owned by the caller. */
char *sweep_trial_dir(const char *dir, int64_t trial);

#endif
