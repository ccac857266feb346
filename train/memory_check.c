#include "train/memory_check.h"

#include "launch/host.h"
#include "launch/room.h"
#include "train/checkpoint.h"
#include "train/console.h"
#include "train/memory_plan.h"

static int enough_on_device(state *s, const model_config_all *c, int training, error *e) {
    double need = memory_planned(c, &s->k, &s->mesh, training, 0).all;
    double left = (double)s->k.left(s->k.ctx);
    if (need <= left) return 0;
    return error_set(
        e, EXIT_NO_MEMORY,
        "rank %d: %s has %.2f GiB free, and %.2f GiB are needed: %.2f GiB are missing; "
        "model.recompute: true, a smaller train.micro_batch_size or train.seq_len, or more ranks, each "
        "with a GPU of its own, need less (`caracal plan` shows what takes how much)",
        s->mesh.rank, s->k.name, left / 0x1p30, need / 0x1p30, (need - left) / 0x1p30);
}

/* Bytes of all ranks of this host; collective among them.  Snapshots are on as many ranks as there are files
 * of a checkpoint. */
static double needed_on_host(state *s, const model_config_all *c, int training) {
    int shares = s->k.shares && comm_size(s->host) == s->mesh.ranks;
    int64_t bytes = (int64_t)memory_planned(c, &s->k, &s->mesh, training, shares).all;
    if (training && s->mesh.rank < s->c.checkpoint.shards) {
        params p;
        params_create(&p, &c->model, c->loss.mtp_coef > 0, s->mesh.expert_parallel, s->mesh.expert_rank);
        bytes += (int64_t)checkpoint_saver_bytes(&s->c, &p, s->mesh.ranks, s->c.kernels.threads);
        params_free(&p);
    }
    comm_sum_i64(s->host, "memory", &bytes, 1);
    return (double)bytes;
}

static void tell(error *e, const state *s, double need, const char *whose, double there) {
    char rank[HOST_TEXT], text[3][32];
    host_name_rank(s->mesh.world, s->host, rank);
    error_set(
        e, EXIT_NO_MEMORY,
        "%s: the ranks of this host, %d, need %s of memory, and %s %s: %s are missing; model.recompute: "
        "true, a smaller train.micro_batch_size or train.seq_len,%s or fewer ranks on a host need less "
        "(`caracal plan` shows what takes how much)",
        rank, comm_size(s->host), console_bytes(text[0], need), whose, console_bytes(text[1], there),
        console_bytes(text[2], need - there),
        s->c.kernels.threads > s->cores ? " fewer parallel.threads," : "");
}

static int enough_on_host(state *s, const model_config_all *c, int training, error *e) {
    const double need = needed_on_host(s, c, training);
    const memory_room room = memory_room_of("");
    error likely = {0};
    if (need > (double)room.most)
        tell(e, s, need, room.in_group ? "their control group may have" : "the host has", (double)room.most);
    else if (need > (double)room.left) tell(&likely, s, need, "now there are only", (double)room.left);
    if (comm_agree(s->mesh.world, e)) return e->code;
    if (comm_agree(s->mesh.world, &likely) && s->mesh.rank == 0) notice("warning: %s", likely.text);
    return 0;
}

int memory_check(state *s, const model_config_all *c, int training, error *e) {
    if (s->k.left) return enough_on_device(s, c, training, e);
    return s->k.host_memory ? enough_on_host(s, c, training, e) : 0;
}
