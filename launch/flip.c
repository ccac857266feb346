#include "launch/flip.h"

#include <stdio.h>
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

static int number_of(const char *text, const char *key, int64_t *out) {
    char value[32], *end;
    if (!value_of(text, key, value, sizeof value)) return 0;
    *out = strtoll(value, &end, 10);
    return end != value && !*end && *out >= 0;
}

int flip_read(flip *f, int rank, error *e) {
    const char *text = getenv(variable);
    char who[32];
    int64_t bit, mine = rank;
    *f = (flip){.rank = rank};
    if (!text) return 0;
    if (strncmp(text, "weight ", 7)) return refuse(e, text, "must begin with weight");
    if (!number_of(text, "step", &f->step) || !number_of(text, "index", &f->index) ||
        !number_of(text, "bit", &bit))
        return refuse(e, text, "needs step=, index= and bit=");
    if (!value_of(text, "tensor", f->tensor, sizeof f->tensor)) return refuse(e, text, "needs tensor=");
    if (!value_of(text, "rank", who, sizeof who) || (strcmp(who, "all") && !number_of(text, "rank", &mine)))
        return refuse(e, text, "needs rank=, a number or all");
    f->bit = (int)bit;
    if (mine == rank) f->kind = FLIP_WEIGHT;
    return 0;
}

void flip_strike(const flip *f, const char *what, void *data, int64_t elements, size_t size) {
    if (f->index >= elements || (size_t)f->bit >= 8 * size)
        FAULT(EXIT_USAGE, "%s: %s has %lld elements of %zu bits", variable, what, (long long)elements,
              8 * size);
    unsigned char *byte = (unsigned char *)data + (size_t)f->index * size + (size_t)f->bit / 8;
    *byte = (unsigned char)(*byte ^ 1u << f->bit % 8);
    fprintf(stderr, "caracal: rank %d: FAULT INJECTED by %s: bit %d of element %lld of %s\n", f->rank,
            variable, f->bit, (long long)f->index, what);
}
