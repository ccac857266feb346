#include "ckpt/diff.h"

#include <stdio.h>
#include <string.h>

#include "ckpt/compare.h"
#include "ckpt/layout.h"
#include "launch/memory.h"

enum { GROUP_NAME = 32, SHOWN = 5 }; /* so many tensors of a kind are named, the others counted */

typedef struct group {
    char name[GROUP_NAME];
    int64_t tensors, elements; /* that both sides have in one shape */
    int64_t tensors_differ, elements_differ, nans;
    const ckpt_tensor *farthest; /* the tensor with the greatest distance, NULL: none has one */
    int64_t farthest_index;
    uint64_t distance;
} group;

struct ckpt_difference {
    ckpt *ckpt[2];
    const ckpt_tensor *tensor[2];
    int64_t n[2];
    group *group;
    int groups;
    const ckpt_tensor *first; /* the first tensor that differs, NULL: none */
    tensor_difference at_first;
    int64_t alone[2], reshaped; /* tensors that one side has, or both in other shapes */
};

/* ---- gathering ---- */

static group *group_of(ckpt_difference *c, const char *tensor) {
    char name[GROUP_NAME];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(tensor, "/"), tensor);
    for (int i = 0; i < c->groups; i++)
        if (!strcmp(c->group[i].name, name)) return &c->group[i];
    c->group = mem_grow(c->group, (size_t)(c->groups + 1) * sizeof *c->group, "groups of tensors");
    group *g = &c->group[c->groups++];
    *g = (group){0};
    strcpy(g->name, name);
    return g;
}

static void add(group *g, const ckpt_tensor *t, const tensor_difference *d) {
    g->tensors++;
    g->elements += ckpt_elements(t);
    if (!d->elements) return;
    g->tensors_differ++;
    g->elements_differ += d->elements;
    g->nans += d->nans;
    if (d->elements > d->nans && (!g->farthest || d->distance > g->distance)) {
        g->farthest = t;
        g->farthest_index = d->farthest.index;
        g->distance = d->distance;
    }
}

static int gather(ckpt_difference *c, error *e) {
    for (int64_t i = 0; i < c->n[0]; i++) {
        const ckpt_tensor *t = &c->tensor[0][i];
        tensor_difference d;
        int64_t j = ckpt_find(c->ckpt[1], t->name);
        if (j < 0 || !ckpt_same_shape(t, &c->tensor[1][j])) continue;
        if (ckpt_compare(c->ckpt[0], i, c->ckpt[1], j, &d, e)) return e->code;
        add(group_of(c, t->name), t, &d);
        if (!d.elements || c->first) continue;
        c->first = t;
        c->at_first = d;
    }
    return 0;
}

static void count_unmatched(ckpt_difference *c) {
    for (int side = 0; side < 2; side++)
        for (int64_t i = 0; i < c->n[side]; i++) {
            int64_t j = ckpt_find(c->ckpt[!side], c->tensor[side][i].name);
            c->alone[side] += j < 0;
            if (side == 0 && j >= 0) c->reshaped += !ckpt_same_shape(&c->tensor[0][i], &c->tensor[1][j]);
        }
}

int ckpt_diff(ckpt *a, ckpt *b, ckpt_difference **out, error *e) {
    ckpt_difference *c = mem_alloc(sizeof *c, "a comparison");
    *out = NULL;
    c->ckpt[0] = a;
    c->ckpt[1] = b;
    for (int side = 0; side < 2; side++) c->n[side] = ckpt_tensors(c->ckpt[side], &c->tensor[side]);
    int code = gather(c, e);
    count_unmatched(c);
    if (!code && (c->first || c->alone[0] || c->alone[1] || c->reshaped)) *out = c;
    else ckpt_diff_free(c);
    return code;
}

void ckpt_diff_free(ckpt_difference *c) {
    if (!c) return;
    mem_free(c->group);
    mem_free(c);
}

/* ---- telling ---- */

/* "[2][17]" */
static void place_text(const ckpt_tensor *t, int64_t index, char text[128]) {
    int64_t at[4];
    int n = 0;
    for (int k = t->rank - 1; k >= 0; index /= t->shape[k--]) at[k] = index % t->shape[k];
    for (int k = 0; k < t->rank; k++) n += snprintf(text + n, 128 - (size_t)n, "[%lld]", (long long)at[k]);
}

