#include "train/diff_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/memory.h"
#include "train/jsonl.h"

/* ---- which quantities differ, causes first ---- */

/* In the order in which a step computes them (train/step.c): what the forward pass sees layer by layer, what
 * comes out at its end, the gradients, which come from the last layer down, and what the update leaves. */
enum { AT_ONCE, LAYERS_UP, LAYERS_DOWN };
static const struct quantity {
    const char *name;
    int order;
} causes[] = {
    {"tokens", AT_ONCE},
    {"lr", AT_ONCE},
    {"router_similarity", LAYERS_UP},
    {"ffn_experts_mean", LAYERS_UP},
    {"ffn_experts_std", LAYERS_UP},
    {"expert_load_max_over_mean", LAYERS_UP},
    {"layer_output_max", LAYERS_UP},
    {"hidden_l2", AT_ONCE},
    {"hidden_max", AT_ONCE},
    {"lm_loss", AT_ONCE},
    {"z_loss", AT_ONCE},
    {"mtp_loss", AT_ONCE},
    {"lb_loss", AT_ONCE},
    {"loss", AT_ONCE},
    {"loss_hex", AT_ONCE},
    {"router_grad_ratio", LAYERS_DOWN},
    {"grad_rms_min", AT_ONCE},
    {"grad_rms_max", AT_ONCE},
    {"grad_norm", AT_ONCE},
    {"grad_norm_hex", AT_ONCE},
    {"bias_min", AT_ONCE},
    {"bias_max", AT_ONCE},
    {"digests", AT_ONCE},
};
enum { CAUSES = sizeof causes / sizeof *causes };

/* Absent digests are no difference: how often they are taken, and of what, decides no number. */
static int same_digests(const json_t *a, const json_t *b) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)a, key, value) {
        const json_t *other = json_object_get(b, key);
        if (other && !json_equal(value, other)) return 0;
    }
    return 1;
}

static int same_quantity(const char *key, const json_t *a, const json_t *b) {
    if (!strcmp(key, "digests")) return same_digests(a, b);
    return a && b && json_equal(a, b);
}

static const json_t *element(const json_t *value, int64_t layer) {
    return json_is_array(value) ? json_array_get(value, (size_t)layer) : value;
}

/* The layer in which the quantity differs first, seen in its order; 0 for what has no layers. */
static int64_t first_layer(const json_t *a, const json_t *b, int order) {
    if (!json_is_array(a) || !json_is_array(b)) return 0;
    int64_t n = (int64_t)(json_array_size(a) < json_array_size(b) ? json_array_size(a) : json_array_size(b));
    for (int64_t i = 0; i < n; i++) {
        int64_t l = order == LAYERS_DOWN ? n - 1 - i : i;
        if (!json_equal(element(a, l), element(b, l))) return l;
    }
    return n;
}

typedef struct place {
    const char *key;
    int64_t layer;
} place;

/* Of quantities that go up the layers together, the one that differs in the lowest layer counts. */
static place first_cause(const json_t *a, const json_t *b) {
    place found = {NULL, 0};
    for (int i = 0; i < CAUSES; i++) {
        const char *key = causes[i].name;
        if (found.key && causes[i].order != LAYERS_UP) return found;
        const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
        if ((!x && !y) || same_quantity(key, x, y)) continue;
        int64_t layer = first_layer(x, y, causes[i].order);
        if (!found.key || layer < found.layer) found = (place){key, layer};
        if (causes[i].order != LAYERS_UP) return found;
    }
    for (int side = 0; side < 2 && !found.key; side++) { /* quantities that this table does not know */
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(side ? b : a), key, value) {
            const json_t *other = json_object_get(side ? a : b, key);
            if (!found.key && !same_quantity(key, value, other))
                found = (place){key, first_layer(value, other, LAYERS_UP)};
        }
    }
    return found;
}

/* ---- step by step ---- */

typedef struct cursor {
    jsonl log;
    json_t *row;
    int64_t step; /* of row; INT64_MAX at the end */
} cursor;

static void advance(cursor *c) {
    json_decref(c->row);
    c->row = jsonl_next(&c->log);
    c->step = c->row ? c->log.step[c->log.next - 1] : INT64_MAX;
}

static int open_log(cursor *c, metrics_difference *m, int side, const char *run, error *e) {
    char path[4200];
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    if (jsonl_open(&c->log, path, e)) return e->code;
    m->rows[side] = c->log.rows;
    m->broken[side] = c->log.broken;
    m->first[side] = c->log.rows ? c->log.step[0] : -1;
    m->last[side] = c->log.rows ? c->log.step[c->log.rows - 1] : -1;
    advance(c);
    return 0;
}

static void keep(json_t *pair[2], json_t *a, json_t *b) {
    pair[0] = json_incref(a);
    pair[1] = json_incref(b);
}

static void compare_rows(metrics_difference *m, json_t *a, json_t *b, int64_t step) {
    json_t *x = json_object_get(a, "digests"), *y = json_object_get(b, "digests");
    m->common++;
    if (m->digest_parted < 0 && x && y) {
        if (same_digests(x, y)) m->digest_same = step;
        else m->digest_parted = step, keep(m->digest, x, y);
    }
    if (m->parted >= 0) return;
    if (!first_cause(a, b).key) m->same = step;
    else m->parted = step, keep(m->line, a, b);
}

