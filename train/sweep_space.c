#include "train/sweep_space.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/math.h"
#include "launch/memory.h"
#include "launch/random.h"
#include "train/config_reader.h"

/* ---- values ---- */

/* A value of the key as its text says it: checked, as a number, and in the text that equal values share. */
static int read_value(const sweep_axis *a, const char *from, size_t n, double *number, char text[SWEEP_TEXT],
                      error *e) {
    char said[128];
    config *c = mem_alloc(sizeof *c, "a value");
    snprintf(said, sizeof said, "%.*s", (int)n, from);
    if (!config_value_parse(a->key, c, said, "--over", a->key->name, e)) {
        const void *field = (const char *)c + a->key->offset;
        *number = a->key->type == KEY_INT ? (double)*(const int64_t *)field : *(const double *)field;
        config_value_text(a->key, c, text, SWEEP_TEXT);
    }
    mem_free(c);
    return e->code;
}

/* The value at part t of the range, with six digits: one that people can type again, and that has the same
 * bits wherever it was computed.  The ends are as they were said. */
static void value_at(const sweep_axis *a, double t, char text[SWEEP_TEXT]) {
    double x = a->log ? fixed_exp(fixed_log(a->low) + t * (fixed_log(a->high) - fixed_log(a->low)))
                      : a->low + t * (a->high - a->low);
    snprintf(text, SWEEP_TEXT, a->key->type == KEY_INT ? "%.0f" : "%.6g", x);
    x = strtod(text, NULL);
    if (t == 0 || x < a->low) x = a->low;
    if (t == 1 || x > a->high) x = a->high;
    if (a->key->type == KEY_INT) snprintf(text, SWEEP_TEXT, "%.0f", x);
    else config_real_text(x, text, SWEEP_TEXT);
}

/* ---- axes ---- */

static int add_point(sweep_axis *a, const char *text, error *e) {
    if (a->points == SWEEP_POINTS)
        return error_set(e, EXIT_USAGE, "--over=%s: has more than %d values", a->key->name, SWEEP_POINTS);
    snprintf(a->point[a->points++], SWEEP_TEXT, "%s", text);
    return 0;
}

static int read_list(sweep_axis *a, const char *list, error *e) {
    char text[SWEEP_TEXT];
    for (const char *p = list;; p++) {
        double x;
        size_t n = strcspn(p, ",");
        if (read_value(a, p, n, &x, text, e)) return e->code;
        for (int i = 0; i < a->points; i++)
            if (!strcmp(a->point[i], text))
                return error_set(e, EXIT_USAGE, "--over=%s=%s: has %s twice", a->key->name, list, text);
        if (add_point(a, text, e)) return e->code;
        p += n;
        if (!*p) return 0;
    }
}

/* LOW:HIGH[:log][:POINTS] */
static int read_range(sweep_axis *a, const char *range, int random, error *e) {
    char text[SWEEP_TEXT];
    const char *high = strchr(range, ':') + 1, *rest = high + strcspn(high, ":");
    if (read_value(a, range, (size_t)(high - 1 - range), &a->low, text, e) ||
        read_value(a, high, (size_t)(rest - high), &a->high, text, e))
        return e->code;
    if (!strncmp(rest, ":log", 4) && (!rest[4] || rest[4] == ':')) a->log = 1, rest += 4;
    char *end = NULL;
    long points = *rest == ':' ? strtol(rest + 1, &end, 10) : 0;
    if (*rest && (end == rest + 1 || *end || points < 2 || points > SWEEP_POINTS))
        return error_set(e, EXIT_USAGE,
                         "--over=%s=%s: must be LOW:HIGH, LOW:HIGH:log, or either with :POINTS behind it, "
                         "from 2 to %d",
                         a->key->name, range, SWEEP_POINTS);
    if (!(a->low < a->high))
        return error_set(e, EXIT_USAGE, "--over=%s=%s: an empty range: %g is not below %g", a->key->name,
                         range, a->low, a->high);
    if (a->log && !(a->low > 0))
        return error_set(e, EXIT_USAGE, "--over=%s=%s: a logarithmic range must begin above 0", a->key->name,
                         range);
    if (random && !points) return 0;
    if (!points) points = 5;
    for (long i = 0; i < points; i++) {
        value_at(a, (double)i / (double)(points - 1), text);
        if (a->points && !strcmp(a->point[a->points - 1], text)) continue; /* whole numbers lie close */
        if (add_point(a, text, e)) return e->code;
    }
    return 0;
}

