#include "train/checkpoint.h"

#include <stdio.h>
#include <string.h>

#include "ckpt/layout.h"
#include "kernels/twin.h"
#include "launch/files.h"
#include "launch/memory.h"
#include "train/inputs.h"
#include "train/json_number.h"

/* The logical tensors of a state in the order in which they are stored: for each parameter its weight and
 * moments, then for each layer the router's bias and the controller's memory. */
enum { WEIGHT, MOMENT_1, MOMENT_2, PER_PARAM };
enum { BIAS, ERROR_1, ERROR_2, WAITING, PER_LAYER };
static const char *const param_prefix[PER_PARAM] = {"weights/", "adam_m/", "adam_v/"};
static const char *const layer_prefix[PER_LAYER] = {"weights/", "controller_e1/", "controller_e2/",
                                                    "controller_waiting/"};

static void bias_name(char *name, size_t size, int64_t layer) {
    snprintf(name, size, "model.layers.%lld.mlp.router.e_score_correction_bias", (long long)layer);
}

typedef struct tensor_list {
    ckpt_tensor *tensor;
    ckpt_slice *slice;
    int64_t tensors, slices;
} tensor_list;

static void list_free(tensor_list *t) {
    for (int64_t i = 0; i < t->tensors; i++) mem_free(t->tensor[i].name);
    mem_free(t->tensor);
    mem_free(t->slice);
}

static void *layer_data(const state *s, int64_t layer, int what) {
    switch (what) {
    case BIAS:
        return s->model.router_bias_LE + layer * experts_total(&s->c.model);
    case ERROR_1:
        return s->history[layer].e1_N;
    case ERROR_2:
        return s->history[layer].e2_N;
    default:
        return s->history[layer].waiting_N;
    }
}

/* All tensors, the same on every rank. */
static tensor_list list_tensors(const params *p, const model_config *c) {
    tensor_list t = {0};
    int64_t n = PER_PARAM * p->n + PER_LAYER * c->num_layers;
    t.tensor = mem_alloc((size_t)n * sizeof *t.tensor, "the checkpoint's list");
    for (int64_t i = 0; i < p->n; i++)
        for (int what = 0; what < PER_PARAM; what++)
            t.tensor[t.tensors++] = (ckpt_tensor){text_of("%s%s", param_prefix[what], p->param[i].name),
                                                  CKPT_F32,
                                                  p->param[i].rank,
                                                  {p->param[i].shape[0], p->param[i].shape[1]}};
    for (int64_t l = 0; l < c->num_layers; l++)
        for (int what = 0; what < PER_LAYER; what++) {
            char name[256];
            bias_name(name, sizeof name, l);
            int type = what == BIAS ? CKPT_F32 : what == WAITING ? CKPT_I64 : CKPT_F64;
            int64_t count = what == BIAS ? experts_total(c) : c->n_routed_experts;
            t.tensor[t.tensors++] =
                (ckpt_tensor){text_of("%s%s", layer_prefix[what], name), type, 1, {count}};
        }
    return t;
}

/* Where a save finds a piece's weight or moments: in place, or in the host's copy of them, of which `room`
 * elements of each were taken by the pieces before. */
static void *piece_data(const state *s, const piece *q, int what, int64_t room) {
    real *const data[PER_PARAM] = {q->weight, q->m, q->v};
    return s->k.host_memory ? data[what] : s->pieces + what * s->gradients.owned_count + room;
}

static void read_pieces(const state *s) {
    const optimizer *o = &s->optimizer;
    int64_t room = 0;
    for (int64_t i = 0; i < o->pieces; room += o->piece[i++].count) {
        const piece *q = &o->piece[i];
        size_t bytes = (size_t)q->count * sizeof(real);
        twin_read(&s->k, piece_data(s, q, WEIGHT, room), q->weight, bytes);
        twin_read(&s->k, piece_data(s, q, MOMENT_1, room), q->m, bytes);
        twin_read(&s->k, piece_data(s, q, MOMENT_2, room), q->v, bytes);
    }
}

