#include "train/whole_file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "launch/files.h"
#include "launch/memory.h"

int whole_file(const char *path, void (*content)(FILE *, const void *), const void *data, error *e) {
    *e = (error){0};
    char *temporary = text_of("%s.tmp", path);
    FILE *out = fopen(temporary, "wb");
    if (!out) {
        error_set(e, EXIT_IO, "%s: cannot be written: %s", path, strerror(errno));
    } else {
        content(out, data);
        int bad = ferror(out);
        if (fclose(out) || bad || rename(temporary, path)) {
            error_set(e, EXIT_IO, "%s: cannot be written: %s", path, strerror(errno));
            unlink(temporary);
        }
    }
    mem_free(temporary);
    return e->code;
}
