/* caracal inspect CKPT, caracal verify CKPT */
#include <stdio.h>

#include "ckpt/commit.h"
#include "ckpt/layout.h"
#include "ckpt/manifest.h"
#include "ckpt/verify.h"
#include "launch/files.h"
#include "launch/memory.h"
#include "launch/options.h"

#define CKPT_HELP "CKPT    (runs/NAME/checkpoints/step-00000200, or a run: its newest)\n"

/* Both commands take one word: 0 when there is nothing to do but return o->code. */
static int read_line(options *o, const char *usage, int argc, char **argv) {
    *o = (options){.usage = usage, .min_words = 1, .max_words = 1};
    return options_read(o, argc, argv);
}

/* The checkpoint that is meant: a run's or a directory's newest, damaged or not; a path without any is left
 * as it is, for the message of whoever reads it.  The caller's (mem_free). */
static char *checkpoint_meant(const char *path) {
    char *directory = ckpt_directory_of(path), *found = NULL;
    int64_t *steps, n;
    error none = {0};
    if (!ckpt_is_one(path) && !ckpt_steps(directory, &steps, &n, &none)) {
        if (n) found = step_path(directory, steps[n - 1], "");
        mem_free(steps);
    }
    mem_free(directory);
    return found ? found : mem_string(path);
}

/* ---- inspect ---- */

/* One line per leaf: `router.bias_step  200`. */
static void print_state(const char *path, const json_t *value) {
    const char *key;
    const json_t *child;
    size_t i;
    if (json_is_object(value)) {
        json_object_foreach((json_t *)value, key, child) {
            char *below = *path ? text_of("%s.%s", path, key) : mem_string(key);
            print_state(below, child);
            mem_free(below);
        }
    } else if (json_array_size(value) > 8) {
        printf("  %-32s %zu values\n", path, json_array_size(value));
    } else if (json_is_array(value)) {
        json_array_foreach(value, i, child) {
            char *below = text_of("%s[%zu]", path, i);
            print_state(below, child);
            mem_free(below);
        }
    } else {
        char *text = json_dumps(value, JSON_ENCODE_ANY);
        printf("  %-32s %s\n", path, text);
        mem_free(text);
    }
}

static void print_tensor(const manifest *m, int64_t i) {
    const ckpt_tensor *t = &m->tensor[i];
    char hex[33], shape[96] = "";
    digest_text(m->digest[i], hex);
    for (int k = 0, n = 0; k < t->rank; k++)
        n += snprintf(shape + n, sizeof shape - (size_t)n, "%s%lld", k ? " x " : "", (long long)t->shape[k]);
    printf("  %s  %-8s %-16s %13lld  %3lld  %s\n", hex, ckpt_type_name(t->type), shape,
           (long long)ckpt_bytes(t), (long long)m->file_of[i], t->name);
}

int ckpt_inspect_command(int argc, char **argv) {
    error e = {0};
    manifest m;
    char hex[33];
    uint64_t stored = 0, raw = 0; /* a manifest may say anything */
    options o;
    if (!read_line(&o, "usage: caracal inspect " CKPT_HELP, argc, argv)) return o.code;
    if (ckpt_expected(o.word[0], &e)) return error_print(&e);
    char *path = checkpoint_meant(o.word[0]);
    if (manifest_load(&m, path, &e)) {
        mem_free(path);
        return error_print(&e);
    }
    for (int64_t i = 0; i < m.n_files; i++) stored += (uint64_t)m.file[i].bytes;
    for (int64_t i = 0; i < m.n_tensors; i++) raw += ckpt_bytes(&m.tensor[i]);
    printf("%s: step %lld, format version %d\n", path, (long long)m.step, CKPT_VERSION);
    printf("%lld tensors of %llu bytes in %lld files of %llu bytes (%.3f to 1)\n", (long long)m.n_tensors,
           (unsigned long long)raw, (long long)m.n_files, (unsigned long long)stored,
           stored ? (double)raw / (double)stored : 1.0);
    printf("\nstate\n");
    print_state("", m.state);
    printf("\nfiles (xxh3-128, bytes, name)\n");
    for (int64_t i = 0; i < m.n_files; i++) {
        digest_text(m.file[i].digest, hex);
        printf("  %s  %13lld  %s\n", hex, (long long)m.file[i].bytes, m.file[i].name);
    }
    printf("\ntensors (xxh3-128, type, shape, bytes, file, name)\n");
    for (int64_t i = 0; i < m.n_tensors; i++) print_tensor(&m, i);
    manifest_free(&m);
    mem_free(path);
    return 0;
}

/* ---- verify ---- */

/* The file's digest says whether it is damaged; its datasets are looked at in any case. */
static int check_shard(const char *directory, const manifest *m, int64_t file, error *e) {
    int code = verify_file(directory, &m->file[file], e);
    if (code == EXIT_CORRUPT) verify_locate(directory, m, file, e);
    return code ? code : verify_datasets(directory, m, file, e);
}

int ckpt_verify_command(int argc, char **argv) {
    error e = {0};
    manifest m;
    int code = 0;
    options o;
    if (!read_line(&o, "usage: caracal verify " CKPT_HELP, argc, argv)) return o.code;
    if (ckpt_expected(o.word[0], &e)) return error_print(&e);
    char *path = checkpoint_meant(o.word[0]);
    if (manifest_load(&m, path, &e)) {
        mem_free(path);
        return error_print(&e);
    }
    for (int64_t i = 0; i < m.n_files; i++) {
        error why = {0};
        if (!check_shard(path, &m, i, &why)) {
            printf("ok       %s\n", m.file[i].name);
            continue;
        }
        printf("damaged  %s\n", m.file[i].name);
        fflush(stdout);
        error_print(&why);
        if (!code) code = why.code;
    }
    if (!code)
        printf("%s: step %lld verifies: %lld tensors in %lld files\n", path, (long long)m.step,
               (long long)m.n_tensors, (long long)m.n_files);
    manifest_free(&m);
    mem_free(path);
    return code;
}
