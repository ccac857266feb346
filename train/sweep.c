#include "train/sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/files.h"
#include "launch/memory.h"
#include "launch/options.h"
#include "launch/progress.h"
#include "train/config_table.h"
#include "train/console.h"
#include "train/signals.h"
#include "train/sweep_target.h"
#include "train/trainer.h"

typedef struct sweep {
    comm *world, *group; /* all ranks; those that share a trial with this one */
    const options *o;
    sweep_space space;
    config base; /* the proxy: the config without what is searched */
    const char *dir, *target, *out;
    int held; /* rank 0: what keeps other sweeps out of dir, or -1 */
    int signals;
} sweep;

/* ---- a trial's config ---- */

/* What train is given after the user's own keys: the point, and the trial's directory. */
static char **trial_overrides(const sweep *s, int64_t trial, int *n) {
    int said = s->o->overrides;
    char text[SWEEP_TEXT],
        *dir = sweep_trial_dir(s->dir, trial),
        ** override = mem_alloc((size_t)(said + SWEEP_AXES + 1) * sizeof *override, "options");
    for (*n = 0; *n < said; ++*n) override[*n] = mem_string(s->o->override[*n]);
    for (int a = 0; a < s->space.axes; a++) {
        sweep_value(&s->space, trial, a, text);
        override[(*n)++] = text_of("--%s=%s", s->space.axis[a].key->name, text);
    }
    override[(*n)++] = text_of("--run.dir=%s", dir);
    mem_free(dir);
    return override;
}

static void free_overrides(char **override, int n) {
    for (int i = 0; i < n; i++) mem_free(override[i]);
    mem_free(override);
}

static int load_trial(const sweep *s, int64_t trial, config *c, error *e) {
    int n;
    char **override = trial_overrides(s, trial, &n);
    if (config_load(c, s->o->word[0], n, override, e)) error_within(e, "trial %" PRId64, trial + 1);
    free_overrides(override, n);
    return e->code;
}

/* ---- which sweep a directory holds ---- */

/* {key: text} of everything that decides results: two sweeps with the same are the same. */
static json_t *definition(const sweep *s) {
    static const char *const also[] = {"train.steps", "train.eval_samples", "train.on_nonfinite"};
    json_t *j = config_deciding(&s->base);
    char text[64];
    for (size_t i = 0; i < sizeof also / sizeof *also; i++) {
        config_value_text(&config_keys[config_key_find(config_keys, config_key_count, also[i])], &s->base,
                          text, sizeof text);
        json_object_set_new(j, also[i], json_string(text));
    }
    for (int a = 0; a < s->space.axes; a++) {
        char name[80], *values = sweep_axis_text(&s->space.axis[a]);
        snprintf(name, sizeof name, "--over=%s", s->space.axis[a].key->name);
        json_object_del(j, s->space.axis[a].key->name);
        json_object_set_new(j, name, json_string(values));
        mem_free(values);
    }
    snprintf(text, sizeof text, "%" PRIu64, s->space.seed);
    json_object_set_new(j, "the search", json_string(s->space.random ? "random" : "grid"));
    if (s->space.random) json_object_set_new(j, "--seed", json_string(text));
    return j;
}

static int check_definition(const sweep *s, error *e) {
    json_t *ours = definition(s), *was = NULL;
    char *path = text_of("%s/sweep.json", s->dir), *text = NULL;
    size_t bytes;
    if (path_exists(path)) {
        if (!read_file(path, &text, &bytes, e)) {
            char list[1200];
            was = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
            if (was && config_differences(ours, was, INT64_MAX, list, sizeof list))
                error_set(e, EXIT_USAGE,
                          "%s: holds another sweep: %s; --run.dir=... names a directory for this one", s->dir,
                          list);
            if (!was)
                error_set(e, EXIT_CORRUPT, "%s: is not JSON; without it nobody knows which sweep this was",
                          path);
        }
    } else if (path_has(s->dir, "trial-0001")) {
        error_set(e, EXIT_USAGE, "%s: has trials, but no sweep.json to say what they are trials of", s->dir);
    } else if (path_has(s->dir, "metrics.jsonl") || path_has(s->dir, "checkpoints")) {
        error_set(e, EXIT_USAGE, "%s: is the directory of a run; a sweep needs its own: --run.dir=...",
                  s->dir);
    } else {
        text = json_dumps(ours, JSON_INDENT(1));
        if (!text) FAULT(EXIT_NO_MEMORY, "no memory for sweep.json");
        write_file(path, text, strlen(text), e);
    }
    mem_free(text);
    mem_free(path);
    json_decref(ours);
    json_decref(was);
    return e->code;
}

