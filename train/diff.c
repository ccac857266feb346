#include "train/diff.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "ckpt/manifest.h"
#include "launch/files.h"
#include "launch/memory.h"
#include "launch/options.h"
#include "train/config.h"
#include "train/diff_metrics.h"
#include "train/diff_parts.h"

/* ---- what A and B are ---- */

/* Is the path's last part step-...? */
static int named_step(const char *path) {
    const char *slash = strrchr(path, '/');
    return !strncmp(slash ? slash + 1 : path, "step-", 5);
}

static int open_checkpoint(side *s, error *e) {
    manifest m;
    if (manifest_load(&m, s->path, e)) return e->code;
    s->kind = SIDE_CHECKPOINT;
    s->step = mem_alloc(sizeof *s->step, "a step");
    s->step[s->steps++] = m.step;
    manifest_free(&m);
    return 0;
}

static int side_open(side *s, char *path, error *e) {
    struct stat info;
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--) path[n - 1] = 0;
    s->path = path;
    if (stat(path, &info) || !S_ISDIR(info.st_mode))
        return error_set(e, EXIT_USAGE, "%s: there is no such directory; a run or a checkpoint is wanted",
                         path);
    if (ckpt_is_one(path) || named_step(path)) return open_checkpoint(s, e);
    int run =
        path_has(path, "config.yaml") || path_has(path, "metrics.jsonl") || path_has(path, "checkpoints");
    s->kind = run ? SIDE_RUN : SIDE_CHECKPOINTS;
    snprintf(s->directory, sizeof s->directory, "%s%s", path, run ? "/checkpoints" : "");
    if (ckpt_steps(s->directory, &s->step, &s->steps, e)) return e->code;
    if (run || s->steps) return 0;
    return error_set(e, EXIT_USAGE,
                     "%s: is neither a run directory nor a checkpoint nor a directory of checkpoints", path);
}

/* ---- two runs ---- */

/* A config that cannot be read is told and passed over: the checkpoints have theirs. */
static json_t *run_config(const side *s) {
    char path[4200];
    config c;
    error e = {0};
    snprintf(path, sizeof path, "%s/config.yaml", s->path);
    if (config_load(&c, path, 0, NULL, &e)) {
        printf("config          not compared: %s\n", e.text);
        return NULL;
    }
    json_t *deciding = config_deciding(&c);
    config_free(&c);
    return deciding;
}

static void compare_configs(comparison *c) {
    json_t *a = run_config(&c->side[0]), *b = a ? run_config(&c->side[1]) : NULL;
    if (b) diff_tell_config(c, a, b);
    json_decref(a);
    json_decref(b);
}

/* The step before the parting may have no checkpoint: a run is a function of what a checkpoint holds, so it
 * can be had again. */
static void tell_rerun(const comparison *c) {
    int64_t step = c->parted >= 0 ? c->parted : c->ckpt_parted, from = c->ckpt_equal > 0 ? c->ckpt_equal : 0;
    int seen = c->ckpt_parted >= 0 && (c->ckpt_parted < step || (c->ckpt_parted == step && from == step - 1));
    if (step < 0 || seen) return;
    printf("\nTo see every tensor of steps %lld to %lld, run that part again with a checkpoint at each step",
           (long long)from + 1, (long long)step);
    if (c->ckpt_equal < 0) printf(" (from --init-from, if the runs had one)");
    printf(
        ".\nWhat a rerun with the same program and data gives is right: the run that it differs from had a "
        "fault.\n");
    for (int i = 0; i < 2; i++) {
        const side *s = &c->side[i];
        char *resume = c->ckpt_equal < 0 ? mem_string("none") : diff_checkpoint_path(s, c->ckpt_equal);
        printf("  caracal train %s/config.yaml --run.dir=%s-again --resume=%s --train.steps=%lld", s->path,
               s->path, resume, (long long)step);
        printf(" --checkpoint.every=1 --checkpoint.keep=%lld\n", (long long)(step - from));
        printf("  caracal diff %s %s-again\n", s->path, s->path);
        mem_free(resume);
    }
}

static int diff_runs(comparison *c, error *e) {
    metrics_difference m;
    compare_configs(c);
    int same_config = !c->different;
    if (metrics_compare(&m, c->side[0].path, c->side[1].path, e)) return e->code;
    metrics_tell(&m);
    c->parted = m.parted;
    c->different |= c->parted >= 0 || m.only[0] || m.only[1];
    int64_t rows = m.rows[0] + m.rows[1];
    metrics_difference_free(&m);
    if (diff_checkpoints(c, e)) return e->code;
    if (!rows && !c->compared)
        return error_set(e, EXIT_USAGE, "%s and %s have no step and no checkpoint to compare",
                         c->side[0].path, c->side[1].path);
    if (same_config) tell_rerun(c);
    return 0;
}

/* ---- the command ---- */

static int diff(comparison *c, char *const path[2], error *e) {
    if (side_open(&c->side[0], path[0], e) || side_open(&c->side[1], path[1], e)) return e->code;
    for (int i = 0; i < 2; i++) printf("%c               %s\n", "AB"[i], path[i]);
    if (c->side[0].kind == SIDE_RUN && c->side[1].kind == SIDE_RUN) return diff_runs(c, e);
    if (diff_checkpoints(c, e)) return e->code;
    if (!c->compared)
        return error_set(e, EXIT_USAGE, "%s and %s have no checkpoint of the same step", path[0], path[1]);
    return 0;
}

int diff_command(int argc, char **argv) {
    options o = {.usage = "usage: caracal diff A B\n"
                          "A and B: run directories, checkpoints (step-N), or directories of checkpoints.\n"
                          "Exit code 0: identical; 1: different.\n",
                 .min_words = 2,
                 .max_words = 2};
    if (!options_read(&o, argc, argv)) return o.code;
    comparison c = {.parted = -1, .ckpt_equal = -1, .ckpt_parted = -1};
    error e = {0};
    if (!comm_open(&c.world, 600, &e)) {
        if (comm_size(c.world) > 1) error_set(&e, EXIT_USAGE, "diff is one process: start it without mpirun");
        else diff(&c, o.word, &e);
        comm_close(c.world);
    }
    for (int i = 0; i < 2; i++) mem_free(c.side[i].step);
    fflush(stdout);
    if (e.code) error_print(&e);
    else printf("%s\n", c.different ? "different" : "identical");
    return e.code ? e.code : c.different ? EXIT_DIFFERENT : 0;
}
