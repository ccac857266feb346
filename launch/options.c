#include "launch/options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/error.h"

/* One row of the table at a time. */
int name_distance(const char *a, const char *b) {
    enum { LONGEST = 63 };
    size_t n = strnlen(a, LONGEST), m = strnlen(b, LONGEST);
    int row[LONGEST + 1];
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

int options_refuse(options *o, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "caracal: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n%s", o->usage);
    va_end(args);
    return o->code = EXIT_USAGE;
}

/* What follows returns o->code. */

static int take(options *o, const option *p, const char *value) {
    if (p->integer) {
        char *end;
        errno = 0;
        long long n = strtoll(value, &end, 10);
        if (end == value || *end || errno || (double)n < p->min || (double)n > p->max)
            return options_refuse(o, "--%s=%s: a whole number from %.0f to %.0f is wanted", p->name, value,
                                  p->min, p->max);
        *p->integer = n;
        return 0;
    }
    if (p->real) {
        char *end;
        double x = strtod(value, &end);
        if (end == value || *end || !(x >= p->min && x <= p->max))
            return options_refuse(o, "--%s=%s: a number from %g to %g is wanted", p->name, value, p->min,
                                  p->max);
        *p->real = x;
        return 0;
    }
    if (p->most && *p->given == p->most)
        return options_refuse(o, "--%s: may be given %d times", p->name, p->most);
    p->text[p->most ? (*p->given)++ : 0] = value;
    return 0;
}

/* An option that is not known: one of ours mistyped, a key of the config, or nothing. */
static int other(options *o, char *arg) {
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
    const option *nearest = NULL;
    int best = 2 + (int)strlen(name) / 4;
    for (const option *p = o->known; p && p->name; p++) {
        int distance = name_distance(p->name, name);
        if (distance < best) best = distance, nearest = p;
    }
    if (nearest && best == 0) return options_refuse(o, "--%s needs a value: --%s=...", name, name);
    if (nearest && !strchr(name, '.'))
        return options_refuse(o, "there is no option --%s; did you mean --%s?", name, nearest->name);
    if (!o->config) return options_refuse(o, "there is no option --%s", name);
    o->override[o->overrides++] = arg;
    return 0;
}

/* Words come first: those overrides that were read before it move up. */
static int word(options *o, char *arg) {
    const char *before = o->overrides ? o->override[o->overrides - 1] : "=";
    if (!strchr(before, '=')) return options_refuse(o, "%s needs a value: %s=%s", before, before, arg);
    if (o->words == o->max_words) return options_refuse(o, "%s: one argument too many", arg);
    memmove(o->override + 1, o->override, (size_t)o->overrides * sizeof *o->override);
    o->word[o->words++] = arg;
    o->override++;
    return 0;
}

static int read_one(options *o, char *arg) {
    if (arg[0] != '-') return word(o, arg);
    if (arg[1] != '-') return options_refuse(o, "there is no option %s", arg);
    for (const option *p = o->known; p && p->name; p++) {
        size_t n = strlen(p->name);
        if (!strncmp(arg + 2, p->name, n) && arg[2 + n] == '=') return take(o, p, arg + 3 + n);
    }
    return other(o, arg);
}

int options_read(options *o, int argc, char **argv) {
    o->word = o->override = argv + 1;
    o->words = o->overrides = o->code = 0;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(o->usage, stdout);
            return 0;
        }
    for (int i = 1; i < argc; i++)
        if (read_one(o, argv[i])) return 0;
    return o->words >= o->min_words || !options_refuse(o, "%s: an argument is missing", argv[0]);
}