/* ---- who runs what: a trial is its group's who makes its claim first ---- */

static char *claim_path(const sweep *s, int64_t trial) {
    return text_of("%s/.claims/%" PRId64, s->dir, trial + 1);
}

/* Rank 0, before and after: nobody has claimed anything. */
static int clear_claims(const sweep *s, error *e) {
    char *directory = text_of("%s/.claims", s->dir);
    for (int64_t t = 0; t < s->space.trials; t++) {
        char *path = claim_path(s, t);
        if (unlink(path) && errno != ENOENT)
            error_set(e, EXIT_IO, "%s: cannot be removed: %s", path, strerror(errno));
        mem_free(path);
    }
    rmdir(directory);
    mem_free(directory);
    return e->code;
}

static int is_done(const sweep *s, int64_t trial) {
    char *dir = sweep_trial_dir(s->dir, trial);
    int done = path_has(dir, "result.json");
    mem_free(dir);
    return done;
}

/* The next trial that is neither done nor claimed, or -1.  Making a file that must be new is atomic on every
 * file system that several hosts could share. */
static int64_t claim(const sweep *s, int64_t from, error *e) {
    for (int64_t t = from; t < s->space.trials; t++) {
        if (is_done(s, t)) continue;
        char *path = claim_path(s, t);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666), why = errno;
        if (fd < 0 && why != EEXIST) error_set(e, EXIT_IO, "%s: cannot be created: %s", path, strerror(why));
        mem_free(path);
        if (fd >= 0) {
            close(fd);
            return t;
        }
        if (e->code) break;
    }
    return -1;
}

/* ---- running ---- */

/* What train would print goes to a file of the trial; returns what undo_output needs, -1: nothing done. */
static int redirect_output(const char *dir, error *e) {
    char *path = text_of("%s/console.log", dir);
    int log = make_directories(dir, e) ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    int kept = -1;
    if (log < 0 && !e->code) error_set(e, EXIT_IO, "%s: cannot be written: %s", path, strerror(errno));
    if (log >= 0) {
        fflush(stdout);
        kept = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        if (kept < 0 || dup2(log, STDOUT_FILENO) < 0)
            error_set(e, EXIT_IO, "%s: the trial's output cannot go there: %s", path, strerror(errno));
        close(log);
    }
    mem_free(path);
    return kept;
}

static void undo_output(int kept) {
    if (kept < 0) return;
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
}

static void tell(const sweep *s, int64_t trial, double loss, double seconds) {
    char text[SWEEP_TEXT], took[32];
    printf("trial %" PRId64 " of %" PRId64, trial + 1, s->space.trials);
    for (int a = 0; a < s->space.axes; a++) {
        sweep_value(&s->space, trial, a, text);
        printf("  %s %s", s->space.axis[a].key->name, text);
    }
    if (isfinite(loss)) printf("  loss %.4f", loss);
    else printf("  diverged");
    printf("  (%s)\n", progress_duration(took, seconds));
    fflush(stdout);
}

