/* data.stages: what changes on the way of a run, from YAML to complete stages. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "train/config_reader.h"

static const char prefix[] = "data.stages: ";

/* ---- from YAML ---- */

static int64_t source_named(const data_config *d, const char *name) {
    int64_t s = 0;
    while (s < d->sources && strcmp(d->source[s].name, name)) s++;
    return s;
}

/* weights: {source: weight, ...}, each source once. */
static int read_weights(reader *r, place at, const yaml_node_t *node, data_stage *g) {
    static const config_key key = {"weight", KEY_REAL, 0, sizeof(double), 0, KEY_UNBOUNDED, NULL, "", 1, ""};
    const data_config *d = &r->c->data;
    int line[DATA_MAX_SOURCES] = {0};
    double sum = 0;
    if (node->type != YAML_MAPPING_NODE)
        return error_set(r->e, EXIT_USAGE, "%s: %sweights must be a mapping {source: weight, ...}", at.text,
                         prefix);
    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
        const char *name = reader_scalar(reader_node(r, p->key)),
                   *text = reader_scalar(reader_node(r, p->value));
        char full[160];
        at = reader_place(r, reader_node(r, p->key));
        if (!name || !text)
            return error_set(r->e, EXIT_USAGE, "%s: %sweights: %.100s must be a single value", at.text,
                             prefix, name ? name : "a key");
        int64_t s = source_named(d, name);
        if (s == d->sources)
            return error_set(r->e, EXIT_USAGE, "%s: %sweights: there is no source %.100s in data.sources",
                             at.text, prefix, name);
        snprintf(full, sizeof full, "%sweights: %.100s", prefix, name);
        if (reader_set_once(&line[s], at, "", full, r->e) ||
            config_value_parse(&key, &g->weight[s], text, at.text, full, r->e))
            return r->e->code;
        sum += g->weight[s];
    }
    for (int64_t s = 0; s < d->sources; s++)
        if (!line[s])
            return error_set(r->e, EXIT_USAGE,
                             "%s: %sweights: source %s has none; every source needs one (0: none of it)",
                             at.text, prefix, d->source[s].name);
    if (!(sum > 0) || !isfinite(sum))
        return error_set(r->e, EXIT_USAGE, "%s: %sweights: their sum is %g; it must be above 0", at.text,
                         prefix, sum);
    return 0;
}

/* Whether the stage fits behind the one before it. */
static int check_place(const reader *r, const data_stage *g, int weighted, place at) {
    const data_stage *before = g > r->c->data.stage ? g - 1 : NULL;
    if (g->ramp && !weighted)
        return error_set(r->e, EXIT_USAGE, "%s: %sramp = %" PRId64 ": moves weights, and there are none here",
                         at.text, prefix, g->ramp);
    if (before && g->after <= before->after)
        return error_set(r->e, EXIT_USAGE,
                         "%s: %safter = %" PRId64 ": stages stand in order, and the one before has after = "
                         "%" PRId64,
                         at.text, prefix, g->after, before->after);
    if (before && g->after - before->after < before->ramp)
        return error_set(r->e, EXIT_USAGE,
                         "%s: %safter = %" PRId64 ": overlaps the stage before, which has after = %" PRId64
                         " and ramp = %" PRId64,
                         at.text, prefix, g->after, before->after, before->ramp);
    return 0;
}

