#include <stdio.h>

#include "ckpt/commit.h"
#include "ckpt/diff.h"
#include "launch/memory.h"
#include "train/diff_parts.h"

/* ---- configs, and what else is no tensor ---- */

static void tell_leaf(int side, const json_t *value) {
    char *text = value && !json_is_string(value) ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    const char *word = value ? json_string_value(value) : "not there";
    printf("    %c  %s\n", "AB"[side], text ? text : word);
    mem_free(text);
}

int diff_tell_entries(const json_t *a, const json_t *b) {
    const char *key;
    json_t *value;
    int n = 0;
    for (int from = 0; from < 2; from++) json_object_foreach((json_t *)(from ? b : a), key, value) {
            const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
            if ((from && x) || (x && y && json_equal(x, y))) continue;
            printf("  %s\n", key);
            tell_leaf(0, x);
            tell_leaf(1, y);
            n++;
        }
    return n;
}

void diff_tell_config(comparison *c, const json_t *a, const json_t *b) {
    int equal = json_equal(a, b);
    printf("config          %s\n",
           equal ? "the same in every key that decides numbers" : "keys that decide numbers differ");
    diff_tell_entries(a, b);
    c->config_told = 1;
    c->different |= !equal;
}

/* ---- one pair ---- */

/* What the manifests hold beside tensors and config: counters, seed, tokenizer. */
static json_t *counters(const ckpt *k) {
    json_t *state = json_copy((json_t *)ckpt_state(k));
    json_object_del(state, "config");
    json_object_del(state, "config_digest");
    return state;
}

/* "identical in 3 steps, up to step 30" */
static void tell_equal(int64_t steps, int64_t last) {
    if (steps > 1) printf("identical in %lld steps, up to step %lld", (long long)steps, (long long)last);
    else printf("identical in step %lld", (long long)last);
}

static void tell_pair(const comparison *c, ckpt *const k[2], const ckpt_difference *d, const json_t *a,
                      const json_t *b) {
    long long step[2] = {ckpt_step(k[0]), ckpt_step(k[1])};
    printf("checkpoints     ");
    if (c->compared) tell_equal(c->compared, c->ckpt_last);
    if (step[0] == step[1]) printf("%sdifferent in step %lld\n", c->compared ? ", " : "", step[0]);
    else printf("A of step %lld and B of step %lld are different\n", step[0], step[1]);
    diff_tell_entries(a, b);
    if (d) ckpt_diff_tell(d);
    else printf("  all tensors     identical\n");
}

static int compare_open(comparison *c, ckpt *const k[2], error *e) {
    ckpt_difference *d;
    if (ckpt_diff(k[0], k[1], &d, e)) return e->code;
    json_t *state[2] = {counters(k[0]), counters(k[1])};
    const json_t *config[2];
    for (int i = 0; i < 2; i++) config[i] = json_object_get(ckpt_state(k[i]), "config");
    if (!c->config_told && config[0] && config[1]) diff_tell_config(c, config[0], config[1]);
    if (!d && ckpt_step(k[0]) == ckpt_step(k[1]) && json_equal(state[0], state[1])) {
        if (c->parted < 0 || ckpt_step(k[0]) < c->parted) c->ckpt_equal = ckpt_step(k[0]);
    } else {
        tell_pair(c, k, d, state[0], state[1]);
        c->ckpt_parted = ckpt_step(k[0]);
        c->different = 1;
    }
    if (!c->compared++ && ckpt_files(k[0]) != ckpt_files(k[1]))
        printf("layout          %lld files in A, %lld in B\n", (long long)ckpt_files(k[0]),
               (long long)ckpt_files(k[1]));
    c->ckpt_last = ckpt_step(k[0]);
    for (int i = 0; i < 2; i++) json_decref(state[i]);
    ckpt_diff_free(d);
    return 0;
}

static int compare_pair(comparison *c, int64_t step_a, int64_t step_b, error *e) {
    ckpt *k[2] = {NULL, NULL};
    int64_t step[2] = {step_a, step_b};
    for (int i = 0; i < 2 && !e->code; i++) {
        char *path = diff_checkpoint_path(&c->side[i], step[i]);
        ckpt_open(c->world, path, &k[i], e);
        mem_free(path);
    }
    if (!e->code) compare_open(c, k, e);
    for (int i = 0; i < 2; i++) ckpt_close(k[i]);
    return e->code;
}

/* ---- all that both have ---- */

char *diff_checkpoint_path(const side *s, int64_t step) {
    return s->kind == SIDE_CHECKPOINT ? mem_string(s->path) : step_path(s->directory, step, "");
}

static void tell_missing(const comparison *c) {
    for (int i = 0; i < 2; i++) {
        const side *s = &c->side[i];
        long long n = s->steps;
        printf("  %c has           %lld checkpoints", "AB"[i], n);
        if (n) printf(", of steps %lld to %lld", (long long)s->step[0], (long long)s->step[n - 1]);
        printf("\n");
    }
}

int diff_checkpoints(comparison *c, error *e) {
    const side *a = &c->side[0], *b = &c->side[1];
    if (a->kind == SIDE_CHECKPOINT && b->kind == SIDE_CHECKPOINT) {
        compare_pair(c, a->step[0], b->step[0], e);
    } else {
        for (int64_t i = 0, j = 0; i < a->steps && j < b->steps && c->ckpt_parted < 0 && !e->code;) {
            if (a->step[i] < b->step[j]) i++;
            else if (a->step[i] > b->step[j]) j++;
            else compare_pair(c, a->step[i++], b->step[j++], e);
        }
    }
    if (e->code || c->ckpt_parted >= 0) return e->code;
    printf("checkpoints     ");
    if (c->compared) tell_equal(c->compared, c->ckpt_last);
    else printf("no step has one in both");
    printf("\n");
    if (!c->compared) tell_missing(c);
    return 0;
}
