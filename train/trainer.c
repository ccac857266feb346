#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "ckpt/commit.h"
#include "launch/files.h"
#include "launch/memory.h"
#include "launch/options.h"
#include "train/hosts.h"
#include "train/signals.h"
#include "train/stages.h"
#include "train/trainer_parts.h"

/* One run at a time writes to a directory.  What was killed may need a moment to be gone.  Rank 0. */
static int hold_run(trainer *t, error *e) {
    return t->held >= 0 ? 0 : hold_directory(t->x.c.run_dir, &t->held, e);
}

/* ---- start ---- */

static int mend_checkpoints(const char *run_dir, error *e) {
    char *directory = text_of("%s/checkpoints", run_dir);
    int code = commit_mend(directory, e);
    mem_free(directory);
    return code;
}

/* Begun anew, or from an older checkpoint: what `auto` would find afterwards is of another run than this. */
static int set_aside_checkpoints(const trainer *t, error *e) {
    if (!strcmp(t->from.resume, "auto")) return 0;
    char *directory = text_of("%s/checkpoints", t->x.c.run_dir);
    int code = commit_set_aside(directory, t->x.s.step, e);
    mem_free(directory);
    return code;
}

/* What is missing is missed before the first step, and before an older run's files are touched. */
static int open_records(trainer *t, error *e) {
    const config *c = &t->x.c;
    const state *s = &t->x.s;
    if (s->mesh.rank == 0 && !probe_directory(c->run_dir, e)) hold_run(t, e);
    if (comm_agree(t->x.world, e) || hosts_share(t->x.world, s->host, c->run_dir, e)) return e->code;
    if (s->mesh.rank == 0 && !checkpoint_preflight(s, e) && !set_aside_checkpoints(t, e) &&
        !config_save(c, c->run_dir, e))
        metrics_open(&t->out, c->run_dir, c->metrics.tensorboard, s->step, e);
    return comm_agree(t->x.world, e);
}

/* What takes up room under names that nothing loads or removes.  Rank 0. */
static void tell_kept_aside(const trainer *t) {
    char *directory = text_of("%s/checkpoints", t->x.c.run_dir), size[32];
    int64_t n, bytes;
    error e = {0};
    if (commit_kept_aside(directory, &n, &bytes, &e)) error_print(&e);
    else if (n)
        printf(
            "aside     %lld checkpoint%s, %s, in %s/step-*.{aside,damaged}*: nothing removes them but you\n",
            (long long)n, n == 1 ? "" : "s", console_bytes(size, (double)bytes), directory);
    mem_free(directory);
}

static int open_trainer(trainer *t, error *e) {
    session *x = &t->x;
    int64_t row = stages_row(&x->c), turns = stages_largest(&x->c).micro_batches / x->s.mesh.ranks;
    int there = x->s.mesh.rank == 0 && path_exists(x->c.run_dir);
    if (there && !hold_run(t, e)) mend_checkpoints(x->c.run_dir, e); /* before they are read */
    if (comm_agree(x->world, e)) return e->code;
    if (comm_max_i64(x->world, "run directory", there) && hosts_share(x->world, x->s.host, x->c.run_dir, e))
        return e->code;
    if (start_state(x, &t->from, e) || open_records(t, e)) return e->code;
    sdc_open(&x->s, e);
    if (comm_agree(x->world, e)) return e->code;
    step_result_create(&t->r, &x->c.model);
    t->saver = checkpoint_saver(&x->s);
    t->tokens = mem_alloc((size_t)(turns * row) * sizeof *t->tokens, "tokens");
    t->eval_tokens = mem_alloc((size_t)row * sizeof *t->eval_tokens, "tokens");
    t->held_out = mem_alloc((size_t)(x->c.data.sources + 1) * sizeof *t->held_out, "held-out losses");
    /* until a save was timed: 12 bytes a parameter, 100 MB/s */
    t->deadline.save = 12 * params_total(&x->c.model) / 1e8;
    int64_t peak = (int64_t)(kernels_measure_own_peaks(&x->s.c.kernels) / 1e6);
    comm_sum_i64(x->world, "measured peak", &peak, 1);
    t->peak_flops = (double)peak * 1e6;
    return 0;
}

