/* Paths in a config are seen from where `caracal` is started.  The config.yaml that a run leaves is read from
 * elsewhere, too: what is not found from here is looked for from where the run was started, which lies as far
 * above its directory as run.dir says. */
#include <stdlib.h>
#include <string.h>

#include "launch/files.h"
#include "launch/memory.h"
#include "train/config_table.h"

/* Where a run was started whose directory, `run_dir` seen from there, is the one of `file`; NULL: that cannot
 * be told (mem_free). */
static char *start_of_run(const char *file, const char *run_dir) {
    const char *slash = strrchr(file, '/');
    char *above = slash ? text_of("%.*s", (int)(slash - file + 1), file) : mem_string(".");
    char *path = realpath(above, NULL), *start = NULL;
    while (!strncmp(run_dir, "./", 2)) run_dir += 2;
    size_t n = strlen(run_dir), whole = path ? strlen(path) : 0;
    while (n && run_dir[n - 1] == '/') n--;
    if (n && *run_dir != '/' && whole > n && path[whole - n - 1] == '/' &&
        !strncmp(path + whole - n, run_dir, n))
        start = text_of("%.*s", (int)(whole - n), path);
    mem_free(above);
    free(path);
    return start;
}

/* suffix: of the file that has to be there. */
static void find(char **path, const char *suffix, const char *start) {
    if (!*path || **path == '/') return;
    char *here = text_of("%s%s", *path, suffix), *there = text_of("%s%s%s", start, *path, suffix);
    if (!path_exists(here) && path_exists(there)) {
        there[strlen(there) - strlen(suffix)] = 0;
        mem_free(*path);
        *path = mem_string(there);
    }
    mem_free(here);
    mem_free(there);
}

void config_find_paths(config *c, const char *file) {
    char *start = start_of_run(file, c->run_dir);
    if (start) find(&c->data.tokenizer, "", start);
    for (int64_t s = 0; start && s < c->data.sources; s++) {
        find(&c->data.source[s].train, ".idx", start);
        find(&c->data.source[s].valid, ".idx", start);
    }
    mem_free(start);
}
