/* A library for LD_PRELOAD that stands between a program and the file system, for what lies under one
 * directory: it kills the process at the n-th call, lets calls fail, logs what a power loss could undo.
 *
 *   SHIM_UNDER=DIR     the directory, absolute; without it everything passes through
 *   SHIM_RANK=R        act only in this rank of an MPI job (the log is of all ranks)
 *   SHIM_RULES="STEP:CALL:ACTION ..."   what to do at call number CALL of the save of step STEP:
 *                      CALL  n, or n-m, or n- for all that follow in the save of that step
 *                      ACTION  an errno's name: the call fails;  short: half a write is written and said so;
 *                      kill, killafter: the process dies before or after it;  killhalf: in the middle of a
 * write SHIM_SLOW=USEC     every call takes so much longer SHIM_TRACE=FILE    appends a line for each call:
 * "STEP CALL KIND ACTION PATH" SHIM_LOG=FILE      appends the records of tests/shim_fs.h
 *
 * The save of step N begins when a path first names step-N with N above all before; what removes older ones
 * afterwards belongs to it.  Each process counts for itself.  With STORM_PID, a process that is to die stops,
 * and tool_storm, which has that number, kills the whole job. */
#include "tests/shim_fs.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FDS = 4096, SHORT = -1, KILL = -2, KILL_AFTER = -3, KILL_HALF = -4 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char under[PATH_MAX];
static char *path_of_fd[FDS]; /* of what is open under `under` */
static const char *rules;
static long slow, step = -1, count;
static int trace_fd = -1, log_fd = -1;

/* ---- calls that are not intercepted ---- */

static int plain_open(const char *path, int flags, int mode) {
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static void plain_write(int fd, const void *data, size_t bytes) {
    if (syscall(SYS_write, fd, data, bytes) != (ssize_t)bytes) abort();
}

/* ---- set-up ---- */

__attribute__((constructor)) static void open_shim(void) {
    const char *directory = getenv("SHIM_UNDER"), *only = getenv("SHIM_RANK"), *file;
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!directory) return;
    int mine = !only || !strcmp(only, rank ? rank : "0");
    if (mine) rules = getenv("SHIM_RULES");
    slow = getenv("SHIM_SLOW") ? atol(getenv("SHIM_SLOW")) : 0;
    if (mine && (file = getenv("SHIM_TRACE")))
        trace_fd = plain_open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if ((file = getenv("SHIM_LOG")))
        log_fd = plain_open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    snprintf(under, sizeof under, "%s", directory);
}

/* The absolute path, when it lies under the directory; the directory itself counts. */
static int inside(int at, const char *path, char *whole) {
    char base[PATH_MAX] = "";
    size_t n = strlen(under);
    if (!n) return 0;
    if (path[0] != '/') {
        char link[64] = "/proc/self/cwd";
        if (at != AT_FDCWD) snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t got = readlink(link, base, sizeof base - 2);
        if (got < 0) return 0;
        base[got] = '/';
        base[got + 1] = 0;
    }
    if (snprintf(whole, PATH_MAX, "%s%s", base, path) >= PATH_MAX) return 0;
    return !strncmp(whole, under, n) && (whole[n] == '/' || !whole[n]);
}

static const char *open_path(int fd) {
    return fd >= 0 && fd < FDS ? path_of_fd[fd] : NULL;
}

static void forget(int fd) {
    if (fd < 0 || fd >= FDS) return;
    free(path_of_fd[fd]);
    path_of_fd[fd] = NULL;
}

/* ---- what is to be done at a call ---- */

static int action_of(const char *text) {
    static const struct {
        const char *name;
        int action;
    } names[] = {{"kill", KILL},     {"killafter", KILL_AFTER}, {"killhalf", KILL_HALF},
                 {"short", SHORT},   {"ENOSPC", ENOSPC},        {"EIO", EIO},
                 {"EROFS", EROFS},   {"EACCES", EACCES},        {"EMFILE", EMFILE},
                 {"EDQUOT", EDQUOT}, {"ENOENT", ENOENT},        {"EINTR", EINTR}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(text, names[i].name)) return names[i].action;
    abort();
}

static int rule_for(long at_step, long at_call) {
    for (const char *r = rules; r && *r; r += strcspn(r, " "), r += strspn(r, " ")) {
        char *at;
        long of_step = strtol(r, &at, 10), from = strtol(at + 1, &at, 10), to = from;
        if (*at == '-') to = at[1] == ':' ? LONG_MAX : strtol(at + 1, &at, 10);
        at += strcspn(at, ":");
        char action[16];
        if (sscanf(at, ":%15[A-Za-z]", action) < 1) abort();
        if (of_step == at_step && at_call >= from && at_call <= to) return action_of(action);
    }
    return 0;
}

