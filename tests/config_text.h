/* What tests of the config share: a text in a file of the test's own directory, and small changes to it. */
#ifndef CARACAL_TESTS_CONFIG_TEXT_H
#define CARACAL_TESTS_CONFIG_TEXT_H

#include <cmocka.h>

#include "tests/scratch.h"
#include "train/config.h"

/* Loads `text` with up to two overrides (NULL: none). */
static inline int load_text(scratch *s, config *c, const char *text, const char *first, const char *second,
                            error *e) {
    char one[256], two[256], *arguments[2] = {one, two};
    snprintf(one, sizeof one, "%s", first ? first : "");
    snprintf(two, sizeof two, "%s", second ? second : "");
    *e = (error){0};
    return config_load(c, scratch_write(s, "c.yaml", text), !!first + !!second, arguments, e);
}

/* The good text with `from` replaced by `to`; the next call overwrites it. */
static inline const char *edited_text(const char *good, const char *from, const char *to) {
    static char text[4096];
    const char *at = strstr(good, from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    return text;
}

#endif
