/* How a checkpoint comes into being and goes away on disk, so that a directory named step-N with a manifest
 * is always whole, wherever a process or a machine stops:
 *
 *   files into step-N.tmp/, each synced; the directory synced; the manifest, under a temporary name, synced
 * and renamed; step-N.tmp renamed to step-N; the parent synced.
 *
 * One process (rank 0) calls these.
 */
#ifndef CARACAL_CKPT_COMMIT_H
#define CARACAL_CKPT_COMMIT_H

#include <stddef.h>
#include <stdint.h>

#include "launch/error.h"

/* DIRECTORY/step-00000200 + suffix (mem_free).  The suffix of a checkpoint is "", of an unfinished one
 * ".tmp". */
char *step_path(const char *directory, int64_t step, const char *suffix);
/* The newest step below `bound` that has such a directory, -1 if there is none (or no `directory`). */
int step_below(const char *directory, const char *suffix, int64_t bound, int64_t *step, error *e);

/* Brings back or removes what a save that was cut off between two renames left as step-N.replaced (or
 * step-N.replaced-2, ..., where that name was taken), and says so on stderr: where there is no step-N, it was
 * the intact checkpoint of that step.  Before checkpoints are
 * read, by whoever will write here. */
int commit_mend(const char *directory, error *e);
/* Removes what saves and removals that were cut off left as step-N.tmp; tell: and says so on stderr. */
int commit_clean(const char *directory, int tell, error *e);
/* Renames every step-N newer than `step` to step-N.aside, or .aside-2 and so on, and says so on stderr: a run
 * that begins anew after `step` is not to be taken up from them.  The newest goes first: cut off, it leaves
 * what they were checkpoints of one that ends earlier. */
int commit_set_aside(const char *directory, int64_t step, error *e);
/* How many step-N.aside and step-N.damaged there are, and their bytes: nothing removes them but the user. */
int commit_kept_aside(const char *directory, int64_t *n, int64_t *bytes, error *e);
/* Makes an empty step-N.tmp, after commit_clean. */
int commit_begin(const char *directory, int64_t step, error *e);
/* Writes the manifest, `text`, and renames step-N.tmp to step-N.  A step-N that exists is left as
 * it is when it is intact and has this very manifest; otherwise it is renamed aside first.  When it was
 * intact, it is removed at the end; when not, it stays for inspection as step-N.damaged and stderr says so.
 * On failure there is no new step-N. */
int commit_finish(const char *directory, int64_t step, const char *text, size_t bytes, int old_is_intact,
                  error *e);
/* Removes step-N.tmp, as far as that is possible. */
void commit_abandon(const char *directory, int64_t step);
/* Removes a complete checkpoint: it is gone at once, under its name, whatever happens halfway.  A file that
 * this program did not write stays, in step-N. */
int commit_remove(const char *directory, int64_t step, error *e);

#endif
