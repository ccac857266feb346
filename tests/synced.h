/* What reached the disk for certain: a program that includes this has an fsync that takes notes, and can
 * fail. */
#ifndef CARACAL_TESTS_SYNCED_H
#define CARACAL_TESTS_SYNCED_H

#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SYNCED_MOST = 64 };

static struct stat synced_file[SYNCED_MOST];
static int synced_files;
static int synced_failing; /* the call so many from now fails; 0: none */

static inline void synced_forget(void) {
    synced_files = 0;
}

int fsync(int fd) {
    if (synced_failing && !--synced_failing) {
        errno = EIO;
        return -1;
    }
    int i = __atomic_fetch_add(&synced_files, 1, __ATOMIC_RELAXED); /* files have threads of their own */
    if (i < SYNCED_MOST) fstat(fd, &synced_file[i]);
    return (int)syscall(SYS_fsync, fd);
}

/* How often a file or directory was synced; the last time it was as long as it is now (or this is 0). */
static inline int synced(const char *path) {
    struct stat now;
    int64_t size = -1;
    int times = 0;
    if (stat(path, &now)) return 0;
    for (int i = 0; i < synced_files && i < SYNCED_MOST; i++)
        if (synced_file[i].st_ino == now.st_ino) times++, size = synced_file[i].st_size;
    return size == now.st_size || S_ISDIR(now.st_mode) ? times : 0;
}

#endif
