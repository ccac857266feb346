#include "launch/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "launch/memory.h"

char *text_of(const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    REQUIRE(n >= 0);
    char *text = mem_alloc((size_t)n + 1, "a string");
    vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

int path_error(error *e, const char *path, const char *what) {
    return error_set(e, EXIT_IO, "%s: %s: %s", path, what, strerror(errno));
}

int path_exists(const char *path) {
    struct stat s;
    return lstat(path, &s) == 0;
}

int sync_path(const char *path, error *e) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return path_error(e, path, "cannot be opened");
    /* EINVAL: a file system that cannot sync directories */
    int code = fsync(fd) == 0 || errno == EINVAL ? 0 : path_error(e, path, "cannot be synced to disk");
    close(fd);
    return code;
}

char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return mem_string(".");
    return slash == path ? mem_string("/") : text_of("%.*s", (int)(slash - path), path);
}

int path_has(const char *directory, const char *name) {
    char *path = text_of("%s/%s", directory, name);
    int has = access(path, F_OK) == 0;
    mem_free(path);
    return has;
}

static int not_a_directory(const char *path, error *e) {
    return error_set(e, EXIT_IO, "%s: Not a directory; remove that file, or give another path", path);
}

int make_directories(const char *path, error *e) {
    struct stat s;
    if (stat(path, &s) == 0) {
        if (S_ISDIR(s.st_mode)) return 0;
        return not_a_directory(path, e);
    }
    char *parent = parent_of(path);
    int code = make_directories(parent, e);
    if (!code && mkdir(path, 0777) && errno != EEXIST)
        code = error_set(e, EXIT_IO,
                         "%s: this directory cannot be created: %s; give another path, or make it yourself",
                         path, strerror(errno));
    if (!code) code = sync_path(parent, e);
    mem_free(parent);
    return code;
}

int rename_path(const char *from, const char *to, error *e) {
    if (rename(from, to) == 0) return 0;
    path_error(e, from, "cannot be renamed");
    char *text = mem_string(e->text);
    error_set(e, EXIT_IO, "%s (to %s)", text, to);
    mem_free(text);
    return e->code;
}

int move_into_place(const char *temporary, const char *path, error *e) {
    char *parent = parent_of(path);
    int code = rename_path(temporary, path, e);
    if (!code) code = sync_path(parent, e);
    mem_free(parent);
    return code;
}

int write_all(int fd, const void *data, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        ssize_t n = write(fd, (const char *)data + at, bytes - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        at += (size_t)n;
    }
    return 0;
}

int write_file(const char *path, const void *data, size_t bytes, error *e) {
    char *temporary = text_of("%s.tmp", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), code = 0;
    if (fd < 0) code = path_error(e, temporary, "cannot be created");
    if (!code && write_all(fd, data, bytes)) code = path_error(e, temporary, "cannot be written");
    if (!code && fsync(fd)) code = path_error(e, temporary, "cannot be synced to disk");
    if (fd >= 0 && close(fd) && !code) code = path_error(e, temporary, "cannot be written");
    if (!code) code = move_into_place(temporary, path, e);
    if (code && fd >= 0) unlink(temporary);
    mem_free(temporary);
    return code;
}

int probe_directory(const char *path, error *e) {
    if (make_directories(path, e)) return e->code;
    char *name = text_of("%s/.probe", path); /* what a run that was killed just here left is overwritten */
    int code = write_file(name, "", 0, e);
    if (!code && unlink(name)) code = path_error(e, name, "cannot be removed");
    mem_free(name);
    return code
               ? error_within(
                     e, "nothing can be written in %s; make room or rights there, or give another path", path)
               : 0;
}

int hold_directory(const char *path, int *fd, error *e) {
    const struct timespec pause = {.tv_nsec = 100000000};
    *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0 && errno == ENOTDIR) return not_a_directory(path, e);
    if (*fd < 0) return path_error(e, path, "cannot be opened");
    int held = flock(*fd, LOCK_EX | LOCK_NB);
    for (int pauses = 0; held && errno == EWOULDBLOCK && pauses < 100; pauses++) {
        nanosleep(&pause, NULL);
        held = flock(*fd, LOCK_EX | LOCK_NB);
    }
    if (!held) return 0;
    int taken = errno == EWOULDBLOCK;
    close(*fd);
    *fd = -1;
    if (!taken) return 0;
    return error_set(e, EXIT_USAGE, "%s: another run is writing here; a run has a directory of its own",
                     path);
}

int open_file(const char *path, const char **why) {
    struct stat s;
    int fd = -1;
    if (stat(path, &s) == 0) {
        if (S_ISREG(s.st_mode)) fd = open(path, O_RDONLY | O_CLOEXEC);
        else errno = S_ISDIR(s.st_mode) ? EISDIR : EINVAL;
    }
    if (fd < 0) *why = errno == EINVAL ? "not a regular file" : strerror(errno);
    return fd;
}

FILE *open_text(const char *path, const char **why) {
    int fd = open_file(path, why);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "rb");
    if (fd >= 0 && !file) FAULT(EXIT_NO_MEMORY, "no memory to read %s", path);
    return file;
}

int read_file(const char *path, char **data, size_t *bytes, error *e) {
    const char *why;
    int fd = open_file(path, &why);
    if (fd < 0) return error_set(e, EXIT_IO, "%s: cannot be opened: %s", path, why);
    struct stat s;
    int code = 0;
    size_t at = 0, size = 0;
    char *text = NULL;
    if (fstat(fd, &s)) code = path_error(e, path, "cannot be read");
    else {
        size = (size_t)s.st_size;
        text = mem_alloc(size + 1, "a file's text");
    }
    while (!code && at < size) {
        ssize_t n = read(fd, text + at, size - at);
        if (n < 0 && errno != EINTR) code = path_error(e, path, "cannot be read");
        if (n == 0) size = at; /* it shrank since fstat */
        if (n > 0) at += (size_t)n;
    }
    close(fd);
    if (code) {
        mem_free(text);
        return code;
    }
    *data = text;
    *bytes = size;
    return 0;
}

void digest_text(XXH128_hash_t digest, char hex[33]) {
    snprintf(hex, 33, "%016llx%016llx", (unsigned long long)digest.high64, (unsigned long long)digest.low64);
}

int digest_file(const char *path, int64_t *bytes, XXH128_hash_t *digest, error *e) {
    const size_t block = 1 << 20;
    const char *why;
    int fd = open_file(path, &why), code = 0;
    if (fd < 0) return error_set(e, EXIT_IO, "%s: cannot be opened: %s", path, why);
    char *buffer = mem_alloc(block, "a read buffer");
    XXH3_state_t *state = XXH3_createState();
    if (!state) FAULT(EXIT_NO_MEMORY, "out of memory: a digest's state");
    XXH3_128bits_reset(state);
    *bytes = 0;
    for (;;) {
        ssize_t n = read(fd, buffer, block);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) code = path_error(e, path, "cannot be read");
        if (n <= 0) break;
        XXH3_128bits_update(state, buffer, (size_t)n);
        *bytes += n;
    }
    *digest = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    mem_free(buffer);
    close(fd);
    return code;
}