/* The slices that this rank owns: its optimizer pieces, and on rank 0 the controllers. */
static void list_slices(tensor_list *t, const state *s) {
    const optimizer *o = &s->optimizer;
    int64_t layers = s->c.model.num_layers, room = 0;
    t->slice = mem_alloc((size_t)(PER_PARAM * o->pieces + PER_LAYER * layers) * sizeof *t->slice,
                         "the checkpoint's list");
    /* slices must come sorted by tensor: pieces are in the table's order, at most one of a parameter */
    for (int64_t i = 0; i < o->pieces; i++) {
        const piece *q = &o->piece[i];
        for (int what = 0; what < PER_PARAM; what++)
            t->slice[t->slices++] =
                (ckpt_slice){PER_PARAM * q->param + what, q->offset, q->count, piece_data(s, q, what, room)};
        room += q->count;
    }
    for (int64_t l = 0; s->mesh.rank == 0 && l < layers; l++)
        for (int what = 0; what < PER_LAYER; what++) {
            int64_t i = PER_PARAM * s->model.p.n + PER_LAYER * l + what;
            t->slice[t->slices++] = (ckpt_slice){i, 0, t->tensor[i].shape[0], layer_data(s, l, what)};
        }
}

/* The config with the number of threads that `auto` stands for. */
static checkpoint_config resolved(const config *c, int threads) {
    checkpoint_config k = c->checkpoint;
    if (!k.threads) k.threads = threads;
    return k;
}

ckpt_saver *checkpoint_saver(const state *s) {
    char directory[4096];
    snprintf(directory, sizeof directory, "%s/checkpoints", s->c.run_dir);
    tensor_list t = list_tensors(&s->model.p, &s->c.model);
    list_slices(&t, s);
    checkpoint_config k = resolved(&s->c, s->c.kernels.threads);
    ckpt_saver *saver = ckpt_saver_open(s->mesh.world, directory, &k, t.tensor, t.tensors, t.slice, t.slices);
    list_free(&t);
    return saver;
}

size_t checkpoint_saver_bytes(const config *c, const params *p, int ranks, int threads) {
    tensor_list t = list_tensors(p, &c->model);
    checkpoint_config k = resolved(c, threads);
    size_t bytes = ckpt_saver_bytes(t.tensor, t.tensors, &k, ranks);
    list_free(&t);
    return bytes;
}

/* What a resume compares with its own config. */
static void say_config(json_t *about, const config *c) {
    char digest[33];
    config_digest(c, digest);
    json_object_set_new(about, "seed", json_integer(c->train.seed));
    json_object_set_new(about, "config_digest", json_string(digest));
    json_object_set_new(about, "config", config_deciding(c));
}

/* Everything that is not a tensor.  The ranks are told only where they decide numbers: otherwise not a byte
 * of a checkpoint depends on them. */
static json_t *describe(const state *s, const json_t *inputs) {
    json_t *about = json_pack("{s:I, s:I, s:I, s:I, s:I}", "step", (json_int_t)s->step, "position",
                              (json_int_t)s->position, "adam_steps", (json_int_t)s->optimizer.steps,
                              "mtp_adam_steps", (json_int_t)s->optimizer.mtp_steps,
                              "controller_waiting_tokens", (json_int_t)s->history[0].waiting_tokens);
    json_object_update(about, (json_t *)inputs); /* reads them only */
    say_config(about, s->run);
    json_object_set_new(about, "spikes", spikes_to_json(&s->spikes));
    if (s->run->router.grad_ratio_target > 0)
        json_object_set_new(about, "lb_alpha", json_exact(s->c.router.lb_alpha));
    if (!s->mesh.rank_invariant) {
        json_object_set_new(about, "ranks", json_integer(s->mesh.ranks));
        json_object_set_new(about, "expert_parallel", json_integer(s->mesh.expert_parallel));
    }
    return about;
}

json_t *checkpoint_state_with(const json_t *about, const config *c) {
    json_t *copy = json_copy((json_t *)about); /* reads it only */
    say_config(copy, c);
    json_object_del(copy, INPUTS_DATA);
    return copy;
}

int checkpoint_preflight(const state *s, error *e) {
    char directory[4096];
    snprintf(directory, sizeof directory, "%s/checkpoints", s->c.run_dir);
    tensor_list t = list_tensors(&s->model.p, &s->c.model);
    int code = ckpt_preflight(directory, t.tensor, t.tensors, e);
    list_free(&t);
    return code;
}

