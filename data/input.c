#include "data/input.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int input_open(input *i, const char *path, error *e) {
    *i = (input){.data = ""};
    int f = open(path, O_RDONLY | O_CLOEXEC);
    struct stat s;
    if (f < 0 || fstat(f, &s)) {
        int code = error_set(e, EXIT_IO, "cannot read %s: %s", path, strerror(errno));
        if (f >= 0) close(f);
        return code;
    }
    void *p = "";
    if (S_ISREG(s.st_mode) && s.st_size) p = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, f, 0);
    int number = errno;
    close(f);
    if (!S_ISREG(s.st_mode)) return error_set(e, EXIT_IO, "cannot read %s: not a regular file", path);
    if (p == MAP_FAILED) return error_set(e, EXIT_IO, "cannot map %s: %s", path, strerror(number));
    *i = (input){p, (size_t)s.st_size};
    return 0;
}

void input_close(input *i) {
    if (i->bytes) munmap((void *)i->data, i->bytes);
    *i = (input){.data = ""};
}
