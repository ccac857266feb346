#include <sys/stat.h>

#include "ckpt/commit.h"
#include "ckpt/manifest.h"
#include "launch/files.h"
#include "launch/memory.h"

/* The manifest of step-N, when that is a checkpoint which this program completed under its own name, with
 * every file of its size: one that was cut short must not count as one that is kept.  Not through a link:
 * what lies behind it is somebody else's. */
static int complete(manifest *m, const char *directory, int64_t step) {
    char *path = step_path(directory, step, "");
    error why = {0};
    struct stat s;
    int ok = lstat(path, &s) == 0 && S_ISDIR(s.st_mode) && !manifest_load(m, path, &why);
    if (ok && m->step != step) ok = 0;
    for (int64_t i = 0; ok && i < m->n_files; i++) {
        char *file = text_of("%s/%s", path, m->file[i].name);
        ok = stat(file, &s) == 0 && s.st_size == m->file[i].bytes;
        mem_free(file);
    }
    if (!ok) manifest_free(m);
    mem_free(path);
    return ok;
}

/* Two checkpoints are of one run when the same config made them. */
static int same_run(const manifest *a, const manifest *b) {
    json_t *x = json_object_get(a->state, "config_digest"), *y = json_object_get(b->state, "config_digest");
    return x == y || json_equal(x, y);
}

int ckpt_retain(const char *directory, int64_t saved, const checkpoint_config *config, error *e) {
    manifest newest = {0}, m = {0};
    int64_t kept = 1;
    e->code = 0;
    REQUIRE(config->keep >= 1);
    if (!complete(&newest, directory, saved)) return 0; /* then the older ones are needed */
    for (int64_t step = saved;;) {
        error why = {0};
        if (step_below(directory, "", step, &step, e) || step < 0) break;
        if (!complete(&m, directory, step)) continue;
        int ours = same_run(&m, &newest);
        manifest_free(&m);
        if (!ours || ++kept <= config->keep) continue;
        if (config->keep_every && step % config->keep_every == 0) continue;
        if (commit_remove(directory, step, &why) && !e->code) *e = why;
    }
    manifest_free(&newest);
    return e->code;
}
