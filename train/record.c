#include "train/record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "launch/files.h"
#include "launch/memory.h"

enum { RECENT_BYTES = 1 << 20 }; /* kept in memory before a sync, while the disk is well */

/* Where the lines of steps beyond `step` begin.  Steps rise; what is no line of them, as a crash or a disk
 * left it, is kept only between lines that are. */
static int64_t keep_until(FILE *f, int64_t step) {
    char *line = NULL;
    size_t room = 0;
    int64_t keep = 0, end = 0, last = 0;
    for (ssize_t n; last < step && (n = getline(&line, &room, f)) > 0;) {
        json_t *j = line[n - 1] == '\n' ? json_loads(line, 0, NULL) : NULL;
        int64_t at = json_integer_value(json_object_get(j, "step"));
        end += n;
        if (at > last && at <= step) {
            keep = end;
            last = at;
        }
        json_decref(j);
    }
    mem_free(line);
    return keep;
}

int record_open(record *r, const char *run_dir, const char *name, int64_t step, error *e) {
    *r = (record){.path = text_of("%s/%s", run_dir, name), .fd = -1};
    const char *why;
    FILE *old = open_text(r->path, &why);
    if (!old && errno != ENOENT) {
        error_set(e, EXIT_IO, "%s: cannot be read: %s", r->path, why);
        record_close(r);
        return e->code;
    }
    int64_t keep = old ? keep_until(old, step) : 0;
    if (old) fclose(old);
    r->fd = open(r->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    r->durable = keep;
    if (r->fd >= 0 && !ftruncate(r->fd, keep)) return sync_path(run_dir, e);
    error_set(e, EXIT_IO, "%s: cannot be written: %s", r->path, strerror(errno));
    record_close(r);
    return e->code;
}

/* Writes what is not written yet, as far as it goes; errno's value. */
static int write_recent(record *r) {
    while (r->written < r->bytes) {
        ssize_t n =
            pwrite(r->fd, r->recent + r->written, r->bytes - r->written, r->durable + (off_t)r->written);
        if (n >= 0) r->written += (size_t)n;
        else if (errno != EINTR) return errno;
    }
    return 0;
}

static int sync_recent(record *r) {
    int code = write_recent(r);
    if (!code && fsync(r->fd)) {
        code = errno;
        r->written = 0; /* a later sync may call this one's losses written */
    }
    if (code) return code;
    r->durable += (int64_t)r->bytes;
    r->written = r->bytes = 0;
    return 0;
}

void record_line(record *r, const json_t *line) {
    const size_t flags = JSON_COMPACT | JSON_REAL_PRECISION(9), n = json_dumpb(line, NULL, 0, flags);
    if (r->bytes + n + 1 > r->room) {
        r->room = 2 * (r->bytes + n + 1);
        r->recent = mem_grow(r->recent, r->room, "lines of a record");
    }
    json_dumpb(line, r->recent + r->bytes, n, flags);
    r->bytes += n;
    r->recent[r->bytes++] = '\n';
    int code = r->bytes < RECENT_BYTES ? write_recent(r) : sync_recent(r);
    if (code && !r->failing)
        notice("%s: cannot be written: %s; its lines wait in memory, and training goes on", r->path,
               strerror(code));
    if (!code && r->failing) notice("%s: is written again", r->path);
    r->failing = code != 0;
}

int record_sync(record *r, error *e) {
    int code = sync_recent(r);
    return code ? error_set(e, EXIT_IO, "%s: cannot be written: %s", r->path, strerror(code)) : 0;
}

void record_close(record *r) {
    if (r->path && r->fd >= 0) close(r->fd);
    mem_free(r->path);
    mem_free(r->recent);
    *r = (record){0};
}
