#include "train/console.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "launch/progress.h"
#include "train/checkpoint.h"
#include "train/memory_plan.h"
#include "train/stages.h"

int console_on_terminal(void) {
    return getenv("OMPI_COMM_WORLD_RANK") ? getenv("CARACAL_TERMINAL") != NULL : isatty(STDOUT_FILENO);
}

console console_open(int64_t first_step) {
    console o = {.terminal = console_on_terminal()};
    console_restart(&o, first_step);
    return o;
}

void console_restart(console *o, int64_t first_step) {
    o->first_step = first_step;
    o->since = o->next = (console_moment){comm_clock(), first_step};
}

/* ---- numbers ---- */

static const char *scaled(char *text, double x, double base, const char *const *unit, int units) {
    int i = 0;
    while (x >= base && i + 1 < units) x /= base, i++;
    snprintf(text, 32, i == 0 ? "%.0f%s" : x < 10 ? "%.2f%s" : "%.1f%s", x, unit[i]);
    return text;
}

const char *console_bytes(char *text, double bytes) {
    static const char *const unit[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
    return scaled(text, bytes, 1024, unit, 6);
}

const char *console_count(char *text, double count) {
    static const char *const unit[] = {"", " k", " M", " B", " T"};
    return scaled(text, count, 1000, unit, 5);
}

/* ---- lines ---- */

static void close_line(console *o) {
    if (o->line_open) fputs("\r\033[K", stdout);
    o->line_open = 0;
}

void console_line(console *o, const char *format, ...) {
    va_list args;
    close_line(o);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

/* What this rank has reserved, and for checkpoints will reserve. */
static void print_memory(const state *s) {
    char text[9][32], own[64] = "";
    const model_config_all all = state_model_config(s->run, -1);
    const memory_plan m = memory_taken(
        &s->model, &s->gradients, (double)model_backend_bytes(&all, &s->k, &s->mesh, s->model.p.weights));
    const double worst = (double)model_worst_bytes(&all, &s->k, &s->mesh),
                 snapshot =
                     (double)checkpoint_saver_bytes(s->run, &s->model.p, s->mesh.ranks, s->c.kernels.threads);
    if (m.own > 0) snprintf(own, sizeof own, ", the backend's own %s", console_bytes(text[8], m.own));
    printf("memory    a rank: weights %s, moments %s, gradients %s and %s on their way, activations %s (at "
           "%.2g x the expected expert load; worst case of dropless routing %s)%s: together %s; snapshot for "
           "checkpoints %s\n",
           console_bytes(text[0], m.dense + m.experts), console_bytes(text[1], m.moments),
           console_bytes(text[2], m.gradients), console_bytes(text[3], m.moving),
           console_bytes(text[4], m.activations), s->run->parallel.expert_capacity,
           console_bytes(text[5], worst), own, console_bytes(text[6], m.all),
           console_bytes(text[7], snapshot));
}

void console_header(const session *x) {
    const config *c = &x->c;
    const state *s = &x->s;
    const mesh *m = &s->mesh;
    char a[32], b[32];
    printf("model     %s parameters, %s active per token; %lld layers, %s\n",
           console_count(a, params_total(&c->model)),
           console_count(b, params_active(&c->model, c->router.expected_ffn_experts)),
           (long long)c->model.num_layers, c->model.moe_input == MOE_SHORTCUT ? "shortcut" : "sequential");
    printf("ranks     %d (experts over %d, %d group%s), %d thread%s each, %s\n", m->ranks, m->expert_parallel,
           m->groups, m->groups == 1 ? "" : "s", s->c.kernels.threads, s->c.kernels.threads == 1 ? "" : "s",
           s->k.name);
    if (s->c.kernels.threads > s->cores)
        printf("threads   more than the rank's %d core%s: they wait for one another, and steps take longer\n",
               s->cores, s->cores == 1 ? "" : "s");
    if (!m->rank_invariant)
        printf("bits      of this number of ranks alone: parallel.rank_invariant is false\n");
    printf("batch     %lld micro-batches x %lld x %lld = %s tokens a step\n",
           (long long)c->train.micro_batches, (long long)c->train.micro_batch_size,
           (long long)c->train.seq_len,
           console_count(a, (double)(c->train.micro_batches * c->train.micro_batch_size * c->train.seq_len)));
    const optim_config *p = &c->optim;
    if (p->schedule != LR_CONSTANT && c->train.steps > p->schedule_steps)
        printf("schedule  ends with step %lld of %lld; from there on the learning rate is %g\n",
               (long long)p->schedule_steps, (long long)c->train.steps,
               optimizer_learning_rate(p, p->schedule_steps));
    if (c->train.eval_every && !x->valid)
        printf("held-out  none: train.eval_every does nothing, for no source of data.sources names a valid "
               "file\n");
    if (s->transport[0]) printf("exchange  %s\n", s->transport);
    print_memory(s);
    fflush(stdout);
}

char *console_stage(const config *c, int64_t stage) {
    const data_stage *g = &c->data.stage[stage - 1];
    char tokens[32], *text = NULL;
    size_t size = 0;
    double sum = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) FAULT(EXIT_NO_MEMORY, "no memory for a line of text");
    fprintf(out,
            "stage %lld of %lld, after step %lld: %lld micro-batches x %lld x %lld = %s tokens a step, rope "
            "base %g;",
            (long long)stage + 1, (long long)c->data.stages + 1, (long long)g->after,
            (long long)g->micro_batches, (long long)g->micro_batch_size, (long long)g->seq_len,
            console_count(tokens, (double)stage_tokens(c, stage)), g->rope_theta);
    for (int64_t i = 0; i < c->data.sources; i++) sum += g->weight[i];
    for (int64_t i = 0; i < c->data.sources; i++)
        fprintf(out, "%s %s %.3g%%", i ? "," : "", c->data.source[i].name, 100 * g->weight[i] / sum);
    if (g->ramp) fprintf(out, ", reached in %lld steps", (long long)g->ramp);
    fclose(out);
    return text;
}

static double flops_until(const state *s, int64_t step) {
    return metrics_flops(s->run, stages_tokens(s->run, step));
}

/* By FLOPs: a token of a later stage costs more where sequences are longer. */
double console_left(console *o, const state *s) {
    int64_t window = s->c.train.eval_every > 100 ? s->c.train.eval_every : 100;
    double now = comm_clock(), since = flops_until(s, o->since.step), done = flops_until(s, s->step);
    double left = (flops_until(s, s->c.train.steps) - done) * (now - o->since.at) / (done - since);
    if (s->step - o->next.step >= window) { /* an hour when the machine was busy is forgotten */
        o->since = o->next;
        o->next = (console_moment){now, s->step};
    }
    return left;
}

void console_step(console *o, const state *s, const step_result *r, const step_timing *t) {
    const train_config *c = &s->c.train;
    char eta[32], leaps[48] = "";
    double now = comm_clock();
    int due = s->step % c->log_every == 0 || s->step == c->steps || s->step == o->first_step + 1;
    if (o->terminal ? now - o->last < 0.2 && !due : !due) return;
    o->last = now;
    close_line(o);
    int64_t spikes = s->spikes.told + s->spikes.rollbacks;
    if (spikes) snprintf(leaps, sizeof leaps, "%lld spike%s  ", (long long)spikes, spikes == 1 ? "" : "s");
    o->line_open = o->terminal && s->step < c->steps;
    if (o->line_open) fputs("\033[?7l", stdout); /* cut off at the window's edge: a second row would stay */
    printf(
        "step %lld/%lld  ETA %s  loss %.4f  lm %.4f  grad %.3f  lr %.2e  ffn %.2f  %s%.0f tok/s  mfu %.0f%%",
        (long long)s->step, (long long)c->steps, progress_duration(eta, console_left(o, s)), r->loss, r->lm,
        r->grad_norm, r->lr, r->ffn_mean_all, leaps, t->tokens_per_second, 100 * t->mfu);
    fputs(o->line_open ? "\033[?7h" : "\n", stdout);
    fflush(stdout);
}

void console_epsilon(console *o, const state *s, const step_result *r) {
    double eps = s->c.optim.eps, rms = r->grad_rms_min;
    if (o->epsilon_told || !r->finite || !(rms > 0) || eps <= 0.01 * rms) return;
    o->epsilon_told = 1;
    console_line(o,
                 "warning: step %lld: optim.eps = %.3g exceeds a hundredth of the gradient RMS of %s, %.3g: "
                 "AdamW's updates there shrink with the gradient; lower optim.eps",
                 (long long)s->step, eps, r->grad_rms_min_group, rms);
}

void console_grad_ratio(console *o, const state *s, const step_result *r) {
    const router_config *c = &s->c.router;
    enum { LASTING = 50 };
    int64_t worst = 0;
    for (int64_t l = 1; l < s->c.model.num_layers; l++)
        if (r->router_grad_ratio[l] > r->router_grad_ratio[worst]) worst = l;
    int above = c->grad_ratio_limit > 0 && r->router_grad_ratio[worst] > c->grad_ratio_limit;
    o->ratio_steps = above ? o->ratio_steps + 1 : 0;
    if (o->ratio_steps != LASTING || o->ratio_told) return;
    o->ratio_told = 1;
    console_line(
        o,
        "warning: step %lld: for %d steps R_g was above router.grad_ratio_limit = %g, now %.3g in layer "
        "%lld: the load-balance loss steers the router as the language loss should; lower "
        "router.lb_alpha = %.3g, or let router.grad_ratio_target choose it",
        (long long)s->step, LASTING, c->grad_ratio_limit, r->router_grad_ratio[worst], (long long)worst,
        r->lb_alpha);
}

void console_eval(console *o, const state *s, const held_out *out, double seconds) {
    const data_config *d = &s->c.data;
    close_line(o);
    printf("held-out after step %lld: %.4f (", (long long)s->step, out[d->sources].loss);
    const char *comma = "";
    for (int64_t i = 0; i < d->sources; i++) {
        if (out[i].loss != out[i].loss) continue;
        printf("%s%s %.3f", comma, d->source[i].name, out[i].loss);
        comma = ", ";
    }
    printf(") in %.1f s\n", seconds);
    fflush(stdout);
}
