#include "train/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *option_value(const char *arg, const char *name) {
    size_t n = strlen(name);
    return !strncmp(arg, "--", 2) && !strncmp(arg + 2, name, n) && arg[2 + n] == '=' ? arg + 3 + n : NULL;
}

int option_integer(const char *value, const char *name, long long min, long long max, long long *out) {
    char *end;
    errno = 0;
    *out = strtoll(value, &end, 10);
    if (end != value && !*end && !errno && *out >= min && *out <= max) return 1;
    fprintf(stderr, "caracal: --%s=%s: a whole number from %lld to %lld is wanted\n", name, value, min, max);
    return 0;
}
