#include "ckpt/staging.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/files.h"
#include "launch/memory.h"

int staging_begin(const char *path, char **temporary, error *e) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    /* rmdir and the rename of staging_commit agree on what is an empty directory */
    if (path_exists(path) && rmdir(path))
        return error_set(e, EXIT_USAGE, "%s: exists already: name another directory, or remove it", path);
    char *name = text_of("%.*s.tmp", (int)n, path);
    int code = 0;
    if (path_exists(name))
        code = error_set(e, EXIT_USAGE, "%s: is left from a command that was stopped: remove it", name);
    if (!code) code = make_directories(name, e);
    if (code) mem_free(name);
    else *temporary = name;
    return code;
}

int staging_commit(const char *temporary, error *e) {
    char *path = text_of("%.*s", (int)(strlen(temporary) - strlen(".tmp")), temporary);
    int code = sync_path(temporary, e) ? e->code : move_into_place(temporary, path, e);
    mem_free(path);
    return code;
}

static int remove_entry(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s, (void)type, (void)at;
    return remove(path);
}

void staging_abandon(const char *temporary) {
    nftw(temporary, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
