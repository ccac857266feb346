#include "data/texts.h"

#include <sys/stat.h>

texts texts_open(const char *what, const char *const *file, int files) {
    double bytes = 0;
    for (int f = 0; f < files; f++) {
        struct stat s;
        if (!stat(file[f], &s))
            bytes += (double)s.st_size; /* what is not there is named when its turn comes */
    }
    return (texts){.file = file, .files = files, .shown = progress_begin(what, "MB", 1e-6 * bytes)};
}

int texts_next(texts *t, document *d, error *e) {
    for (; t->at < t->files; t->at++) {
        if (!t->reader && documents_open(&t->reader, t->file[t->at], e)) return -1;
        const int more = documents_next(t->reader, d, e);
        const double at = t->before + (double)documents_at(t->reader);
        progress_at(&t->shown, 1e-6 * at);
        if (more) return more;
        t->before = at;
        documents_close(t->reader);
        t->reader = NULL;
    }
    return 0;
}

void texts_close(texts *t) {
    progress_end(&t->shown);
    documents_close(t->reader);
}
