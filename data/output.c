#include "data/output.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "launch/files.h"
#include "launch/memory.h"

static int failed(const char *path, error *e) {
    return error_set(e, EXIT_IO, "cannot write %s: %s", path, strerror(errno));
}

int output_open(output *o, const char *path, error *e) {
    char *directory = parent_of(path);
    *o = (output){.path = mem_string(path), .temporary = text_of("%s.tmp", path)};
    if (!make_directories(directory, e) && !(o->file = fopen(o->temporary, "wb"))) failed(o->temporary, e);
    mem_free(directory);
    return o->file ? 0 : e->code;
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

int output_commit(output *o, error *e) {
    if (move_into_place(o->temporary, o->path, e)) return e->code;
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