int metrics_compare(metrics_difference *m, const char *a, const char *b, error *e) {
    cursor c[2] = {0};
    *m = (metrics_difference){.parted = -1, .same = -1, .digest_same = -1, .digest_parted = -1};
    if (!open_log(&c[0], m, 0, a, e)) open_log(&c[1], m, 1, b, e);
    while (!e->code && (c[0].row || c[1].row)) {
        int64_t step = c[0].step < c[1].step ? c[0].step : c[1].step;
        int has[2] = {c[0].step == step, c[1].step == step};
        if (has[0] && has[1]) compare_rows(m, c[0].row, c[1].row, step);
        for (int side = 0; side < 2; side++) {
            if (has[side] && !has[!side] && m->only[side]++ == 0) m->first_only[side] = step;
            if (has[side]) advance(&c[side]);
        }
    }
    for (int side = 0; side < 2; side++) {
        json_decref(c[side].row);
        jsonl_close(&c[side].log);
    }
    return e->code;
}

void metrics_difference_free(metrics_difference *m) {
    for (int side = 0; side < 2; side++) {
        json_decref(m->line[side]);
        json_decref(m->digest[side]);
    }
    *m = (metrics_difference){0};
}

/* ---- telling ---- */

/* A value as the file has it; a hexadecimal one in decimal too. */
static void tell_value(int side, const json_t *value) {
    const char *word = json_string_value(value);
    char *end = NULL, *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) : NULL;
    double x = word ? strtod(word, &end) : 0;
    printf("    %c  ", "AB"[side]);
    if (word && end != word && !*end) printf("%s = %.17g\n", word, x);
    else printf("%s\n", text ? text : "not there");
    mem_free(text);
}

/* The other quantities of the line that differ, in the file's order. */
static void tell_others(json_t *const line[2], const char *but) {
    const char *key;
    json_t *value;
    int n = 0;
    json_object_foreach(line[0], key, value) {
        if (!strcmp(key, but) || same_quantity(key, value, json_object_get(line[1], key))) continue;
        printf("%s%s", n++ ? ", " : "    also ", key);
    }
    json_object_foreach(line[1], key, value) {
        if (!strcmp(key, but) || json_object_get(line[0], key) || same_quantity(key, NULL, value)) continue;
        printf("%s%s", n++ ? ", " : "    also ", key);
    }
    if (n) printf("\n");
}

static void tell_parted(const metrics_difference *m) {
    place first = first_cause(m->line[0], m->line[1]);
    const json_t *value[2];
    for (int side = 0; side < 2; side++) value[side] = json_object_get(m->line[side], first.key);
    int layers = json_is_array(value[0]) && json_is_array(value[1]);
    printf("  first quantity  %s", first.key);
    if (layers) printf(", layer %lld", (long long)first.layer);
    printf("\n");
    for (int side = 0; side < 2 && strcmp(first.key, "digests"); side++) /* tell_digests has more to say */
        tell_value(side, layers ? element(value[side], first.layer) : value[side]);
    tell_others(m->line, first.key);
}

/* Digests of one line that differ: "weights, adam_m (layer 1, head)"; at most so many, the others counted. */
static void tell_keys(const json_t *a, const json_t *b) {
    enum { SHOWN = 6 };
    const char *key;
    json_t *value;
    int n = 0;
    json_object_foreach((json_t *)a, key, value) {
        const json_t *other = json_object_get(b, key);
        if (!other || json_equal(value, other)) continue;
        if (n++ < SHOWN) printf("%s%s", n > 1 ? ", " : "", key);
        if (!json_is_object(value)) continue;
        printf(" ");
        tell_keys(value, other);
    }
    if (n > SHOWN) printf(" and %d more", n - SHOWN);
}

static void tell_digests(const metrics_difference *m) {
    if (m->digest_same >= 0)
        printf("  digests of all parameters are equal up to step %lld", (long long)m->digest_same);
    if (m->digest_parted >= 0) {
        printf(
            "%s in step %lld: ", m->digest_same >= 0 ? ", and differ" : "  digests of all parameters differ",
            (long long)m->digest_parted);
        tell_keys(m->digest[0], m->digest[1]);
    }
    if (m->digest_same >= 0 || m->digest_parted >= 0) printf("\n");
}

void metrics_tell(const metrics_difference *m) {
    printf("metrics.jsonl   ");
    if (!m->rows[0] && !m->rows[1]) printf("neither run has a step\n");
    else if (!m->common) printf("no step is in both\n");
    else if (m->parted >= 0 && m->same >= 0)
        printf("identical up to step %lld, different in step %lld\n", (long long)m->same,
               (long long)m->parted);
    else if (m->parted >= 0) printf("different in the first step, %lld\n", (long long)m->parted);
    else
        printf("identical in %lld step%s, up to step %lld\n", (long long)m->common, m->common > 1 ? "s" : "",
               (long long)m->same);
    if (m->parted >= 0) tell_parted(m);
    tell_digests(m);
    for (int side = 0; side < 2; side++) {
        if (m->only[side] && m->first_only[side] > m->last[!side])
            printf("  then only %c goes on, to step %lld\n", "AB"[side], (long long)m -> last[side]);
        else if (m->only[side])
            printf("  only %c has      %lld steps, the first is %lld\n", "AB"[side],
                   (long long)m -> only[side], (long long)m -> first_only[side]);
        if (m->broken[side])
            printf("  %c has           %lld lines that cannot be read\n", "AB"[side],
                   (long long)m -> broken[side]);
    }
}