static void die(void) {
    const char *storm = getenv("STORM_PID");
    if (storm && kill((pid_t)atol(storm), SIGUSR1) == 0) raise(SIGSTOP);
    raise(SIGKILL);
}

/* Counts a call; an errno with which it must fail, or one of the actions, or 0.  While there is a log, nobody
 * else calls anything before `leave`. */
static int enter(const char *kind, const char *path) {
    pthread_mutex_lock(&lock);
    if (log_fd >= 0) flock(log_fd, LOCK_EX);
    const char *name = strstr(path + strlen(under), "/step-");
    long named = name ? atol(name + 6) : -1;
    if (named > step) {
        step = named;
        count = 0;
    }
    int action = rule_for(step, ++count);
    if (trace_fd >= 0) {
        char line[PATH_MAX + 64];
        int n = snprintf(line, sizeof line, "%ld %ld %s %d %s\n", step, count, kind, action, path);
        plain_write(trace_fd, line, (size_t)n);
    }
    if (slow) usleep((useconds_t)slow);
    if (action == KILL) die();
    if (log_fd < 0) pthread_mutex_unlock(&lock);
    return action;
}

static void leave(int action) {
    int kept = errno;
    if (action == KILL_AFTER || action == KILL_HALF) die();
    if (log_fd >= 0) {
        flock(log_fd, LOCK_UN);
        pthread_mutex_unlock(&lock);
    }
    errno = kept;
}

static int refuse(int action) {
    leave(0);
    errno = action;
    return -1;
}

/* ---- the log ---- */

static int64_t inode_at(const char *path) {
    struct stat s;
    return lstat(path, &s) == 0 ? (int64_t)s.st_ino : 0;
}

static int64_t inode_of(int fd) {
    struct stat s;
    return fstat(fd, &s) == 0 ? (int64_t)s.st_ino : 0;
}

/* The inode of the directory that holds `path`; the last part of the name goes to `name`. */
static int64_t holder(const char *path, char name[40]) {
    char up[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(up, sizeof up, "%.*s", (int)(slash - path), path);
    snprintf(name, 40, "%s", slash + 1);
    return inode_at(up);
}

static void record(shim_record r, const void *data) {
    static int begun;
    shim_record root = {.operation = SHIM_ROOT, .inode = inode_at(under)};
    if (!begun) plain_write(log_fd, &root, sizeof root);
    begun = 1;
    plain_write(log_fd, &r, sizeof r);
    if (r.operation == SHIM_WRITE) plain_write(log_fd, data, (size_t)r.bytes);
}

static void record_name(int operation, const char *path, const char *new_path) {
    shim_record r = {.operation = operation, .inode = inode_at(path)};
    if (log_fd < 0) return;
    r.directory = holder(path, r.name);
    if (new_path) r.to = holder(new_path, r.new_name);
    record(r, NULL);
}

static void record_file(int operation, int fd, int64_t offset, int64_t bytes, const void *data) {
    if (log_fd < 0) return;
    record((shim_record){.operation = operation, .inode = inode_of(fd), .offset = offset, .bytes = bytes},
           data);
}

/* ---- the calls ---- */

static int open_any(int at, const char *path, int flags, int mode) {
    char whole[PATH_MAX];
    if (!inside(at, path, whole)) {
        int fd = (int)syscall(SYS_openat, at, path, flags, mode);
        forget(fd);
        return fd;
    }
    int action = enter("open", whole), created = flags & O_CREAT && !inode_at(whole);
    if (action > 0) return refuse(action);
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    forget(fd);
    if (fd >= 0 && fd < FDS) {
        path_of_fd[fd] = strdup(whole);
        if (created) record_name(SHIM_CREATE, whole, NULL);
        else if (flags & O_TRUNC) record_file(SHIM_TRUNCATE, fd, 0, 0, NULL);
    }
    leave(action);
    return fd;
}

static int mode_of(int flags, va_list args) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, int) : 0;
}

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    int mode = mode_of(flags, args);
    va_end(args);
    return open_any(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    int mode = mode_of(flags, args);
    va_end(args);
    return open_any(at, path, flags, mode);
}

int creat(const char *path, mode_t mode) {
    return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, (int)mode);
}

DIR *opendir(const char *path) {
    char whole[PATH_MAX];
    DIR *(*plain)(const char *);
    *(void **)&plain = dlsym(RTLD_NEXT, "opendir");
    if (!inside(AT_FDCWD, path, whole)) return plain(path);
    int action = enter("opendir", whole);
    if (action > 0) return refuse(action), NULL;
    DIR *d = plain(path);
    leave(action);
    return d;
}

