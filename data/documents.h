/* The documents of a text file, one after the other.
 *
 *   NAME.jsonl     each line is a JSON object; its "text" is a document.
 *   anything else  plain text.  A file of up to 64 KiB is one document.  A larger one is cut at the first
 *                  blank line after 4 KiB, or where none comes within 64 KiB, at a line's end; a line longer
 *                  than that is cut between characters.
 *
 * All text must be UTF-8; a byte order mark at the start is skipped.
 */
#ifndef CARACAL_DATA_DOCUMENTS_H
#define CARACAL_DATA_DOCUMENTS_H

#include <stddef.h>

#include "launch/error.h"

enum {
    DOCUMENT_LINE_LIMIT = 64 << 20, /* bytes in a line of jsonl */
    DOCUMENT_CUT_AFTER = 4 << 10,   /* of plain text */
    DOCUMENT_CUT_BEFORE = 64 << 10
};

typedef struct document_reader document_reader;

typedef struct document {
    const char *text; /* belongs to the reader, until the next call */
    size_t bytes;     /* never 0: empty documents are skipped */
} document;

int documents_open(document_reader **out, const char *path, error *e);
/* 1 and *d = the next document; 0 at the end; -1 and *e on a fault in the file (EXIT_CORRUPT), which names
 * file and line: not UTF-8, not a JSON object, no "text", a line over the limit. */
int documents_next(document_reader *r, document *d, error *e);
/* How many bytes of the file are behind. */
size_t documents_at(const document_reader *r);
void documents_close(document_reader *r);

#endif
