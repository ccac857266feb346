#include "train/plan.h"

#include <stdio.h>
#include <string.h>

#include "launch/memory.h"
#include "launch/options.h"
#include "train/checkpoint.h"
#include "train/console.h"
#include "train/memory_plan.h"
#include "train/metrics.h"
#include "train/stages.h"
#include "train/state.h"

static void print_counts(const config *c) {
    const model_config *m = &c->model;
    double ke = c->router.expected_ffn_experts, k = (double)m->moe_topk;
    char a[32], b[32];
    printf("parameters                  %10s (%.0f, with the input embedding, without MTP)\n",
           console_count(a, params_total(m)), params_total(m));
    printf("per token, no FFN expert    %10s\n", console_count(a, params_active(m, 0)));
    printf("per token, K_e = %-4g       %10s\n", ke, console_count(a, params_active(m, ke)));
    printf("per token, K = %-4g         %10s\n", k, console_count(a, params_active(m, k)));
    printf("training FLOPs per token    %10s (6 x %s and causal attention over %lld tokens)\n",
           console_count(a, metrics_flops_per_token(c)), console_count(b, params_active(m, ke)),
           (long long)c->train.seq_len);
    for (int64_t stage = 1; stage <= c->data.stages; stage++) {
        char *text = console_stage(c, stage);
        puts(text);
        mem_free(text);
    }
}

/* The config's backend, or, where it cannot be opened, what is known of such a one. */
static int open_backend(kernels *k, const config *c, error *e) {
    kernels_config own = c->kernels;
    own.threads = 1;
    if (!kernels_open(k, &own, e)) return 1;
    *k = (kernels){.head_rows = HEAD_TILE, .host_memory = !strstr(c->kernels.device, "cuda")};
    return 0;
}

/* A rank's memory: as state_create would lay it out on `ranks` ranks, rank 0's where they differ. */
static int print_memory(const config *c, int64_t ranks, int64_t hosts, error *e) {
    mesh m;
    kernels k;
    error why;
    if (hosts > ranks)
        return error_set(e, EXIT_USAGE,
                         "--hosts=%lld: there are no more ranks than %lld; --ranks=N says how many",
                         (long long)hosts, (long long)ranks);
    if (stages_check(c, ranks, e) ||
        mesh_plan(&m, ranks, &c->parallel, c->train.micro_batches, c->model.n_routed_experts, e))
        return e->code;
    int threads = c->parallel.threads ? (int)c->parallel.threads : 1, opened = open_backend(&k, c, &why);
    char a[32], b[32], d[32];
    model_config_all all = state_model_config(c, -1);
    int shares = hosts == 1 && k.host_memory && c->parallel.transport != TRANSPORT_HOST;
    memory_plan plan = memory_planned(&all, &k, &m, 1, shares);
    params p;
    params_create(&p, &c->model, c->loss.mtp_coef > 0, m.expert_parallel, 0);
    printf("on %d rank%s of %lld host%s (experts over %d, %d group%s), a rank:\n", m.ranks,
           m.ranks == 1 ? "" : "s", (long long)hosts, hosts == 1 ? "" : "s", m.expert_parallel, m.groups,
           m.groups == 1 ? "" : "s");
    printf("  weights                   %s (dense %s, experts %s)\n",
           console_bytes(a, plan.dense + plan.experts), console_bytes(b, plan.dense),
           console_bytes(d, plan.experts));
    printf("  moments                   %s\n", console_bytes(a, plan.moments));
    printf("  gradients                 %s and %s on their way\n", console_bytes(a, plan.gradients),
           console_bytes(b, plan.moving));
    printf("  activations               %s at %.2g x the expected expert load, %s in the worst case\n",
           console_bytes(a, plan.activations), c->parallel.expert_capacity,
           console_bytes(b, (double)model_worst_bytes(&all, &k, &m)));
    if (opened) printf("  the backend's own         %s (%s)\n", console_bytes(a, plan.own), k.name);
    else printf("  the backend's own         not known here: %s\n", why.text);
    printf("  together                  %s\n", console_bytes(a, plan.all));
    if (opened && strstr(k.name, "cpu") && k.dtype == DTYPE_FLOAT32)
        printf("  packed weights            %s more, if there is room, where a step has many products of few "
               "rows by a weight\n",
               console_bytes(a, plan.dense + plan.experts));
    printf("  snapshot                  %s, to save from, on the rank with most of the %lld files of a "
           "checkpoint\n",
           console_bytes(a, (double)checkpoint_saver_bytes(c, &p, (int)ranks, threads)),
           (long long)c->checkpoint.shards);
    params_free(&p);
    if (opened) kernels_close(&k);
    return 0;
}

int plan_command(int argc, char **argv) {
    int64_t ranks = 0, hosts = 1;
    const option known[] = {{"ranks", .integer = &ranks, .min = 1, .max = 1 << 20},
                            {"hosts", .integer = &hosts, .min = 1, .max = 1 << 20},
                            {0}};
    options o = {.usage = "usage: caracal plan CONFIG [--ranks=N] [--hosts=N] [--section.key=value ...]\n",
                 .known = known,
                 .min_words = 1,
                 .max_words = 1,
                 .config = 1};
    if (!options_read(&o, argc, argv)) return o.code;
    config c;
    error e = {0};
    int code = config_load(&c, o.word[0], o.overrides, o.override, &e);
    if (!code) {
        print_counts(&c);
        if (!ranks)
            ranks = c.parallel.expert_parallel ? c.parallel.expert_parallel * c.parallel.expert_replicas : 1;
        code = print_memory(&c, ranks, hosts, &e);
        config_free(&c);
    }
    error_print(&e);
    return code;
}