static void close_trainer(trainer *t) {
    if (t->held >= 0) close(t->held);
    ckpt_saver_close(t->saver);
    metrics_close(&t->out);
    step_result_destroy(&t->r);
    mem_free(t->tokens);
    mem_free(t->eval_tokens);
    mem_free(t->held_out);
    sdc_close(&t->x.s);
    session_close(&t->x);
}

/* ---- one step and what follows it ---- */

/* The coming step may be the first of a stage. */
static void enter_step(trainer *t) {
    state *s = &t->x.s;
    int64_t before = s->stage;
    state_enter(s, s->step);
    spikes_enter(&s->spikes, s->run, s->step);
    s->position = spikes_position(&s->spikes, s->position);
    if (s->stage == before || s->mesh.rank) return;
    char *text = console_stage(s->run, s->stage);
    console_line(&t->console, "%s", text);
    mem_free(text);
}

/* This rank's micro-batches of the coming step: sample (v, b) has position + v * micro_batch_size + b. */
static void load_tokens(trainer *t) {
    const state *s = &t->x.s;
    const train_config *c = &s->c.train;
    int32_t *to = t->tokens;
    for (int64_t turn = 0; turn < s->mesh.turns; turn++) {
        int64_t v = mesh_micro_batch(&s->mesh, turn, s->mesh.rank);
        for (int64_t b = 0; b < c->micro_batch_size; b++, to += c->seq_len + 2)
            loader_sample(t->x.train, s->stage, s->position + v * c->micro_batch_size + b, to);
    }
}

static int validates(const trainer *t, int64_t step) {
    const train_config *c = &t->x.c.train;
    return t->x.valid && (step == c->steps || (c->eval_every && step % c->eval_every == 0));
}

/* Asked to stop by a signal, or by --exit-after? */
static int stop_wanted(trainer *t) {
    const state *s = &t->x.s;
    if (signals_requested(t->signals)) return 1;
    double coming = validates(t, s->step) ? t->deadline.validation : 0; /* this step's own is still to come */
    if (s->mesh.rank || !deadline_reached(&t->deadline, comm_clock() + coming, validates(t, s->step + 1)))
        return 0;
    t->timed_out = 1;
    console_line(&t->console, "stopping: --exit-after leaves no time for another step and a checkpoint");
    return 1;
}

/* What the ranks tell one another after a step: 1 if any was asked to stop. */
static int gather_timing(trainer *t, double seconds, double exposed, step_timing *timing) {
    const state *s = &t->x.s;
    const train_config *c = &s->c.train;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    deadline_step(&t->deadline, seconds);
    int64_t told[3] = {stop_wanted(t), usage.ru_maxrss * 1024, (int64_t)(exposed * 1e9)};
    comm_sum_i64(s->mesh.world, "step boundary", told, 3);
    *timing = (step_timing){.step_seconds = seconds, .peak_memory = told[1]};
    timing->tokens_per_second = (double)(c->micro_batches * c->micro_batch_size * c->seq_len) / seconds;
    timing->mfu = timing->tokens_per_second * metrics_flops_per_token(&s->c) / t->peak_flops;
    timing->comm_exposed_seconds = (double)told[2] * 1e-9 / s->mesh.ranks;
    return told[0] > 0;
}

static void write_records(trainer *t, const step_timing *timing) {
    state *s = &t->x.s;
    int64_t every = s->c.metrics.digest_every;
    uint64_t digests[3];
    int with_digests = every && (s->step % every == 0 || s->step == s->c.train.steps);
    for (int i = 2; with_digests && i >= 0; i--) digests[i] = optimizer_digest(&s->optimizer, i);
    if (s->mesh.rank == 0) {
        metrics_step(&t->out, s, &t->r, with_digests ? digests : NULL);
        console_epsilon(&t->console, s, &t->r);
        console_grad_ratio(&t->console, s, &t->r);
        console_step(&t->console, s, &t->r, timing);
    }
}

