/* Command lines of the form: COMMAND WORD ... --name=value ... --section.key=value ... */
#ifndef CARACAL_LAUNCH_OPTIONS_H
#define CARACAL_LAUNCH_OPTIONS_H

#include <stdint.h>

/* One option of a command, --name=VALUE.  The value goes to *text, as a whole number of [min, max] to
 * *integer, or as a number of [min, max] to *real; where it is given again the last counts.  With `most` it
 * may be given that often, and text[0 .. *given) are all the values. */
typedef struct option {
    const char *name;
    const char **text;
    int64_t *integer;
    double *real, min, max;
    int most, *given;
} option;

typedef struct options {
    const char *usage;        /* "usage: caracal COMMAND ...\n" */
    const option *known;      /* ended by one without a name; NULL: none */
    int min_words, max_words; /* arguments that are no options */
    int config;               /* other options are keys of the config */
    /* what options_read found, in argv's own memory */
    char **word, **override;
    int words, overrides;
    int code; /* the command's exit code where there is nothing more to do */
} options;

/* Reads argv[1..], and reorders it.  0: the command is over, with o->code: --help was asked for (0), or
 * stderr names what is wrong and shows the usage. */
int options_read(options *o, int argc, char **argv);
/* Says what is wrong and shows the usage, on stderr; returns o->code, which is EXIT_USAGE then. */
int options_refuse(options *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Levenshtein's distance between two names, to find what a mistyped one was meant to be. */
int name_distance(const char *a, const char *b);

#endif