/* Trains one trial on this group's ranks, from where it stands.  0: it has its result, diverged or not. */
static int run_trial(const sweep *s, int64_t trial, error *e) {
    int first = comm_rank(s->group) == 0, n, kept = -1;
    double began = comm_clock();
    char *dir = sweep_trial_dir(s->dir, trial), ** override = trial_overrides(s, trial, &n);
    const train_job job = {.config_path = s->o->word[0],
                           .overrides = n,
                           .override = override,
                           .resume = "auto",
                           .until = INFINITY,
                           .signals = s->signals};
    if (first) kept = redirect_output(dir, e);
    int code = comm_agree(s->group, e);
    if (!code) {
        comm *ranks = comm_split(s->group, 0, comm_rank(s->group)); /* its messages count from the start */
        code = train_run(ranks, &job, e);
        comm_free(ranks);
    }
    undo_output(kept);
    if (!code || code == EXIT_NONFINITE) {
        double loss;
        e->code = 0;
        if (first && !sweep_result_save(&s->space, trial, dir, code == EXIT_NONFINITE, &loss, e))
            tell(s, trial, loss, comm_clock() - began);
        code = comm_agree(s->group, e);
    }
    if (e->code) error_within(e, "trial %" PRId64, trial + 1);
    free_overrides(override, n);
    mem_free(dir);
    return code;
}

/* Trial after trial until none is left; EXIT_REQUEUE when asked to stop. */
static int run_trials(const sweep *s, error *e) {
    int64_t next = -1;
    for (;;) {
        if (comm_rank(s->group) == 0) next = claim(s, next + 1, e);
        if (comm_agree(s->group, e)) return e->code;
        comm_broadcast(s->group, "the next trial", &next, sizeof next, 0);
        if (next < 0) return 0;
        int code = run_trial(s, next, e);
        if (code) return code;
    }
}

/* ---- before and after ---- */

/* Whatever can be wrong with any trial or the target is told before the first one runs. */
static int check_all(sweep *s, error *e) {
    if (config_load(&s->base, s->o->word[0], s->o->overrides, s->o->override, e)) return e->code;
    s->dir = s->base.run_dir;
    for (int64_t t = 0; t < s->space.trials; t++) {
        config c;
        if (load_trial(s, t, &c, e)) return e->code;
        config_free(&c);
    }
    return s->target ? sweep_target_check(s->target, &s->base, &s->space, e) : 0;
}

static int open_directory(sweep *s, error *e) {
    char *claims = text_of("%s/.claims", s->dir);
    if (!probe_directory(s->dir, e) && !hold_directory(s->dir, &s->held, e) && !check_definition(s, e) &&
        !clear_claims(s, e))
        make_directories(claims, e);
    mem_free(claims);
    return e->code;
}

static void announce(const sweep *s) {
    int64_t done = 0;
    for (int64_t t = 0; t < s->space.trials; t++) done += is_done(s, t);
    printf("sweep     %" PRId64 " trials in %s, %" PRId64 " of them done\n", s->space.trials, s->dir, done);
    for (int a = 0; a < s->space.axes; a++) {
        char *values = sweep_axis_text(&s->space.axis[a]);
        printf("over      %s: %s\n", s->space.axis[a].key->name, values);
        mem_free(values);
    }
    fflush(stdout);
}

static int write_target(const sweep *s, const sweep_result *best, error *e) {
    config c;
    char *from = sweep_trial_dir(s->dir, best->trial - 1);
    if (!load_trial(s, best->trial - 1, &c, e)) {
        if (!sweep_target_write(s->target, s->out, &c, &s->space, from, e)) printf("target    %s\n", s->out);
        config_free(&c);
    }
    mem_free(from);
    return e->code;
}

/* Rank 0, when every trial has its result. */
static int conclude(const sweep *s, error *e) {
    sweep_results r;
    char *picture = text_of("%s/sweep.svg", s->dir), *dir = mem_string(s->dir);
    if (!clear_claims(s, e) && !sweep_results_gather(s->dir, s->space.trials, e) &&
        !sweep_results_read(&r, s->dir, e)) {
        const sweep_result *best = sweep_best(&r);
        putchar('\n');
        sweep_results_print(&r);
        if (!sweep_picture(picture, 1, &dir, e))
            printf("\nresults   %s/results.jsonl, %s\n", s->dir, picture);
        if (!e->code && !best) error_set(e, EXIT_NONFINITE, "%s: every trial diverged", s->dir);
        if (!e->code && s->target) write_target(s, best, e);
        sweep_results_free(&r);
    }
    mem_free(picture);
    mem_free(dir);
    return e->code;
}

