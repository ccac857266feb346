/* Checkpoints by several ranks, for tests/mpi_ckpt.sh:
 *
 *   ckpt_ranks save DIR STEP SHARDS     saves tensors whose elements are functions of name and index alone
 *   ckpt_ranks full DIR STEP SHARDS     the same, with the last rank's disk full halfway
 *   ckpt_ranks load DIR                 opens the newest checkpoint; each rank reads its share and compares
 *   ckpt_ranks print NAME               the elements of an int64 tensor, a line each
 *
 * Rank 0 prints the error, if there is one; every rank's exit code is the operation's. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "ckpt/ckpt.h"
#include "ckpt/layout.h"
#include "launch/memory.h"
#include "launch/random.h"

enum { N = 40 };

typedef struct share {
    ckpt_tensor tensor[N];
    char name[N][48];
    ckpt_slice slice[N];
    int64_t slices;
} share;

/* Some 70 MB, from one element to several windows. */
static void make_tensors(share *s) {
    for (int i = 0; i < N; i++) {
        snprintf(s->name[i], sizeof s->name[i], "%s/model.layers.%d.weight", i % 3 ? "adam_m" : "weights", i);
        s->tensor[i] = (ckpt_tensor){s->name[i],
                                     i % 7 == 6   ? CKPT_I64
                                     : i % 7 == 5 ? CKPT_F64
                                                  : CKPT_F32,
                                     2,
                                     {i + 1, 97}};
    }
    s->tensor[3].shape[1] = 2100001;
    s->tensor[20].rank = 3;
    s->tensor[20].shape[1] = 200;
    s->tensor[20].shape[2] = 777;
    s->tensor[30].shape[1] = 55555;
}

static void *element(const ckpt_tensor *t, int64_t index, void *at) {
    uint64_t bits = random_bits(7, random_stream(t->name), (uint64_t)index / 8) >> (index % 8 * 8);
    if (t->type == CKPT_F32) *(float *)at = (float)(bits & 255) / 255;
    else if (t->type == CKPT_F64) *(double *)at = (double)(bits & 255) / 3;
    else *(int64_t *)at = (int64_t)(bits & 255);
    return at;
}

/* This rank's part of every tensor: an uneven cut, and now and then all or nothing. */
static void make_slices(share *s, int rank, int ranks) {
    for (int64_t i = 0; i < N; i++) {
        const ckpt_tensor *t = &s->tensor[i];
        int64_t n = ckpt_elements(t), low = n * rank * rank / (ranks * ranks);
        int64_t high = n * (rank + 1) * (rank + 1) / (ranks * ranks);
        if (i % 5 == 0) {
            low = 0;
            high = i % ranks == rank ? n : 0;
        }
        if (low == high) continue;
        size_t size = ckpt_type_size(t->type);
        s->slice[s->slices++] =
            (ckpt_slice){i, low, high - low, mem_alloc((size_t)(high - low) * size, "a slice")};
    }
}

static void fill(share *s) {
    for (int64_t i = 0; i < s->slices; i++) {
        const ckpt_slice *x = &s->slice[i];
        const ckpt_tensor *t = &s->tensor[x->tensor];
        for (int64_t k = 0; k < x->count; k++)
            element(t, x->offset + k, (char *)x->data + (size_t)k * ckpt_type_size(t->type));
    }
}

static int save(comm *c, share *s, char **argv, error *e) {
    json_t *state = json_pack("{sIss}", "step", (json_int_t)atoll(argv[3]), "about", "ranks");
    fill(s);
    ckpt_save(c, argv[2], atoll(argv[3]), atoll(argv[4]), s->tensor, N, s->slice, s->slices, state, e);
    json_decref(state);
    return e->code;
}

static int load(comm *c, share *s, char **argv, error *e) {
    ckpt *k = NULL;
    if (ckpt_newest(c, argv[2], &k, e)) return e->code;
    if (!k) return error_set(e, EXIT_USAGE, "%s: no checkpoint", argv[2]);
    for (int64_t i = 0; i < s->slices && !e->code; i++) {
        const ckpt_slice *x = &s->slice[i];
        const ckpt_tensor *t = &s->tensor[x->tensor];
        size_t size = ckpt_type_size(t->type);
        if (ckpt_find(k, t->name) != x->tensor) error_set(e, EXIT_CORRUPT, "%s: not in its place", t->name);
        else if (ckpt_read(k, x, 1, e)) break;
        for (int64_t j = 0; j < x->count && !e->code; j++) {
            int64_t value;
            if (memcmp((char *)x->data + (size_t)j * size, element(t, x->offset + j, &value), size))
                error_set(e, EXIT_CORRUPT, "%s: element %lld of a slice differs", t->name, (long long)j);
        }
    }
    comm_agree(c, e);
    if (!e->code && comm_rank(c) == 0) printf("step %lld\n", (long long)ckpt_step(k));
    ckpt_close(k);
    return e->code;
}

static int print(const share *s, const char *name, error *e) {
    for (int i = 0; i < N; i++) {
        const ckpt_tensor *t = &s->tensor[i];
        int64_t value;
        if (t->type != CKPT_I64 || strcmp(t->name, name)) continue;
        for (int64_t k = 0; k < ckpt_elements(t); k++)
            printf("%lld\n", (long long)*(int64_t *)element(t, k, &value));
        return 0;
    }
    return error_set(e, EXIT_USAGE, "%s: no such int64 tensor", name);
}

int main(int argc, char **argv) {
    error e = {0};
    comm *c;
    const char *what = argc > 1 ? argv[1] : "";
    if (comm_open(&c, 60, &e)) FAULT(e.code, "%s", e.text);
    share *s = mem_alloc(sizeof *s, "the test's tensors");
    make_tensors(s);
    make_slices(s, comm_rank(c), comm_size(c));
    if (!strcmp(what, "full") && comm_rank(c) == comm_size(c) - 1) {
        struct rlimit limit;
        getrlimit(RLIMIT_FSIZE, &limit);
        limit.rlim_cur = 3 << 20;
        setrlimit(RLIMIT_FSIZE, &limit);
        signal(SIGXFSZ, SIG_IGN);
    }
    if (argc == 5 && (!strcmp(what, "save") || !strcmp(what, "full"))) save(c, s, argv, &e);
    else if (argc == 3 && !strcmp(what, "load")) load(c, s, argv, &e);
    else if (argc == 3 && !strcmp(what, "print")) print(s, argv[2], &e);
    else error_set(&e, EXIT_USAGE, "usage: ckpt_ranks save|full DIR STEP SHARDS, load DIR or print NAME");
    if (e.code && comm_rank(c) == 0) fprintf(stderr, "ckpt_ranks: %s\n", e.text);
    for (int64_t i = 0; i < s->slices; i++) mem_free(s->slice[i].data);
    mem_free(s);
    comm_close(c);
    return e.code;
}
