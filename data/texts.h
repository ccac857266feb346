/* The documents of several text files, one file after the other, and how far through them a command is. */
#ifndef CARACAL_DATA_TEXTS_H
#define CARACAL_DATA_TEXTS_H

#include "data/documents.h"
#include "launch/progress.h"

typedef struct texts {
    const char *const *file;
    int files, at;
    document_reader *reader; /* of the file at `at`, once it is open */
    double before;           /* bytes of the files before it */
    progress shown;
} texts;

/* what: what is done with them, for the line of progress.  The names stay the caller's. */
texts texts_open(const char *what, const char *const *file, int files);
/* As documents_next: 1 and *d, 0 at the end of the last file, -1 and *e. */
int texts_next(texts *t, document *d, error *e);
void texts_close(texts *t);

#endif
