#include "launch/flip.h"

#include <stdlib.h>
#include <string.h>

static const char variable[] = "CARACAL_TEST_FLIP";

static int refuse(error *e, const char *text, const char *why) {
    return error_set(e, EXIT_USAGE, "%s=\"%s\": %s (this variable is for tests only: unset it)", variable,
                     text, why);
}

/* The value of key= in a text of words, copied to `out`; 0 when the key is not there. */
static int value_of(const char *text, const char *key, char *out, size_t size) {
    size_t n = strlen(key);
    for (const char *at = strchr(text, ' '); at; at = strchr(at, ' ')) {
        at++;
        if (strncmp(at, key, n) || at[n] != '=') continue;
        size_t length = strcspn(at + n + 1, " ");
        if (length >= size) return 0;
        memcpy(out, at + n + 1, length);
        out[length] = 0;
        return 1;
    }
    return 0;
}

/* A whole number; `tail` is what may stand behind it or instead of it. */
static int number_of(const char *text, const char *key, const char *tail, int *tailed, int64_t *out) {
    char value[32], *end;
    if (!value_of(text, key, value, sizeof value)) return 0;
    *out = strtoll(value, &end, 10);
    int has_tail = tail && !strcmp(end, tail);
    if (tailed) *tailed = has_tail;
    return (end != value || has_tail) && (!*end || has_tail) && *out >= 0;
}

int flip_read(bit_flip *f, int rank, error *e) {
    static const char *const kinds[] = {"", "weight ", "gemm ", "attention ", "message "};
    const char *text = getenv(variable);
    int64_t bit, who;
    int all;
    *f = (bit_flip){.rank = rank};
    if (!text) return 0;
    int kind = FLIP_MESSAGE;
    while (kind && strncmp(text, kinds[kind], strlen(kinds[kind]))) kind--;
    if (!kind) return refuse(e, text, "must begin with weight, gemm, attention or message");
    if (!number_of(text, "step", "+", &f->lasting, &f->step) ||
        !number_of(text, "index", NULL, NULL, &f->index) || !number_of(text, "bit", NULL, NULL, &bit))
        return refuse(e, text, "needs step=, index= and bit=");
    f->bit = (int)bit;
    if (!number_of(text, "rank", "all", &all, &who)) return refuse(e, text, "needs rank=, a number or all");
    int matters = all || who == rank;
    if (kind != FLIP_WEIGHT && !number_of(text, "layer", "all", &all, &f->layer))
        return refuse(e, text, "needs layer=, a number or all");
    if (kind != FLIP_WEIGHT && all) f->layer = FLIP_ALL_LAYERS;
    if ((kind == FLIP_WEIGHT || kind == FLIP_MESSAGE) &&
        !value_of(text, kind == FLIP_WEIGHT ? "tensor" : "operation", f->name, sizeof f->name))
        return refuse(e, text, kind == FLIP_WEIGHT ? "needs tensor=" : "needs operation=");
    for (char *c = f->name; kind == FLIP_MESSAGE && *c; c++)
        if (*c == '_') *c = ' '; /* operations have names of several words */
    if (matters) f->kind = kind;
    return 0;
}

int flip_due(const bit_flip *f, enum flip_kind kind, int64_t layer) {
    return f && f->kind == kind && (f->now == f->step || (f->lasting && f->now > f->step)) &&
           (f->layer == FLIP_ALL_LAYERS || f->layer == layer);
}

int64_t flip_element(const bit_flip *f, int64_t elements) {
    return f->index % elements;
}

void flip_strike(const bit_flip *f, const char *what, int64_t i, void *element, size_t size) {
    size_t bit = (size_t)f->bit % (8 * size);
    unsigned char *byte = (unsigned char *)element + bit / 8;
    *byte = (unsigned char)(*byte ^ 1u << bit % 8);
    notice("rank %d: FAULT INJECTED by %s: step %lld, bit %zu of element %lld of %s", f->rank, variable,
           (long long)f->now, bit, (long long)i, what);
}

void flip_strike_in(const bit_flip *f, const char *what, void *data, int64_t elements, size_t size) {
    if (!elements) return;
    int64_t i = flip_element(f, elements);
    flip_strike(f, what, i, (char *)data + (size_t)i * size, size);
}