/* It closes without `close`. */
int closedir(DIR *d) {
    int (*plain)(DIR *);
    *(void **)&plain = dlsym(RTLD_NEXT, "closedir");
    forget(dirfd(d));
    return plain(d);
}

/* A file that was only read has nothing to lose when it is closed: not counted. */
int close(int fd) {
    char *path = fd >= 0 && fd < FDS ? path_of_fd[fd] : NULL;
    if (!path) return (int)syscall(SYS_close, fd);
    int written = (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY, action = written ? enter("close", path) : 0;
    forget(fd);
    int code = (int)syscall(SYS_close, fd); /* the descriptor is gone, whatever it says */
    if (action > 0) return refuse(action);
    if (written) leave(action);
    return code;
}

ssize_t read(int fd, void *buffer, size_t bytes) {
    const char *path = open_path(fd);
    if (!path) return syscall(SYS_read, fd, buffer, bytes);
    int action = enter("read", path);
    if (action > 0) return refuse(action);
    ssize_t n = syscall(SYS_read, fd, buffer, action == SHORT && bytes > 1 ? bytes / 2 : bytes);
    leave(action);
    return n;
}

static ssize_t write_any(int fd, const void *data, size_t bytes, off_t offset, int positioned) {
    const char *path = open_path(fd);
    if (!path)
        return positioned ? syscall(SYS_pwrite64, fd, data, bytes, offset)
                          : syscall(SYS_write, fd, data, bytes);
    int action = enter("write", path);
    if (action > 0) return refuse(action);
    if (!positioned) offset = lseek(fd, 0, SEEK_CUR);
    size_t part = (action == SHORT || action == KILL_HALF) && bytes > 1 ? bytes / 2 : bytes;
    ssize_t n =
        positioned ? syscall(SYS_pwrite64, fd, data, part, offset) : syscall(SYS_write, fd, data, part);
    if (n > 0) record_file(SHIM_WRITE, fd, offset, n, data);
    leave(action);
    return n;
}

ssize_t write(int fd, const void *data, size_t bytes) {
    return write_any(fd, data, bytes, 0, 0);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) {
    return write_any(fd, data, bytes, offset, 1);
}

static int sync_any(int fd, long call) {
    const char *path = open_path(fd);
    if (!path) return (int)syscall(call, fd);
    int action = enter("fsync", path);
    if (action > 0) return refuse(action);
    int code = (int)syscall(call, fd);
    if (!code) record_file(SHIM_SYNC, fd, 0, 0, NULL);
    leave(action);
    return code;
}

int fsync(int fd) {
    return sync_any(fd, SYS_fsync);
}

int fdatasync(int fd) {
    return sync_any(fd, SYS_fdatasync);
}

int ftruncate(int fd, off_t length) {
    const char *path = open_path(fd);
    if (!path) return (int)syscall(SYS_ftruncate, fd, length);
    int action = enter("truncate", path);
    if (action > 0) return refuse(action);
    int code = (int)syscall(SYS_ftruncate, fd, length);
    if (!code) record_file(SHIM_TRUNCATE, fd, length, 0, NULL);
    leave(action);
    return code;
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    char whole[PATH_MAX], target[PATH_MAX];
    if (!inside(from_at, from, whole) || !inside(to_at, to, target))
        return (int)syscall(SYS_renameat, from_at, from, to_at, to);
    int action = enter("rename", target);
    if (action > 0) return refuse(action);
    int code = (int)syscall(SYS_renameat, from_at, from, to_at, to);
    if (!code) record_name(SHIM_RENAME, whole, target);
    leave(action);
    return code;
}

int rename(const char *from, const char *to) {
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int mkdir(const char *path, mode_t mode) {
    char whole[PATH_MAX];
    if (!inside(AT_FDCWD, path, whole)) return (int)syscall(SYS_mkdir, path, mode);
    int action = enter("mkdir", whole);
    if (action > 0) return refuse(action);
    int code = (int)syscall(SYS_mkdir, path, mode);
    if (!code) record_name(SHIM_MKDIR, whole, NULL);
    leave(action);
    return code;
}

int unlinkat(int at, const char *path, int flags) {
    char whole[PATH_MAX];
    if (!inside(at, path, whole)) return (int)syscall(SYS_unlinkat, at, path, flags);
    int action = enter(flags & AT_REMOVEDIR ? "rmdir" : "unlink", whole);
    if (action > 0) return refuse(action);
    int code = (int)syscall(SYS_unlinkat, at, path, flags);
    if (!code) record_name(flags & AT_REMOVEDIR ? SHIM_RMDIR : SHIM_UNLINK, whole, NULL);
    leave(action);
    return code;
}

int unlink(const char *path) {
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path) {
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}
