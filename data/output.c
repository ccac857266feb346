#include "data/output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/memory.h"

static int failed(const char *path, error *e) {
    return error_set(e, EXIT_IO, "cannot write %s: %s", path, strerror(errno));
}

/* Makes the directories above a file, as far as they are missing; what cannot be made is missed when the file
 * is opened. */
static void make_above(const char *path) {
    char *above = mem_string(path);
    for (char *slash = strchr(above + 1, '/'); *path && slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(above, 0777);
        *slash = '/';
    }
    mem_free(above);
}

int output_open(output *o, const char *path, error *e) {
    size_t n = strlen(path);
    make_above(path);
    *o = (output){.path = mem_string(path), .temporary = mem_alloc(n + sizeof ".tmp", "a file name")};
    memcpy(o->temporary, path, n);
    memcpy(o->temporary + n, ".tmp", sizeof ".tmp");
    o->file = fopen(o->temporary, "wb");
    return o->file ? 0 : failed(o->temporary, e);
}

void output_write(output *o, const void *data, size_t bytes) {
    if (fwrite(data, 1, bytes, o->file) != bytes && !o->failed) o->failed = errno;
}

int output_finish(output *o, error *e) {
    if (!o->failed && (fflush(o->file) || fsync(fileno(o->file)))) o->failed = errno;
    if (fclose(o->file) && !o->failed) o->failed = errno;
    o->file = NULL;
    errno = o->failed;
    return o->failed ? failed(o->path, e) : 0;
}

/* A rename is on the disk when the directory is. */
static int sync_directory_of(const char *path) {
    const char *slash = strrchr(path, '/');
    char *name = mem_string(path);
    name[slash ? slash - path + 1 : 0] = 0;
    int d = open(slash ? name : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mem_free(name);
    if (d < 0) return -1;
    int bad = fsync(d);
    close(d);
    return bad;
}

int output_commit(output *o, error *e) {
    if (rename(o->temporary, o->path) || sync_directory_of(o->path)) return failed(o->path, e);
    mem_free(o->path);
    mem_free(o->temporary);
    *o = (output){0};
    return 0;
}

void output_discard(output *o) {
    if (o->file) fclose(o->file);
    if (o->temporary) unlink(o->temporary);
    mem_free(o->path);
    mem_free(o->temporary);
    *o = (output){0};
}
