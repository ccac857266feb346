/* Whether two configs give the same numbers: what a resume compares, and a sweep that goes on. */
#include <stdlib.h>
#include <string.h>

#include "train/config_table.h"

/* A stage that has not begun after so many steps: nothing came of it yet. */
static int to_come(const char *key, int64_t steps) {
    size_t n = strlen(CONFIG_STAGE_PREFIX);
    return !strncmp(key, CONFIG_STAGE_PREFIX, n) && strtoll(key + n, NULL, 10) >= steps;
}

/* What a config that says nothing has for a key; NULL where it has to say something, and for what is no key.
 */
static const char *standard_text(const char *name, char text[CONFIG_VALUE_TEXT]) {
    config c = {0};
    error none = {0};
    int k = config_key_find(config_keys, config_key_count, name);
    if (k < 0 || !config_keys[k].standard || config_keys[k].type == KEY_TEXT) return NULL;
    config_value_parse(&config_keys[k], &c, config_keys[k].standard, "", name, &none);
    config_value_text(&config_keys[k], &c, text, CONFIG_VALUE_TEXT);
    return text;
}

int config_differences(const json_t *ours, const json_t *was, int64_t steps, char *list, size_t size) {
    const json_t *side[] = {ours, was};
    size_t used = 0;
    list[0] = 0;
    for (int i = 0; i < 2; i++) {
        const char *key, *said[2];
        json_t *value;
        json_object_foreach((json_t *)side[i], key, value) {
            char text[CONFIG_VALUE_TEXT];
            const json_t *other = json_object_get(side[!i], key);
            if ((i && other) || to_come(key, steps) || used >= size) continue; /* seen from the other side */
            said[i] = json_string_value(value);
            said[!i] = other ? json_string_value(other) : standard_text(key, text);
            if (said[0] && said[1] && !strcmp(said[0], said[1])) continue;
            used += (size_t)snprintf(list + used, size - used, "%s%s is %s", used ? "; " : "", key,
                                     said[0] ? said[0] : "no longer there");
            if (used < size && said[0])
                used +=
                    (size_t)snprintf(list + used, size - used, ", was %s", said[1] ? said[1] : "not there");
        }
    }
    return used > 0;
}

int config_compare(const config *c, const json_t *deciding, int64_t steps, error *e) {
    json_t *ours = config_deciding(c);
    char list[1024];
    int differ = config_differences(ours, deciding, steps, list, sizeof list);
    json_decref(ours);
    if (!differ) return 0;
    return error_set(e, EXIT_USAGE, "this config gives other numbers than the checkpoint's: %s", list);
}
