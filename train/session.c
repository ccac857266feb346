#include "train/session.h"

#include <stdio.h>

#include "launch/files.h"
#include "launch/memory.h"
#include "train/hosts.h"
#include "train/inputs.h"

enum { OPEN_CONFIG = 1, OPEN_TOKENIZER, OPEN_FILES, OPEN_STATE };

/* Every rank does its part; then all agree on how it went. */
static int agree(session *x, int level, error *e) {
    int mine = !e->code;
    if (comm_agree(x->world, e)) {
        if (mine) x->opened = level; /* so that what only this rank opened is closed */
        return e->code;
    }
    x->opened = level;
    return 0;
}

static int open_files(session *x, const char *config_path, int files, error *e) {
    const config *c = &x->c;
    int held_out = 0;
    if (files & SESSION_TRAIN && !c->data.sources)
        return error_set(e, EXIT_USAGE, "%s: data.sources is missing: a list of {name, train, valid, weight}",
                         config_path);
    for (int64_t i = 0; i < c->data.sources; i++) held_out |= c->data.source[i].valid != NULL;
    if (tokenizer_vocab_size(x->tokenizer) > c->model.vocab_size)
        return error_set(e, EXIT_USAGE, "%s has %lld tokens, but model.vocab_size is %lld", c->data.tokenizer,
                         (long long)tokenizer_vocab_size(x->tokenizer), (long long)c->model.vocab_size);
    if (files & SESSION_TRAIN && loader_open(&x->train, &c->data, 0, c->train.seq_len, c->model.vocab_size,
                                             (uint64_t)c->train.seed, e))
        return e->code;
    if (files & SESSION_VALID && held_out &&
        loader_open(&x->valid, &c->data, 1, c->train.seq_len, c->model.vocab_size, (uint64_t)c->train.seed,
                    e)) {
        if (x->train) loader_close(x->train);
        x->train = NULL;
    }
    if (!e->code) x->inputs = inputs_record(&c->data, x->tokenizer, x->train, x->valid);
    return e->code;
}

/* Are the token files this tokenizer's?  After hosts_read_alike, which knows better where ranks differ. */
static int check_tokenizer(session *x, error *e) {
    if (x->train) loader_check_tokenizer(x->train, &x->c.data, x->tokenizer, e);
    if (x->valid && !e->code) loader_check_tokenizer(x->valid, &x->c.data, x->tokenizer, e);
    return comm_agree(x->world, e);
}

int session_open_on(session *x, comm *world, const char *config_path, int overrides, char **override,
                    int files, error *e) {
    *x = (session){.world = world};
    *e = (error){0};
    config_load(&x->c, config_path, overrides, override, e);
    if (agree(x, OPEN_CONFIG, e)) goto failed;
    comm_set_timeout(x->world, x->c.wait_timeout);
    comm_set_overlap(x->world, x->c.parallel.overlap);
    if (tokenizer_open(&x->tokenizer, x->c.data.tokenizer, e)) error_within(e, "data.tokenizer");
    if (agree(x, OPEN_TOKENIZER, e)) goto failed;
    open_files(x, config_path, files, e);
    if (agree(x, OPEN_FILES, e) || hosts_read_alike(world, &x->c, x->inputs, e) || check_tokenizer(x, e))
        goto failed;
    state_create(&x->s, &x->c, x->world, tokenizer_eos(x->tokenizer), (files & SESSION_TRAIN) != 0, e);
    if (agree(x, OPEN_STATE, e)) goto failed;
    return 0;
failed:
    session_close(x);
    return e->code;
}

int session_open(session *x, const char *ckpt, int overrides, char **override, int files, error *e) {
    char config_path[4096];
    comm *world;
    *e = (error){0};
    if (comm_open(&world, 600, e)) return e->code;
    *x = (session){.world = world};
    session_config_of(ckpt, config_path, sizeof config_path, e);
    if (comm_agree(world, e) || session_open_on(x, world, config_path, overrides, override, files, e)) {
        session_report(x, e);
        comm_close(world);
    }
    x->owns_world = !e->code;
    return e->code;
}

void session_close(session *x) {
    if (x->opened >= OPEN_STATE) state_destroy(&x->s);
    if (x->opened >= OPEN_FILES) {
        if (x->train) loader_close(x->train);
        if (x->valid) loader_close(x->valid);
        json_decref(x->inputs);
    }
    if (x->opened >= OPEN_TOKENIZER) tokenizer_close(x->tokenizer);
    if (x->opened >= OPEN_CONFIG) config_free(&x->c);
    if (x->owns_world) comm_close(x->world);
    x->opened = x->owns_world = 0;
}

int session_report(const session *x, const error *e) {
    return comm_rank(x->world) ? e->code : error_print(e);
}

int session_checkpoint(session *x, const char *path, ckpt **out, error *e) {
    *out = NULL;
    ckpt_expected(path, e);
    if (comm_agree(x->world, e)) return e->code;
    if (ckpt_is_one(path)) return ckpt_open(x->world, path, out, e);
    char *directory = ckpt_directory_of(path);
    int code = ckpt_newest(x->world, directory, out, e);
    mem_free(directory);
    if (code) return code;
    return *out ? 0
                : error_set(e, EXIT_USAGE,
                            "%s: there is no complete checkpoint here: one has a manifest.json", path);
}

int session_config_of(const char *ckpt, char *path, size_t size, error *e) {
    if (ckpt_expected(ckpt, e)) return e->code;
    const char *run = ckpt_is_one(ckpt) ? "/../.." : path_has(ckpt, "checkpoints") ? "" : "/..";
    snprintf(path, size, "%s%s/config.yaml", ckpt, run);
    return 0;
}
