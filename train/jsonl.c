#include "train/jsonl.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "launch/files.h"
#include "launch/memory.h"

#define STEP " { \"step\" : %lld" /* how a row begins, for sscanf */

/* Does the line look like a row?  Which lines count is known before any of them is parsed.  A step
 * that no run has comes from damage. */
static int looks_like_row(const char *line, ssize_t bytes, int64_t *step) {
    long long x;
    if (bytes < 2 || strcmp(line + bytes - 2, "}\n") || sscanf(line, STEP, &x) != 1 || x < 0 || x > 1LL << 53)
        return 0;
    *step = x;
    return 1;
}

static void keep(jsonl *j, int64_t step, long offset) {
    while (j->rows > 0 && j->step[j->rows - 1] >= step) j->rows--; /* a resumed run repeats them */
    if (j->next > j->rows) j->next = j->rows;
    if (j->rows == j->room) {
        j->room = j->room ? 2 * j->room : 1024;
        j->step = mem_grow(j->step, (size_t)j->room * sizeof *j->step, "steps of a log");
        j->offset = mem_grow(j->offset, (size_t)j->room * sizeof *j->offset, "lines of a log");
    }
    j->step[j->rows] = step;
    j->offset[j->rows++] = offset;
}

/* Does the last row that is known lie where it lay?  Asks the file and not stdio's buffer. */
static int still_there(const jsonl *j) {
    char head[64];
    long long step;
    if (!j->rows) return 1;
    ssize_t n = pread(fileno(j->file), head, sizeof head - 1, j->offset[j->rows - 1]);
    head[n > 0 ? n : 0] = 0;
    return sscanf(head, STEP, &step) == 1 && step == j->step[j->rows - 1];
}

int jsonl_more(jsonl *j) {
    if (!j->file) return 0;
    j->at = -1;
    if (!still_there(j)) return 1;
    if (fseek(j->file, j->known, SEEK_SET)) return 0;
    for (;;) {
        ssize_t bytes = getline(&j->line, &j->line_size, j->file);
        j->cut = bytes > 0 && j->line[bytes - 1] != '\n'; /* off, or its end is still to come */
        if (bytes <= 0 || j->cut) return 0;
        int64_t step;
        if (looks_like_row(j->line, bytes, &step)) keep(j, step, j->known);
        else j->broken++;
        j->known += bytes;
    }
}

int jsonl_open(jsonl *j, const char *path, error *e) {
    *j = (jsonl){0};
    const char *why;
    j->file = open_text(path, &why);
    if (!j->file && errno == ENOENT) return 0;
    if (!j->file) return error_set(e, EXIT_IO, "%s: cannot be read: %s", path, why);
    jsonl_more(j);
    if (!ferror(j->file)) return 0;
    error_set(e, EXIT_IO, "%s: cannot be read: %s", path, strerror(errno));
    jsonl_close(j);
    return e->code;
}

json_t *jsonl_next(jsonl *j) {
    while (j->next < j->rows) {
        long offset = j->offset[j->next++];
        if (j->at != offset && fseek(j->file, offset, SEEK_SET)) return NULL; /* a seek empties the buffer */
        ssize_t bytes = getline(&j->line, &j->line_size, j->file);
        j->at = bytes < 0 ? -1 : offset + bytes;
        if (bytes < 0) return NULL;
        json_t *row = json_loads(j->line, JSON_REJECT_DUPLICATES, NULL);
        if (json_is_integer(json_object_get(row, "step"))) return row;
        json_decref(row);
        j->broken++;
    }
    return NULL;
}

void jsonl_close(jsonl *j) {
    if (j->file) fclose(j->file);
    mem_free(j->line);
    mem_free(j->step);
    mem_free(j->offset);
    *j = (jsonl){0};
}