int checkpoint_start(ckpt_saver *saver, const state *s, const json_t *inputs, error *e) {
    json_t *about = describe(s, inputs);
    read_pieces(s);
    ckpt_start(saver, s->step, about, e);
    json_decref(about);
    return e->code;
}

ckpt_tensor *checkpoint_tensors(const params *p, int64_t *n) {
    tensor_list t = list_tensors(p, &p->model);
    *n = t.tensors;
    return t.tensor;
}

void checkpoint_tensors_free(ckpt_tensor *tensor, int64_t n) {
    list_free(&(tensor_list){.tensor = tensor, .tensors = n});
}

json_t *checkpoint_describe_fresh(const config *c, const json_t *inputs) {
    bias_history none = {0};
    state fresh = {.run = c, .c = *c, .history = &none};
    return describe(&fresh, inputs);
}

/* ---- loading ---- */

/* What is to be read, and where it goes: kernels' tables by way of their twins. */
typedef struct wanted {
    ckpt *k;
    const kernels *backend;
    ckpt_slice *slice;
    void **table; /* NULL: the slice's data is the host's own */
    int64_t n;
} wanted;

/* Appends a slice of a named tensor, checking that the checkpoint has it with this shape. */
static int want(wanted *w, const char *name, int type, int rank, const int64_t *shape, int64_t offset,
                int64_t count, void *data, error *e) {
    const ckpt_tensor *all;
    ckpt_tensors(w->k, &all);
    int64_t i = ckpt_find(w->k, name);
    if (i < 0)
        return error_set(e, EXIT_CORRUPT, "%s has no tensor %s: it is a checkpoint of another model",
                         ckpt_path(w->k), name);
    const ckpt_tensor *t = &all[i];
    char has[SHAPE_TEXT], wanted[SHAPE_TEXT];
    if (t->type != type || t->rank != rank || memcmp(t->shape, shape, (size_t)rank * sizeof *shape))
        return error_set(
            e, EXIT_CORRUPT,
            "%s: tensor %s is %s %s, and this model wants %s %s: it is a checkpoint of another model",
            ckpt_path(w->k), name, ckpt_type_name(t->type), shape_text(t->rank, t->shape, has),
            ckpt_type_name(type), shape_text(rank, shape, wanted));
    w->slice[w->n++] = (ckpt_slice){i, offset, count, data};
    return 0;
}

/* The same for elements of a parameter, its weight or a moment, in the backend's memory. */
static int want_table(wanted *w, int what, const param *q, int64_t offset, int64_t count, real *table,
                      error *e) {
    char name[512];
    snprintf(name, sizeof name, "%s%s", param_prefix[what], q->name);
    if (want(w, name, CKPT_F32, q->rank, q->shape, offset, count, NULL, e)) return e->code;
    w->table[w->n - 1] = table;
    w->slice[w->n - 1].data = twin_alloc(w->backend, table, (size_t)count * sizeof(real), "a loaded tensor");
    return 0;
}

/* Every weight that this rank holds, whole. */
static int want_weights(const state *s, wanted *w, error *e) {
    const params *p = &s->model.p;
    int code = 0;
    for (int64_t i = 0; i < p->n && !code; i++) {
        const param *q = &p->param[i];
        if (q->offset >= 0)
            code = want_table(w, WEIGHT, q, 0, q->count, params_weight(p, s->model.weights, q), e);
    }
    return code;
}

static int want_layers(const state *s, wanted *w, int from, int to, error *e) {
    int code = 0;
    for (int64_t l = 0; l < s->c.model.num_layers; l++)
        for (int what = from; what < to && !code; what++) {
            char bias[256], name[512];
            bias_name(bias, sizeof bias, l);
            snprintf(name, sizeof name, "%s%s", layer_prefix[what], bias);
            int64_t count = what == BIAS ? experts_total(&s->c.model) : s->c.model.n_routed_experts;
            int type = what == BIAS ? CKPT_F32 : what == WAITING ? CKPT_I64 : CKPT_F64;
            code = want(w, name, type, 1, &count, 0, count, layer_data(s, l, what), e);
        }
    return code;
}

