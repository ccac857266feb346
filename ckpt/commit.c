#include "ckpt/commit.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckpt/ckpt.h"
#include "ckpt/manifest.h"
#include "launch/files.h"
#include "launch/memory.h"

char *step_path(const char *directory, int64_t step, const char *suffix) {
    return text_of("%s/step-%08lld%s", directory, (long long)step, suffix);
}

/* The digits after `prefix` at the start of `name`, at least `least` of them; what follows goes to *rest. */
static int64_t numbered(const char *name, const char *prefix, int least, const char **rest) {
    size_t n = strlen(prefix), digits = 0;
    if (strncmp(name, prefix, n)) return -1;
    while (isdigit((unsigned char)name[n + digits])) digits++;
    if (digits < (size_t)least || digits > 18) return -1;
    *rest = name + n + digits;
    return strtoll(name + n, NULL, 10);
}

static int written_by_us(const char *name) {
    const char *rest = "";
    if (!strcmp(name, MANIFEST_NAME) || !strcmp(name, MANIFEST_NAME ".tmp")) return 1;
    return numbered(name, "shard-", 5, &rest) >= 0 && !strcmp(rest, ".h5");
}

/* The k of what follows step-N: 1 for the suffix itself, with `several` more for suffix-2 and on, 0 for
 * another. */
static int64_t number_of(const char *rest, const char *suffix, int several) {
    size_t n = strlen(suffix);
    const char *end = "";
    if (strncmp(rest, suffix, n)) return 0;
    if (!rest[n]) return 1;
    int64_t k = several ? numbered(rest + n, "-", 1, &end) : 0;
    return k > 1 && !*end ? k : 0;
}

/* The last such name before *step and *k, in their order; *step = -1 if there is none (or no `directory`). */
static int last_before(const char *directory, const char *suffix, int several, int64_t *step, int64_t *k,
                       error *e) {
    const int64_t bound = *step, most = *k;
    *step = -1;
    *k = 0;
    DIR *d = opendir(directory);
    if (!d) return errno == ENOENT || errno == ENOTDIR ? 0 : path_error(e, directory, "cannot be read");
    for (struct dirent *entry = readdir(d); entry; entry = readdir(d)) {
        const char *rest = "";
        int64_t n = numbered(entry->d_name, "step-", 8, &rest);
        int64_t m = n < 0 ? 0 : number_of(rest, suffix, several);
        if (!m || n > bound || (n == bound && m >= most)) continue;
        if (n > *step || (n == *step && m > *k)) *step = n, *k = m;
    }
    closedir(d);
    return 0;
}

int step_below(const char *directory, const char *suffix, int64_t bound, int64_t *step, error *e) {
    int64_t k = 0;
    *step = bound;
    return last_before(directory, suffix, 0, step, &k, e);
}

/* Removes our files in a directory, and the directory if nothing else is in it; what somebody else removes
 * meanwhile is gone as well.  Not through a link: what lies behind it is not ours, whatever its names. */
static int remove_ours(const char *path, error *e) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        int code = errno == ENOENT ? 0 : path_error(e, path, "cannot be read");
        if (fd >= 0) close(fd);
        return code;
    }
    int code = 0;
    for (struct dirent *entry = readdir(d); entry && !code; entry = readdir(d)) {
        if (!written_by_us(entry->d_name)) continue;
        if (unlinkat(dirfd(d), entry->d_name, 0) && errno != ENOENT) {
            code = path_error(e, entry->d_name, "cannot be removed");
            error_within(e, "%s", path);
        }
    }
    closedir(d);
    if (!code && rmdir(path) && errno != ENOTEMPTY && errno != EEXIST && errno != ENOENT)
        code = path_error(e, path, "cannot be removed");
    return code;
}

int commit_clean(const char *directory, int tell, error *e) {
    for (int64_t stale = INT64_MAX;;) {
        if (step_below(directory, ".tmp", stale, &stale, e)) return e->code;
        if (stale < 0) return 0;
        char *path = step_path(directory, stale, ".tmp");
        int code = remove_ours(path, e);
        if (tell && !code && !path_exists(path))
            notice("%s, left by a save or a removal that was cut off, is removed", path);
        mem_free(path);
        if (code) return code;
    }
}

/* The k-th name for what is put out of a step's way: step-N.why, step-N.why-2, ... */
static char *aside_path(const char *directory, int64_t step, const char *why, int64_t k) {
    char suffix[48];
    if (k == 1) snprintf(suffix, sizeof suffix, ".%s", why);
    else snprintf(suffix, sizeof suffix, ".%s-%lld", why, (long long)k);
    return step_path(directory, step, suffix);
}

/* What was put aside without a manifest is what was left of a removal. */
static int mend(const char *final, const char *replaced, error *e) {
    if (!path_exists(final)) {
        if (!ckpt_is_one(replaced)) return 0;
        if (move_into_place(replaced, final, e)) return e->code;
        notice("%s is back: the save that was to replace it was cut off", final);
    } else if (ckpt_is_one(final)) {
        if (remove_ours(replaced, e)) return e->code;
        if (!path_exists(replaced))
            notice("%s, which a save replaced and did not come to remove, is removed", replaced);
    }
    return 0;
}

