#include "ckpt/commit.h"
#include "ckpt/manifest.h"
#include "launch/memory.h"

/* Is step-N a checkpoint that this program completed, under its own name? */
static int is_complete(const char *directory, int64_t step) {
    char *path = step_path(directory, step, "");
    manifest m;
    error why = {0};
    int ok = !manifest_load(&m, path, &why) && m.step == step;
    if (!why.code) manifest_free(&m);
    mem_free(path);
    return ok;
}

int ckpt_retain(const char *directory, const checkpoint_config *config, error *e) {
    int64_t step = INT64_MAX, kept = 0;
    REQUIRE(config->keep >= 1);
    for (;;) {
        if (step_below(directory, "", step, &step, e)) return e->code;
        if (step < 0) return 0;
        if (!is_complete(directory, step)) continue;
        if (++kept <= config->keep) continue;
        if (config->keep_every && step % config->keep_every == 0) continue;
        if (commit_remove(directory, step, e)) return e->code;
    }
}