/* All ranks; e->code on any of them ends the sweep on all. */
static int run_sweep(sweep *s, int64_t ranks_per_trial, error *e) {
    int rank = comm_rank(s->world), ranks = comm_size(s->world);
    if (ranks % ranks_per_trial)
        return error_set(e, EXIT_USAGE, "--ranks-per-trial=%" PRId64 " does not divide the %d ranks",
                         ranks_per_trial, ranks);
    check_all(s, e);
    if (comm_agree(s->world, e)) return e->code;
    if (rank == 0 && !open_directory(s, e)) announce(s);
    if (comm_agree(s->world, e)) return e->code;
    s->group = comm_split(s->world, rank / (int)ranks_per_trial, rank);
    int64_t asked = run_trials(s, e) == EXIT_REQUEUE;
    comm_meet(s->world, "the end of the sweep");
    comm_free(s->group);
    if (comm_agree(s->world, e)) return e->code;
    comm_sum_i64(s->world, "asked to stop", &asked, 1);
    if (asked) {
        if (rank == 0) printf("asked to stop: the same command goes on\n");
        return EXIT_REQUEUE;
    }
    if (rank == 0) conclude(s, e);
    return comm_agree(s->world, e);
}

int sweep_command(int argc, char **argv) {
    const char *over[SWEEP_AXES], *picture = NULL;
    int axes = 0;
    int64_t trials = 0, seed = 1, ranks_per_trial = 1;
    sweep s = {.held = -1};
    const option known[] = {{"over", .text = over, .most = SWEEP_AXES, .given = &axes},
                            {"trials", .integer = &trials, .min = 1, .max = SWEEP_TRIALS},
                            {"seed", .integer = &seed, .min = 0, .max = 1e15},
                            {"ranks-per-trial", .integer = &ranks_per_trial, .min = 1, .max = 1 << 20},
                            {"target", .text = &s.target},
                            {"out", .text = &s.out},
                            {"picture", .text = &picture},
                            {0}};
    options o = {.usage = "usage: caracal sweep CONFIG --over=KEY=VALUE,VALUE,... "
                          "[--over=KEY=LOW:HIGH[:log][:POINTS] ...]\n"
                          "                     [--trials=N] [--seed=1] [--ranks-per-trial=1]\n"
                          "                     [--target=CONFIG --out=FILE] [--section.key=value ...]\n"
                          "       caracal sweep --picture=FILE.svg [TITLE=]DIR[,DIR ...] ...\n"
                          "  every point of the grid, or N random ones, as runs in run.dir; the same command "
                          "again goes on\n",
                 .known = known,
                 .min_words = 1,
                 .max_words = 16,
                 .config = 1};
    error e = {0};
    if (!options_read(&o, argc, argv)) return o.code;
    if (picture) {
        if (axes || o.overrides) return options_refuse(&o, "--picture draws sweeps that are done");
        if (sweep_picture(picture, o.words, o.word, &e)) error_print(&e);
        else printf("%s\n", picture);
        return e.code;
    }
    if (o.words > 1) return options_refuse(&o, "%s: one argument too many", o.word[1]);
    if (!s.target != !s.out) return options_refuse(&o, "--target and --out go together");
    if (sweep_space_read(&s.space, axes, over, trials, (uint64_t)seed, &e))
        return options_refuse(&o, "%s", e.text);
    unsetenv("CARACAL_TERMINAL"); /* the trials' output goes to files */
    s.o = &o;
    s.signals = signals_open(getenv("OMPI_COMM_WORLD_RANK") != NULL);
    int code = comm_open(&s.world, 600, &e);
    if (!code) {
        code = run_sweep(&s, ranks_per_trial, &e);
        if (comm_rank(s.world) == 0) error_print(&e);
        comm_close(s.world);
    }
    config_free(&s.base);
    if (s.held >= 0) close(s.held);
    if (s.signals >= 0) close(s.signals);
    return code;
}