static void tell_alone(const ckpt_difference *c, int side) {
    int64_t shown = 0;
    for (int64_t i = 0; i < c->n[side] && shown < SHOWN; i++) {
        const char *name = c->tensor[side][i].name;
        if (ckpt_find(c->ckpt[!side], name) < 0 && ++shown)
            printf("  only %c has      %s\n", "AB"[side], name);
    }
    if (c->alone[side] > SHOWN)
        printf("  only %c has      %lld tensors in all\n", "AB"[side], (long long)c -> alone[side]);
}

static void tell_shapes(const ckpt_difference *c) {
    int64_t shown = 0;
    for (int64_t i = 0; i < c->n[0] && shown < SHOWN; i++) {
        const ckpt_tensor *t = &c->tensor[0][i];
        int64_t j = ckpt_find(c->ckpt[1], t->name);
        const ckpt_tensor *other = j < 0 ? NULL : &c->tensor[1][j];
        char a[SHAPE_TEXT], b[SHAPE_TEXT];
        if (!other || ckpt_same_shape(t, other)) continue;
        printf("  other shape     %s: A %s %s, B %s %s\n", t->name, ckpt_type_name(t->type),
               shape_text(t->rank, t->shape, a), ckpt_type_name(other->type),
               shape_text(other->rank, other->shape, b));
        shown++;
    }
    if (c->reshaped > SHOWN) printf("  other shape     %lld tensors in all\n", (long long)c->reshaped);
}

/* "4096 ULPs" */
static void distance_text(int type, uint64_t distance, char text[48]) {
    const char *unit = type == CKPT_I64 ? "" : distance == 1 ? " ULP" : " ULPs";
    snprintf(text, 48, "%llu%s", (unsigned long long)distance, unit);
}

static void tell_pair(int type, const element_pair *pair) {
    uint64_t distance, changed = pair->bits[0] ^ pair->bits[1];
    char text[ELEMENT_TEXT], apart[48];
    for (int side = 0; side < 2; side++) {
        element_text(type, pair->bits[side], text);
        printf("    %c  %s\n", "AB"[side], text);
    }
    if (element_distance(type, pair->bits, &distance)) {
        distance_text(type, distance, apart);
        printf("    %s apart%s", apart, distance ? "" : ": zeros of different sign");
    } else {
        int both = element_is_nan(type, pair->bits[0]) && element_is_nan(type, pair->bits[1]);
        printf("    %s", both ? "NaNs with different bits" : "no distance: one is NaN");
    }
    if (!(changed & (changed - 1))) printf("; one bit is flipped, number %d", __builtin_ctzll(changed));
    printf("\n");
}

static void tell_first(const ckpt_difference *c) {
    const ckpt_tensor *t = c->first;
    const element_pair *pair = &c->at_first.first;
    char shape[SHAPE_TEXT], place[128];
    place_text(t, pair->index, place);
    printf("  first tensor    %s, %s %s\n", t->name, ckpt_type_name(t->type),
           shape_text(t->rank, t->shape, shape));
    printf("  first element   %s (flat %lld)\n", place, (long long)pair->index);
    tell_pair(t->type, pair);
}

static void tell_group(const group *g) {
    printf("  %-20s %7lld of %-7lld %12lld of %-12lld", g->name, (long long)g->tensors_differ,
           (long long)g->tensors, (long long)g->elements_differ, (long long)g->elements);
    if (g->farthest) {
        char apart[48], place[128];
        const char *slash = strchr(g->farthest->name, '/');
        distance_text(g->farthest->type, g->distance, apart);
        place_text(g->farthest, g->farthest_index, place);
        printf(" %s, %s %s", apart, slash ? slash + 1 : g->farthest->name, place);
    }
    if (g->nans) printf("%s %lld with NaN", g->farthest ? ";" : "", (long long)g->nans);
    printf("\n");
}

void ckpt_diff_tell(const ckpt_difference *c) {
    for (int side = 0; side < 2; side++) tell_alone(c, side);
    tell_shapes(c);
    if (c->first) tell_first(c);
    printf("  %-20s %18s %28s  farthest apart\n", "group", "tensors differ", "elements differ");
    for (int i = 0; i < c->groups; i++) tell_group(&c->group[i]);
}
