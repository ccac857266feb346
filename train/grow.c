#include "train/grow.h"

#include <stdio.h>
#include <string.h>

#include "launch/files.h"
#include "launch/memory.h"
#include "launch/options.h"
#include "train/checkpoint.h"
#include "train/session.h"

typedef struct grower {
    session x;     /* the world, and the smaller run's config */
    config larger; /* what the larger run's checkpoint will have been made with */
    ckpt *k;
    int has_smaller, has_larger;
} grower;

static int load_smaller(grower *g, const char *path, error *e) {
    char config_path[4096];
    if (session_config_of(path, config_path, sizeof config_path, e) ||
        config_load(&g->x.c, config_path, 0, NULL, e))
        return e->code;
    g->has_smaller = 1;
    if (session_checkpoint(&g->x, path, &g->k, e)) return e->code;
    if (config_compare(&g->x.c, json_object_get(ckpt_state(g->k), "config"), ckpt_step(g->k), e))
        return error_within(e, "%s is not the config of %s", config_path, ckpt_path(g->k));
    return 0;
}

/* The smaller run's config with more layers (as many, where times is 1), its own directory, and what the user
 * says: the way to give a run another schedule, which a resume alone would refuse. */
static int load_larger(grower *g, const char *path, const char *out, int64_t times, const options *o,
                       error *e) {
    char config_path[4096];
    int n = o->overrides;
    int64_t n_layers = g->x.c.model.num_layers * times;
    if (session_config_of(path, config_path, sizeof config_path, e)) return e->code;
    char **override = mem_alloc((size_t)(n + 2) * sizeof *override, "options");
    override[0] = text_of("--run.dir=%s", out);
    override[1] = text_of("--model.num_layers=%lld", (long long)n_layers);
    if (n) memcpy(override + 2, o->override, (size_t)n * sizeof *override);
    int code = config_load(&g->larger, config_path, n + 2, override, e);
    g->has_larger = !code;
    if (!code && (g->larger.model.num_layers != n_layers || strcmp(g->larger.run_dir, out)))
        code = error_set(e, EXIT_USAGE, "OUT and --times decide run.dir and model.num_layers");
    mem_free(override[0]);
    mem_free(override[1]);
    mem_free(override);
    return code;
}

/* Stacking changes the number of layers and nothing else of a model. */
static int check_model(const grower *g, error *e) {
    json_t *small = config_deciding(&g->x.c), *large = config_deciding(&g->larger), *value;
    const char *key;
    e->code = 0;
    json_object_foreach(small, key, value) {
        const char *was = json_string_value(value), *is = json_string_value(json_object_get(large, key));
        if (!e->code && !strncmp(key, "model.", 6) && strcmp(key, "model.num_layers") && strcmp(was, is))
            error_set(e, EXIT_USAGE, "%s = %s: growth stacks layers, the rest of the model stays: it is %s",
                      key, is, was);
    }
    json_decref(small);
    json_decref(large);
    if (!e->code && (g->x.c.loss.mtp_coef > 0) != (g->larger.loss.mtp_coef > 0))
        error_set(e, EXIT_USAGE, "loss.mtp_coef = %g: growth neither adds nor drops the MTP head: it is %g",
                  g->larger.loss.mtp_coef, g->x.c.loss.mtp_coef);
    return e->code;
}

static int grow(grower *g, const char *path, const char *out, int64_t times, const options *o, error *e) {
    if (comm_size(g->x.world) > 1)
        return error_set(e, EXIT_USAGE, "grow is one process: start it without mpirun");
    if (load_smaller(g, path, e) || load_larger(g, path, out, times, o, e) || check_model(g, e))
        return e->code;
    char *config_path = text_of("%s/config.yaml", out), *directory = text_of("%s/checkpoints", out);
    json_t *about = checkpoint_state_with(ckpt_state(g->k), &g->larger);
    int code = 0;
    if (path_exists(config_path))
        code = error_set(e, EXIT_USAGE, "%s is a run already: growth makes a new one", out);
    if (!code) code = ckpt_stack(g->k, directory, times, g->larger.checkpoint.shards, about, e);
    if (!code) code = config_save(&g->larger, out, e);
    if (!code)
        printf("%s: step %lld, %lld layers from the %lld of %s\ngo on with: caracal train %s/config.yaml\n",
               out, (long long)ckpt_step(g->k), (long long)g->larger.model.num_layers,
               (long long)g->x.c.model.num_layers, ckpt_path(g->k), out);
    json_decref(about);
    mem_free(config_path);
    mem_free(directory);
    return code;
}

int grow_command(int argc, char **argv) {
    int64_t times = 2;
    const option known[] = {{"times", .integer = &times, .min = 1, .max = 1000}, {0}};
    options o = {.usage = "usage: caracal grow CKPT OUT [--times=2] [--section.key=value ...]\n"
                          "  OUT becomes a run directory: config.yaml and checkpoints/step-N.  --times=1: "
                          "the same layers,\n"
                          "  for a run that goes on with another learning rate, schedule or mixture.\n",
                 .known = known,
                 .min_words = 2,
                 .max_words = 2,
                 .config = 1};
    if (!options_read(&o, argc, argv)) return o.code;
    grower g = {0};
    error e = {0};
    if (comm_open(&g.x.world, 600, &e)) return error_print(&e);
    int code = grow(&g, o.word[0], o.word[1], times, &o, &e);
    session_report(&g.x, &e);
    ckpt_close(g.k);
    if (g.has_larger) config_free(&g.larger);
    if (g.has_smaller) config_free(&g.x.c);
    comm_close(g.x.world);
    return code;
}