static int read_axis(sweep_space *s, const char *text, error *e) {
    sweep_axis *a = &s->axis[s->axes];
    const char *equals = strchr(text, '=');
    char name[64];
    snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - text) : 0, text);
    if (!*name || !equals[1])
        return error_set(
            e, EXIT_USAGE,
            "--over=%s: must be --over=KEY=VALUE,VALUE,... or --over=KEY=LOW:HIGH[:log][:POINTS]", text);
    int k = config_key_find(config_keys, config_key_count, name);
    if (k < 0) return reader_unknown_key(config_keys, config_key_count, "--over", "", name, e);
    a->key = &config_keys[k];
    if (a->key->type != KEY_INT && a->key->type != KEY_REAL) {
        char allowed[256];
        config_value_allowed(a->key, allowed, sizeof allowed);
        return error_set(e, EXIT_USAGE, "--over=%s: is no number (it must be %s), and cannot be searched",
                         name, allowed);
    }
    for (int i = 0; i < s->axes; i++)
        if (s->axis[i].key == a->key) return error_set(e, EXIT_USAGE, "--over=%s: is given twice", name);
    s->axes++;
    return strchr(equals + 1, ':') ? read_range(a, equals + 1, s->random, e) : read_list(a, equals + 1, e);
}

int sweep_space_read(sweep_space *s, int axes, const char *const *text, int64_t trials, uint64_t seed,
                     error *e) {
    *s = (sweep_space){.random = trials > 0, .seed = seed};
    e->code = 0;
    if (!axes)
        return error_set(e, EXIT_USAGE,
                         "nothing to search: --over=KEY=... says what, such as "
                         "--over=optim.lr=1e-4:1e-2:log");
    for (int i = 0; i < axes; i++)
        if (read_axis(s, text[i], e)) return e->code;
    s->trials = trials;
    if (s->random) return 0;
    s->trials = 1;
    for (int i = 0; i < s->axes && s->trials <= SWEEP_TRIALS; i++) s->trials *= s->axis[i].points;
    if (s->trials > SWEEP_TRIALS)
        return error_set(e, EXIT_USAGE, "a grid of more than %d points: --trials=N draws some at random",
                         SWEEP_TRIALS);
    return 0;
}

void sweep_value(const sweep_space *s, int64_t trial, int axis, char text[SWEEP_TEXT]) {
    const sweep_axis *a = &s->axis[axis];
    if (!s->random) {
        for (int i = 0; i < axis; i++) trial /= s->axis[i].points;
        snprintf(text, SWEEP_TEXT, "%s", a->point[trial % a->points]);
        return;
    }
    char stream[96];
    snprintf(stream, sizeof stream, "sweep %s", a->key->name);
    double u = random_uniform(s->seed, random_stream(stream), (uint64_t)trial);
    if (a->points) snprintf(text, SWEEP_TEXT, "%s", a->point[(int)(u * a->points)]);
    else value_at(a, u, text);
}

char *sweep_axis_text(const sweep_axis *a) {
    char low[SWEEP_TEXT], high[SWEEP_TEXT], *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) FAULT(EXIT_NO_MEMORY, "no memory for the text of an axis");
    config_real_text(a->low, low, sizeof low);
    config_real_text(a->high, high, sizeof high);
    if (!a->points) fprintf(out, "from %s to %s%s", low, high, a->log ? ", log" : "");
    for (int i = 0; i < a->points; i++) fprintf(out, "%s%s", i ? ", " : "", a->point[i]);
    fclose(out);
    return text;
}
