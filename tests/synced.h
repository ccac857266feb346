/* What reached the disk for certain: a program that includes this has an fsync that takes notes. */
#ifndef CARACAL_TESTS_SYNCED_H
#define CARACAL_TESTS_SYNCED_H

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SYNCED_MOST = 64 };

static struct stat synced_file[SYNCED_MOST];
static int synced_files;

static inline void synced_forget(void) {
    synced_files = 0;
}

int fsync(int fd) {
    if (synced_files < SYNCED_MOST && !fstat(fd, &synced_file[synced_files])) synced_files++;
    return (int)syscall(SYS_fsync, fd);
}

/* How often a file or directory was synced; the last time it was as long as it is now (or this is 0). */
static inline int synced(const char *path) {
    struct stat now;
    int64_t size = -1;
    int times = 0;
    if (stat(path, &now)) return 0;
    for (int i = 0; i < synced_files; i++)
        if (synced_file[i].st_ino == now.st_ino) times++, size = synced_file[i].st_size;
    return size == now.st_size || S_ISDIR(now.st_mode) ? times : 0;
}

#endif
