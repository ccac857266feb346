#include "train/sweep_target.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "launch/files.h"
#include "launch/memory.h"
#include "train/config_edit.h"

/* What transfer.proxy_width scales: all of it must be the proxy's, searched or not. */
static const char *const scaled[] = {"optim.lr", "init.embedding_std", "init.hidden_std",
                                     "init.unembedding_std"};
enum { SCALED = sizeof scaled / sizeof *scaled, SETTINGS = SCALED + SWEEP_AXES + 1 };

typedef struct setting {
    const char *name;
    char value[SWEEP_TEXT];
} setting;

/* The width that a proxy's values are meant for. */
static int64_t proxy_width(const config *proxy) {
    return proxy->transfer.proxy_width ? proxy->transfer.proxy_width : proxy->model.hidden_size;
}

static int settings_of(const config *best, const sweep_space *s, setting set[SETTINGS]) {
    int n = 0;
    for (int i = 0; i < SCALED; i++) set[n++].name = scaled[i];
    for (int a = 0; a < s->axes; a++) {
        int known = 0;
        for (int i = 0; i < SCALED; i++) known |= !strcmp(s->axis[a].key->name, scaled[i]);
        if (!known) set[n++].name = s->axis[a].key->name;
    }
    for (int i = 0; i < n; i++)
        config_value_text(&config_keys[config_key_find(config_keys, config_key_count, set[i].name)], best,
                          set[i].value, SWEEP_TEXT);
    set[n].name = "transfer.proxy_width";
    snprintf(set[n].value, SWEEP_TEXT, "%" PRId64, proxy_width(best));
    return n + 1;
}

static int load_with(config *c, const char *path, int n, const setting *set, error *e) {
    char *override[SETTINGS];
    for (int i = 0; i < n; i++) override[i] = text_of("--%s=%s", set[i].name, set[i].value);
    config_load(c, path, n, override, e);
    for (int i = 0; i < n; i++) mem_free(override[i]);
    return e->code;
}

int sweep_target_check(const char *target, const config *proxy, const sweep_space *s, error *e) {
    setting set[SETTINGS];
    config c;
    for (int a = 0; a < s->axes; a++)
        if (!strncmp(s->axis[a].key->name, "model.", 6) || !strncmp(s->axis[a].key->name, "transfer.", 9))
            return error_set(e, EXIT_USAGE,
                             "--target with --over=%s: a target needs one proxy, whose model stays as it is",
                             s->axis[a].key->name);
    if (load_with(&c, target, settings_of(proxy, s, set), set, e)) return error_within(e, "--target");
    if (c.model.hidden_size < proxy_width(proxy))
        error_set(e, EXIT_USAGE,
                  "--target=%s: model.hidden_size = %" PRId64 " is narrower than the proxy's %" PRId64
                  ": values go from a narrow model to a wider one",
                  target, c.model.hidden_size, proxy_width(proxy));
    config_free(&c);
    return e->code;
}

/* The target's text with the settings in it, or NULL where aliases are in the way. */
static char *edited_text(const char *target, const config *best, const char *from, int n, const setting *set,
                         error *e) {
    char *text, *all = NULL;
    size_t bytes;
    if (read_file(target, &text, &bytes, e)) return NULL;
    for (int i = 0; text && i < n; i++) text = config_edit(text, set[i].name, set[i].value);
    if (text)
        all = text_of("# Learning rate and initial deviations: %s, %" PRId64 " wide.\n%s", from,
                      proxy_width(best), text);
    mem_free(text);
    return all;
}

/* Does the file at `path` say what the target would say with the settings on the command line? */
static int says(const char *path, const char *target, int n, const setting *set) {
    config wanted, written;
    error e = {0};
    int same = 0;
    if (load_with(&wanted, target, n, set, &e)) return 0;
    if (!config_load(&written, path, 0, NULL, &e)) {
        json_t *a = config_deciding(&wanted), *b = config_deciding(&written);
        same = json_equal(a, b);
        json_decref(a);
        json_decref(b);
        config_free(&written);
    }
    config_free(&wanted);
    return same;
}

int sweep_target_write(const char *target, const char *out, const config *best, const sweep_space *s,
                       const char *from, error *e) {
    setting set[SETTINGS];
    int n = settings_of(best, s, set);
    e->code = 0;
    char *temporary = text_of("%s.new", out), *text = edited_text(target, best, from, n, set, e);
    if (text) write_file(temporary, text, strlen(text), e);
    if (!e->code) {
        if (text && says(temporary, target, n, set)) move_into_place(temporary, out, e);
        else
            error_set(e, EXIT_USAGE,
                      "%s: its YAML cannot be edited in place (aliases?): write values where aliases stand",
                      target);
    }
    if (e->code) unlink(temporary);
    mem_free(text);
    mem_free(temporary);
    return e->code;
}
