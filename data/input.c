#include "data/input.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/files.h"

int input_open(input *i, const char *path, error *e) {
    *i = (input){.data = ""};
    const char *why;
    int f = open_file(path, &why);
    if (f < 0) return error_set(e, EXIT_IO, "cannot read %s: %s", path, why);
    struct stat s;
    void *p = MAP_FAILED;
    if (!fstat(f, &s))
        p = s.st_size ? mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, f, 0) : (void *)"";
    int number = errno;
    close(f);
    if (p == MAP_FAILED) return error_set(e, EXIT_IO, "cannot map %s: %s", path, strerror(number));
    *i = (input){p, (size_t)s.st_size};
    return 0;
}

void input_close(input *i) {
    if (i->bytes) munmap((void *)i->data, i->bytes);
    *i = (input){.data = ""};
}