static int read_stage(reader *r, yaml_node_t *node, data_stage *g) {
    place at = reader_place(r, node);
    int line[8] = {0}, weights_line = 0;
    r->o->stage_line[g - r->c->data.stage] = at.line;
    if (node->type != YAML_MAPPING_NODE)
        return error_set(r->e, EXIT_USAGE, "%s: %san entry must be a mapping {after, weights, ramp, ...}",
                         at.text, prefix);
    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
        yaml_node_t *value = reader_node(r, p->value);
        const char *name = reader_scalar(reader_node(r, p->key)), *text = reader_scalar(value);
        place here = reader_place(r, reader_node(r, p->key));
        char full[128];
        if (name && !strcmp(name, "weights")) {
            if (reader_set_once(&weights_line, here, prefix, name, r->e) || read_weights(r, here, value, g))
                return r->e->code;
            continue;
        }
        if (!name || !text)
            return error_set(r->e, EXIT_USAGE, "%s: %s%.100s must be a single value", here.text, prefix,
                             name ? name : "a key");
        int k = config_key_find(config_stage_keys, config_stage_key_count, name);
        if (k < 0)
            return reader_unknown_key(config_stage_keys, config_stage_key_count, here.text, prefix, name,
                                      r->e);
        snprintf(full, sizeof full, "%s%s", prefix, name);
        if (reader_set_once(&line[k], here, prefix, name, r->e) ||
            config_value_parse(&config_stage_keys[k], g, text, here.text, full, r->e))
            return r->e->code;
    }
    if (!g->after)
        return error_set(r->e, EXIT_USAGE, "%s: %san entry has no after: the steps done before it begins",
                         at.text, prefix);
    return check_place(r, g, weights_line, at);
}

int reader_stages(reader *r, yaml_node_t *node) {
    data_config *d = &r->c->data;
    place at = reader_place(r, node);
    if (node->type != YAML_SEQUENCE_NODE)
        return error_set(r->e, EXIT_USAGE,
                         "%s: data.stages must be a list of mappings {after, weights, ramp, ...}", at.text);
    for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
        if (d->stages == DATA_MAX_STAGES)
            return error_set(r->e, EXIT_USAGE, "%s: data.stages has more than %d entries", at.text,
                             DATA_MAX_STAGES);
        if (read_stage(r, reader_node(r, *i), &d->stage[d->stages++])) return r->e->code;
    }
    return 0;
}

/* ---- complete ---- */

/* A config's first stage is what stands outside the list. */
static data_stage first_stage(const config *c) {
    data_stage g = {.seq_len = c->train.seq_len,
                    .micro_batches = c->train.micro_batches,
                    .micro_batch_size = c->train.micro_batch_size,
                    .rope_theta = c->model.rope_theta};
    for (int64_t s = 0; s < c->data.sources; s++) g.weight[s] = c->data.source[s].weight;
    return g;
}

static int weighted(const data_stage *g, int64_t sources) {
    for (int64_t s = 0; s < sources; s++)
        if (g->weight[s] > 0) return 1;
    return 0;
}

int config_stages_complete(config *c, const config_origin *o, error *e) {
    data_stage before = first_stage(c);
    for (int64_t k = 0; k < c->data.stages; k++) {
        data_stage *g = &c->data.stage[k];
        if (!g->seq_len) g->seq_len = before.seq_len;
        if (!g->micro_batches) g->micro_batches = before.micro_batches;
        if (!g->micro_batch_size) g->micro_batch_size = before.micro_batch_size;
        if (g->rope_theta == 0) g->rope_theta = before.rope_theta;
        if (!weighted(g, c->data.sources)) memcpy(g->weight, before.weight, sizeof g->weight);

        double batch = (double)g->micro_batches * (double)g->micro_batch_size;
        double rows = (double)g->micro_batch_size * (double)g->seq_len;
        double steps = (double)(g->after - before.after) * (double)before.micro_batches;
        double position = (double)before.position + steps * (double)before.micro_batch_size;
        if (rows * (double)c->model.moe_topk > INT32_MAX) /* dispatched rows are numbered with 32 bits */
            return error_set(e, EXIT_USAGE,
                             "%s:%d: %smicro_batch_size = %" PRId64 ": times seq_len = %" PRId64
                             " times model.moe_topk must be at most %d",
                             o->file, o->stage_line[k], prefix, g->micro_batch_size, g->seq_len, INT32_MAX);
        if (position + (double)g->ramp * batch > 0x1p53)
            return error_set(e, EXIT_USAGE, "%s:%d: %sis beyond sample 2^53 of the run", o->file,
                             o->stage_line[k], prefix);
        g->position = (int64_t)position;
        g->ramp_samples = g->ramp * g->micro_batches * g->micro_batch_size;
        before = *g;
    }
    return 0;
}