static int want_moments(const state *s, wanted *w, error *e) {
    const optimizer *o = &s->optimizer;
    int code = 0;
    for (int64_t i = 0; i < o->pieces; i++)
        for (int what = MOMENT_1; what < PER_PARAM && !code; what++) {
            const piece *q = &o->piece[i];
            code = want_table(w, what, &o->p->param[q->param], q->offset, q->count,
                              what == MOMENT_1 ? q->m : q->v, e);
        }
    return code;
}

static int load(state *s, ckpt *k, int everything, error *e) {
    int64_t room = s->model.p.n + 2 * s->optimizer.pieces + PER_LAYER * s->c.model.num_layers;
    wanted w = {.k = k,
                .backend = &s->k,
                .slice = mem_alloc((size_t)room * sizeof *w.slice, "the checkpoint's list"),
                .table = mem_alloc((size_t)room * sizeof *w.table, "the checkpoint's list")};
    int code = want_weights(s, &w, e);
    if (!code) code = want_layers(s, &w, BIAS, everything ? PER_LAYER : BIAS + 1, e);
    if (!code && everything) code = want_moments(s, &w, e);
    if (!code) ckpt_read(k, w.slice, w.n, e);
    for (int64_t i = 0; i < w.n; i++) {
        if (!w.table[i]) continue;
        twin_write(&s->k, w.table[i], w.slice[i].data, (size_t)w.slice[i].count * sizeof(real));
        twin_free(w.table[i], w.slice[i].data);
    }
    mem_free(w.slice);
    mem_free(w.table);
    return comm_agree(s->mesh.world, e);
}

static int64_t integer(const json_t *j, const char *key) {
    return json_integer_value(json_object_get(j, key));
}

/* Promise 2 holds without promise 3: a run goes on as it began, or not at all. */
static int same_ranks(const state *s, const ckpt *k, const json_t *about, error *e) {
    int64_t ranks = integer(about, "ranks"), ep = integer(about, "expert_parallel");
    if (s->mesh.rank_invariant || (ranks == s->mesh.ranks && ep == s->mesh.expert_parallel)) return 0;
    return error_set(
        e, EXIT_USAGE,
        "cannot resume from %s: with parallel.rank_invariant = false the number of ranks decides "
        "numbers, and it was trained on %lld (experts over %lld), not on %d (experts over %d): use "
        "as many as before, or take its weights alone with --init-from",
        ckpt_path(k), (long long)ranks, (long long)ep, s->mesh.ranks, s->mesh.expert_parallel);
}

int checkpoint_resume(state *s, ckpt *k, const json_t *inputs, error *e) {
    const json_t *about = ckpt_state(k);
    error why;
    if (config_compare(s->run, json_object_get(about, "config"), integer(about, "step"), &why))
        return error_set(
            e, why.code,
            "cannot resume from %s: %s; another run.dir begins anew, --init-from=CKPT takes the weights "
            "along, and `caracal grow CKPT OUT --times=1 --KEY=...` makes a run that goes on so "
            "(with the same model.*)",
            ckpt_path(k), why.text);
    if (inputs_compare(&s->c.data, inputs, about, e))
        return error_within(e, "cannot resume from %s", ckpt_path(k));
    if (same_ranks(s, k, about, e)) return e->code;
    s->step = integer(about, "step");
    s->position = integer(about, "position");
    s->optimizer.steps = integer(about, "adam_steps");
    s->optimizer.mtp_steps = integer(about, "mtp_adam_steps");
    for (int64_t l = 0; l < s->c.model.num_layers; l++)
        s->history[l].waiting_tokens = integer(about, "controller_waiting_tokens");
    spikes_from_json(&s->spikes, json_object_get(about, "spikes"));
    const json_t *alpha = json_object_get(about, "lb_alpha");
    if (alpha && s->run->router.grad_ratio_target > 0) state_set_lb_alpha(s, json_exact_value(alpha));
    return load(s, k, 1, e);
}

int checkpoint_init_from(state *s, ckpt *k, error *e) {
    return load(s, k, 0, e);
}
