/* How long ranks of one host take to fold gradients of 64 MiB each, against the bandwidth that they have
 * together.
 *
 *   launch/run -np N bench_fold [auto|host]
 *
 * The limit: an owner reads its part from every rank and writes the sum, (N + 1) / N of 64 MiB a rank, at the
 * rate at which all ranks, copying at the same time with stores that go past the caches, read and write.
 * Folds and copies take turns; both are medians.  Rank 0 prints one line of JSON. */
#include <immintrin.h>
#include <stdio.h>
#include <string.h>

#include "launch/memory.h"
#include "optim/gradients.h"
#include "train/series.h"

enum { ELEMENTS = 16 << 20, ROUNDS = 21, WARM_UP = 2 };

/* Of every rank's, the longest. */
static double slowest(comm *world, double began) {
    return 1e-9 * (double)comm_max_i64(world, "bench", (int64_t)(1e9 * (comm_clock() - began)));
}

static double fold(gradients *g) {
    gradients_buffer(g, BUCKET_EMBEDDING, 0);
    comm_barrier(g->mesh->world, "bench");
    double began = comm_clock();
    gradients_fold(g, BUCKET_EMBEDDING, 0);
    gradients_buffer(g, BUCKET_EMBEDDING, 0);
    return slowest(g->mesh->world, began);
}

/* Bytes a second, read and written, of all ranks. */
static double copy(comm *world, float *to, const float *from) {
    comm_barrier(world, "bench");
    double began = comm_clock();
    for (int64_t i = 0; i < ELEMENTS; i += 8) _mm256_stream_ps(to + i, _mm256_load_ps(from + i));
    _mm_sfence();
    return 2.0 * sizeof(float) * ELEMENTS * comm_size(world) / slowest(world, began);
}

int main(int argc, char **argv) {
    /* the embedding is what is folded */
    const model_config shape = {.vocab_size = ELEMENTS / 1024,
                                .hidden_size = 1024,
                                .num_layers = 1,
                                .num_attention_heads = 1,
                                .q_lora_rank = 16,
                                .kv_lora_rank = 16,
                                .qk_nope_head_dim = 16,
                                .qk_rope_head_dim = 16,
                                .v_head_dim = 16,
                                .ffn_hidden_size = 16,
                                .expert_ffn_hidden_size = 16,
                                .n_routed_experts = 16,
                                .moe_topk = 1};
    const kernels_config c = {.device = "cpu", .isa = "auto", .threads = 1};
    transport_kind kind = argc > 1 && !strcmp(argv[1], "host") ? TRANSPORT_HOST : TRANSPORT_AUTO;
    char text[TRANSPORT_TEXT];
    double seconds[ROUNDS], rate[ROUNDS];
    error e = {0};
    comm *world;
    kernels k;
    mesh m;
    params p;
    gradients g;
    if (comm_open(&world, 60, &e)) FAULT(e.code, "%s", e.text);
    int ranks = comm_size(world);
    const parallel_config parallel = {.expert_replicas = 1, .rank_invariant = 1, .chunks = 1};
    if (mesh_open(&m, world, &parallel, ranks, shape.n_routed_experts, &e) || kernels_open(&k, &c, &e) ||
        transport_choose(&k, world, kind, text, &e))
        FAULT(e.code, "%s", e.text);
    params_create(&p, &shape, 0, m.expert_parallel, m.expert_rank);
    gradients_create(&g, &p, &k, &m);
    float *room[2];
    for (int i = 0; i < 2; i++) room[i] = mem_alloc_pages(sizeof(float) * ELEMENTS, "copies");
    for (int i = -WARM_UP; i < ROUNDS; i++) {
        double copied = copy(world, room[0], room[1]), folded = fold(&g);
        if (i < 0) continue;
        rate[i] = copied;
        seconds[i] = folded;
    }
    double time = series_quantile(ROUNDS, seconds, 0.5), limit = series_quantile(ROUNDS, rate, 0.5);
    double least = sizeof(float) * (double)ELEMENTS * (ranks + 1) / limit;
    if (!m.rank)
        printf("{\"mib\": 64, \"ranks\": %d, \"way\": \"%s\", \"milliseconds\": %.2f, \"copy_gbps\": %.2f, "
               "\"times_the_limit\": %.3f}\n",
               ranks, text, 1e3 * time, 1e-9 * limit, time / least);
    for (int i = 0; i < 2; i++) mem_free(room[i]);
    gradients_destroy(&g);
    params_free(&p);
    kernels_close(&k);
    mesh_close(&m);
    comm_close(world);
    return 0;
}
