/* Between a value and its text, in both directions. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/utf8.h"
#include "launch/memory.h"
#include "train/config_table.h"

typedef struct unit {
    const char *name;
    double factor;
} unit;

static const unit count_units[] = {{"", 1},         {"k", 1e3},      {"M", 1e6},      {"G", 1e9},
                                   {"T", 1e12},     {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
                                   {"TiB", 0x1p40}, {NULL, 0}};
static const unit time_units[] = {{"", 1},     {"ms", 1e-3}, {"s", 1}, {"m", 60},
                                  {"h", 3600}, {"d", 86400}, {NULL, 0}};
static const unit no_units[] = {{"", 1}, {NULL, 0}};

/* A finite number and one of the units, with nothing before, between or after. */
static int parse_number(const char *text, const unit *units, double *value) {
    if (!isdigit((unsigned char)*text) && !strchr("+-.", *text)) return 0; /* no blanks, inf, nan */
    char *end;
    double number = strtod(text, &end);
    if (end == text || strpbrk(text, "xX")) return 0;
    while (units->name && strcmp(units->name, end)) units++;
    if (!units->name) return 0;
    *value = number * units->factor;
    return isfinite(*value);
}

static int parse_integer(const char *text, int64_t *value) {
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    if (end != text && !*end && !isspace((unsigned char)*text)) return errno == 0;
    double number; /* 2e9, 1.5k: whole numbers that a double holds exactly */
    if (!parse_number(text, count_units, &number) || fabs(number) > 0x1p53 || number != floor(number))
        return 0;
    *value = (int64_t)number;
    return 1;
}

/* The position of a word in "a|b|c", or -1. */
static int word_index(const char *words, const char *text) {
    size_t n = strlen(text);
    for (int i = 0;; i++) {
        size_t length = strcspn(words, "|");
        if (n == length && !strncmp(words, text, n)) return i;
        if (!words[length]) return -1;
        words += length + 1;
    }
}

/* Only what config.yaml gives back: YAML refuses other bytes than UTF-8 and control characters, and takes a
 * line separator for a line's end. */
static int parse_text(const char *text, char **field) {
    size_t bytes = strlen(text);
    if (!bytes || utf8_valid_prefix(text, bytes) != bytes) return 0;
    for (int n; *text; text += n) {
        uint32_t c = utf8_get(text, &n);
        if (c < ' ' || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029 || c == 0xFEFF || c == 0xFFFE ||
            c == 0xFFFF)
            return 0;
    }
    mem_free(*field);
    *field = mem_string(text - bytes);
    return 1;
}

static int in_range(const config_key *key, double value) {
    return value >= key->min && value <= key->max;
}

int config_value_parse(const config_key *key, void *base, const char *text, const char *where,
                       const char *name, error *e) {
    void *field = (char *)base + key->offset;
    int64_t integer = 0;
    double number = 0;
    int word = 0, good = 0;
    switch (key->type) {
    case KEY_INT:
        if (key->words && !strcmp(key->words, text)) good = 1;
        else good = parse_integer(text, &integer) && in_range(key, (double)integer);
        if (good) *(int64_t *)field = integer;
        break;
    case KEY_REAL:
    case KEY_SECONDS:
        good = parse_number(text, key->type == KEY_REAL ? no_units : time_units, &number) &&
               in_range(key, number);
        if (good) *(double *)field = number;
        break;
    case KEY_BOOL:
        good = (word = word_index("false|true", text)) >= 0;
        if (good) *(int *)field = word;
        break;
    case KEY_ENUM:
        good = (word = word_index(key->words, text)) >= 0;
        if (good) *(int *)field = word;
        break;
    case KEY_WORD:
        good = word_index(key->words, text) >= 0 && strlen(text) < key->size;
        if (good) snprintf(field, key->size, "%s", text);
        break;
    case KEY_TEXT:
        good = parse_text(text, field);
        break;
    }
    if (good) return 0;
    char allowed[256];
    config_value_allowed(key, allowed, sizeof allowed);
    if (!*text) return error_set(e, EXIT_USAGE, "%s: %s has no value; it must be %s", where, name, allowed);
    return error_set(e, EXIT_USAGE, "%s: %s = %.200s: must be %s", where, name, text, allowed);
}

int config_seconds(const char *text, const char *name, double *seconds, error *e) {
    const config_key key = {.name = name, .type = KEY_SECONDS, .size = sizeof *seconds, .min = 1, .max = 1e9};
    return config_value_parse(&key, seconds, text, "command line", name, e);
}

void config_real_text(double x, char *text, size_t size) {
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, size, "%.*g", digits, x);
        if (strtod(text, NULL) == x) return;
    }
}

void config_value_text(const config_key *key, const void *base, char *text, size_t size) {
    const void *field = (const char *)base + key->offset;
    const char *words = key->words, *string;
    switch (key->type) {
    case KEY_INT:
        if (words && !*(const int64_t *)field) snprintf(text, size, "%s", words);
        else snprintf(text, size, "%" PRId64, *(const int64_t *)field);
        return;
    case KEY_REAL:
        config_real_text(*(const double *)field, text, size);
        return;
    case KEY_SECONDS:
        config_real_text(*(const double *)field, text, size - 1);
        strcat(text, "s");
        return;
    case KEY_BOOL:
        snprintf(text, size, "%s", *(const int *)field ? "true" : "false");
        return;
    case KEY_ENUM:
        for (int i = *(const int *)field; i > 0; i--) words += strcspn(words, "|") + 1;
        snprintf(text, size, "%.*s", (int)strcspn(words, "|"), words);
        return;
    case KEY_WORD:
        snprintf(text, size, "%s", (const char *)field);
        return;
    case KEY_TEXT:
        string = *(char *const *)field;
        snprintf(text, size, "%s", string ? string : "");
        return;
    }
}

/* "a, b or c" from "a|b|c" */
static void list_words(const char *words, char *text, size_t size) {
    size_t used = 0;
    *text = 0;
    while (used < size) {
        size_t length = strcspn(words, "|");
        int last = !words[length] || !strchr(words + length + 1, '|');
        const char *after = !words[length] ? "" : last ? " or " : ", ";
        used += (size_t)snprintf(text + used, size - used, "%.*s%s", (int)length, words, after);
        if (!words[length]) return;
        words += length + 1;
    }
}

void config_value_allowed(const config_key *key, char *text, size_t size) {
    static const char *const kinds[] = {
        [KEY_INT] = "an integer", [KEY_REAL] = "a number", [KEY_SECONDS] = "a time such as 90s, 10m or 2h"};
    switch (key->type) {
    case KEY_BOOL:
        snprintf(text, size, "true or false");
        return;
    case KEY_ENUM:
    case KEY_WORD:
        list_words(key->words, text, size);
        return;
    case KEY_TEXT:
        snprintf(text, size, "a text in UTF-8 without control characters");
        return;
    default:
        break;
    }
    char low[64], high[64] = "";
    if (key->min == KEY_ABOVE_ZERO) snprintf(low, sizeof low, "above 0");
    else snprintf(low, sizeof low, "at least %.10g", key->min);
    if (key->max == KEY_BELOW_ONE) snprintf(high, sizeof high, " and below 1");
    else if (key->max < KEY_UNBOUNDED) snprintf(high, sizeof high, " and at most %.10g", key->max);
    const char *name = key->type == KEY_INT && key->words ? key->words : "";
    snprintf(text, size, "%s%s%s, %s%s", name, *name ? " or " : "", kinds[key->type], low, high);
}