static void validate(trainer *t) {
    state *s = &t->x.s;
    double began = comm_clock();
    evaluate(s, t->x.valid, t->x.tokenizer, s->c.train.eval_samples, t->eval_tokens, t->held_out, 0);
    t->deadline.validation = comm_clock() - began;
    if (s->mesh.rank == 0) {
        console_eval(&t->console, s, t->held_out, t->deadline.validation);
        metrics_eval(&t->out, s->step, &s->c.data, t->held_out);
    }
}

/* The report's last word. */
static void report(trainer *t, int code, const error *e) {
    int state = !code ? RUN_FINISHED : code == EXIT_REQUEUE ? RUN_STOPPED : RUN_FAILED;
    const char *why = state == RUN_FINISHED ? NULL
                      : state == RUN_FAILED ? e->text
                      : t->timed_out        ? "By --exit-after; the same command goes on from here."
                                            : "By a signal; the same command goes on from here.";
    if (t->x.s.mesh.rank || live_close(t->live, t->x.s.step, state, why)) return;
    console_line(&t->console, "report    %s/report.html", t->x.c.run_dir);
}

static int nonfinite(trainer *t, error *e) {
    const state *s = &t->x.s;
    if (s->c.train.on_nonfinite == NONFINITE_SKIP) {
        if (s->mesh.rank == 0)
            console_line(&t->console, "step %lld skipped: loss %g, gradient norm %g", (long long)s->step,
                         t->r.loss, t->r.grad_norm);
        return 0;
    }
    return error_set(e, EXIT_NONFINITE,
                     "step %lld: loss %g, gradient norm %g: stopped before the update; the newest "
                     "checkpoint is intact (train.on_nonfinite: skip would go on)",
                     (long long)s->step, t->r.loss, t->r.grad_norm);
}

/* Silent data corruption was found, after step `passed` was in order: 0 when the run goes on all the same. */
static int corrupted(trainer *t, int64_t passed, error *e) {
    if (t->x.s.c.sdc.on_corruption == CORRUPTION_WARN) {
        if (t->x.s.mesh.rank == 0) console_line(&t->console, "warning   %s", e->text);
        return e->code = 0;
    }
    saves_finish(t); /* of an earlier step, if one is under way */
    sdc_advise(&t->x.s, passed, e);
    return e->code;
}

static int loop(trainer *t, error *e) {
    state *s = &t->x.s;
    const train_config *c = &s->c.train;
    int asked = 0; /* to stop */
    while (s->step < c->steps) {
        double began = comm_clock(), waited = comm_exposed_seconds(t->x.world);
        step_timing timing;
        timeline_before(&t->timeline, t->x.world, s->step + 1);
        double step_began = trace_begin(comm_trace(t->x.world));
        enter_step(t);
        load_tokens(t);
        step_run(s, t->tokens, &t->r);
        asked |= gather_timing(t, comm_clock() - began, comm_exposed_seconds(t->x.world) - waited, &timing);
        int64_t passed;
        if (sdc_verdict(s, &passed, e) && corrupted(t, passed, e)) return e->code;
        if (spiked(t, e)) continue;
        if (e->code) return e->code;
        write_records(t, &timing);
        if (!t->r.finite && nonfinite(t, e)) return e->code;
        int last = s->step == c->steps;
        if (validates(t, s->step)) TRACED(&s->model.x, "validation", validate(t));
        if (saves_due(t, last || asked) && sdc_before_save(s, &passed, e) && corrupted(t, passed, e))
            return e->code;
        int code;
        TRACED(&s->model.x, "checkpoint", code = saves_at_boundary(t, last || asked, &timing));
        trace_end(comm_trace(t->x.world), "step", s->step, step_began);
        timeline_after(&t->timeline, t->x.world, s->step, last || asked, t->x.c.run_dir);
        if (s->mesh.rank == 0) {
            metrics_timing(&t->out, s->step, &timing);
            live_step(t->live, s->step, console_left(&t->console, s));
        }
        if (code && last)
            return error_set(e, code, "the run is done, but its last checkpoint was not written");
        if (code && asked) return error_set(e, code, "asked to stop, but the checkpoint was not written");
        if (asked && !last) return EXIT_REQUEUE;
    }
    return 0;
}