int commit_mend(const char *directory, error *e) {
    /* a name may be taken by what could not be removed: the last one is of the save that was cut off */
    for (int64_t step = INT64_MAX, k = 0;;) {
        if (last_before(directory, ".replaced", 1, &step, &k, e)) return e->code;
        if (step < 0) return 0;
        char *final = step_path(directory, step, ""), *replaced = aside_path(directory, step, "replaced", k);
        int code = mend(final, replaced, e);
        mem_free(final);
        mem_free(replaced);
        if (code) return code;
    }
}

int commit_begin(const char *directory, int64_t step, error *e) {
    if (make_directories(directory, e) || commit_clean(directory, 0, e)) return e->code;
    char *path = step_path(directory, step, ".tmp");
    int code = mkdir(path, 0777) == 0 || errno == EEXIST ? 0 : path_error(e, path, "cannot be created");
    mem_free(path);
    return code;
}

void commit_abandon(const char *directory, int64_t step) {
    error ignored = {0};
    char *path = step_path(directory, step, ".tmp");
    remove_ours(path, &ignored);
    mem_free(path);
}

/* A name of this step that nothing has yet. */
static char *aside_name(const char *directory, int64_t step, const char *why) {
    for (int64_t k = 1;; k++) {
        char *path = aside_path(directory, step, why, k);
        if (!path_exists(path)) return path;
        mem_free(path);
    }
}

int commit_set_aside(const char *directory, int64_t step, error *e) {
    for (int64_t newer = INT64_MAX;;) {
        if (step_below(directory, "", newer, &newer, e)) return e->code;
        if (newer <= step) return path_exists(directory) ? sync_path(directory, e) : 0;
        char *path = step_path(directory, newer, ""), *aside = aside_name(directory, newer, "aside");
        int code = rename_path(path, aside, e);
        if (!code) notice("%s is now %s: the run begins anew before it", path, aside);
        mem_free(path);
        mem_free(aside);
        if (code) return code;
    }
}

static int64_t directory_bytes(const char *path) {
    DIR *d = opendir(path);
    int64_t bytes = 0;
    for (struct dirent *entry = d ? readdir(d) : NULL; entry; entry = readdir(d)) {
        struct stat s;
        if (!fstatat(dirfd(d), entry->d_name, &s, AT_SYMLINK_NOFOLLOW) && S_ISREG(s.st_mode))
            bytes += s.st_size;
    }
    if (d) closedir(d);
    return bytes;
}

int commit_kept_aside(const char *directory, int64_t *n, int64_t *bytes, error *e) {
    *n = *bytes = 0;
    for (int damaged = 0; damaged < 2; damaged++) {
        const char *suffix = damaged ? ".damaged" : ".aside";
        for (int64_t step = INT64_MAX, k = 0;;) {
            if (last_before(directory, suffix, 1, &step, &k, e)) return e->code;
            if (step < 0) break;
            char *path = aside_path(directory, step, suffix + 1, k);
            *bytes += directory_bytes(path);
            mem_free(path);
            ++*n;
        }
    }
    return 0;
}

static int put_in_place(const char *directory, const char *temporary, const char *final, const char *aside,
                        error *e) {
    if (aside && rename_path(final, aside, e)) return e->code;
    if (!rename_path(temporary, final, e)) {
        if (!sync_path(directory, e)) return 0;
        rename(final, temporary); /* not durable: as if it had not been */
    }
    if (aside) rename(aside, final);
    return e->code;
}

/* Is step-N, which is intact, the same checkpoint?  Then it is not touched, and no crash can take it away. */
static int is_same(const char *final, const char *text, size_t bytes) {
    char *old = NULL;
    size_t old_bytes = 0;
    error why = {0};
    int same =
        !manifest_read_text(final, &old, &old_bytes, &why) && old_bytes == bytes && !memcmp(old, text, bytes);
    mem_free(old);
    return same;
}

int commit_finish(const char *directory, int64_t step, const char *text, size_t bytes, int old_is_intact,
                  error *e) {
    char *temporary = step_path(directory, step, ".tmp"), *final = step_path(directory, step, "");
    if (old_is_intact && is_same(final, text, bytes)) {
        commit_abandon(directory, step);
        mem_free(temporary);
        mem_free(final);
        return 0;
    }
    char *aside =
        path_exists(final) ? aside_name(directory, step, old_is_intact ? "replaced" : "damaged") : NULL;
    char *name = text_of("%s/" MANIFEST_NAME, temporary);
    int code = sync_path(temporary, e);
    if (!code) code = write_file(name, text, bytes, e);
    if (!code) code = put_in_place(directory, temporary, final, aside, e);
    if (!code && aside && old_is_intact) {
        error ignored = {0}; /* what cannot be removed stays, under a name that is never loaded */
        remove_ours(aside, &ignored);
    } else if (!code && aside) {
        notice("%s did not verify: it is now %s", final, aside);
    }
    mem_free(temporary);
    mem_free(final);
    mem_free(aside);
    mem_free(name);
    return code;
}

int commit_remove(const char *directory, int64_t step, error *e) {
    char *path = step_path(directory, step, ""), *temporary = step_path(directory, step, ".tmp");
    int code = rename_path(path, temporary, e);
    if (!code) code = sync_path(directory, e);
    if (!code) code = remove_ours(temporary, e);
    if (!code && path_exists(temporary)) code = rename_path(temporary, path, e);
    if (code && !path_exists(path) && !path_exists(temporary)) code = e->code = 0; /* somebody else did it */
    mem_free(path);
    mem_free(temporary);
    return code;
}