int train_run(comm *world, const train_job *job, error *e) {
    trainer t = {.from = {job->resume, job->init_from, -1},
                 .signals = job->signals,
                 .held = -1,
                 .deadline.at = job->until,
                 .timeline = job->timeline};
    int code = session_open_on(&t.x, world, job->config_path, job->overrides, job->override,
                               SESSION_TRAIN | SESSION_VALID, e);
    if (code) return code;
    if (comm_rank(t.x.world) == 0) console_header(&t.x);
    code = open_trainer(&t, e);
    if (!code) {
        if (comm_rank(t.x.world) == 0) tell_kept_aside(&t);
        t.console = console_open(t.x.s.step);
        if (t.x.s.mesh.rank == 0 && t.x.s.step >= t.x.c.train.steps)
            console_line(&t.console, "done      all of train.steps = %lld; a larger one goes on",
                         (long long)t.x.c.train.steps);
        if (t.x.s.mesh.rank == 0) t.live = live_open(t.x.c.run_dir, t.x.s.step, t.x.c.train.steps);
        code = loop(&t, e);
        saves_finish(&t); /* a loop that ended with an error may leave one, and a timeline */
        timeline_after(&t.timeline, t.x.world, t.x.s.step, 1, t.x.c.run_dir);
        report(&t, code, e);
    }
    close_trainer(&t);
    return code;
}

int train_command(int argc, char **argv) {
    train_job job = {.resume = "auto", .until = INFINITY};
    const char *exit_after = NULL;
    const char *steps = NULL;
    double began = comm_clock(), seconds = INFINITY;
    const option known[] = {{"resume", .text = &job.resume},
                            {"init-from", .text = &job.init_from},
                            {"exit-after", .text = &exit_after},
                            {"trace", .text = &steps},
                            {0}};
    options o = {.usage = "usage: caracal train CONFIG [--resume=auto|none|PATH] [--init-from=CKPT] "
                          "[--exit-after=DURATION] [--trace=STEPS] [--section.key=value ...]\n",
                 .known = known,
                 .min_words = 1,
                 .max_words = 1,
                 .config = 1};
    if (!options_read(&o, argc, argv)) {
        if (!o.code) config_help(stdout);
        return o.code;
    }
    error e = {0};
    if (job.init_from && strcmp(job.resume, "auto") && strcmp(job.resume, "none"))
        return options_refuse(&o, "--resume=%s and --init-from=%s: a run begins from one of them", job.resume,
                              job.init_from);
    if (exit_after && config_seconds(exit_after, "exit-after", &seconds, &e))
        return options_refuse(&o, "%s", e.text);
    if (steps && timeline_read(&job.timeline, steps, &e)) return options_refuse(&o, "%s", e.text);
    job.config_path = o.word[0];
    job.overrides = o.overrides;
    job.override = o.override;
    job.until = began + seconds;
    job.signals = signals_open(getenv("OMPI_COMM_WORLD_RANK") != NULL);
    comm *world;
    int code = comm_open(&world, 600, &e);
    if (!code) {
        code = train_run(world, &job, &e);
        if (comm_rank(world) == 0) error_print(&e);
        comm_close(world);
    }
    if (job.signals >= 0) close(job.signals);
    return code;
}
