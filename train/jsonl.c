#include "train/jsonl.h"

#include <errno.h>
#include <string.h>

#include "launch/memory.h"

static json_t *parse(jsonl *j, int64_t *step) {
    json_t *row = json_loads(j->line, JSON_REJECT_DUPLICATES, NULL);
    json_t *value = json_object_get(row, "step");
    if (json_is_integer(value)) {
        *step = json_integer_value(value);
        return row;
    }
    json_decref(row);
    return NULL;
}

static void keep(jsonl *j, int64_t step, long offset, int64_t *room) {
    while (j->rows > 0 && j->step[j->rows - 1] >= step) j->rows--; /* a resumed run repeats them */
    if (j->rows == *room) {
        *room = *room ? 2 * *room : 1024;
        j->step = mem_grow(j->step, (size_t)*room * sizeof *j->step, "steps of a log");
        j->offset = mem_grow(j->offset, (size_t)*room * sizeof *j->offset, "lines of a log");
    }
    j->step[j->rows] = step;
    j->offset[j->rows++] = offset;
}

int jsonl_open(jsonl *j, const char *path, error *e) {
    *j = (jsonl){0};
    j->file = fopen(path, "rb");
    if (!j->file && errno == ENOENT) return 0;
    if (!j->file) return error_set(e, EXIT_IO, "%s: cannot be read: %s", path, strerror(errno));
    int64_t room = 0, bad = 0;
    for (;;) {
        long offset = ftell(j->file);
        if (getline(&j->line, &j->line_size, j->file) < 0) break;
        j->broken = bad; /* what the last line is does not matter */
        int64_t step;
        json_t *row = parse(j, &step);
        if (row) keep(j, step, offset, &room);
        else bad++;
        json_decref(row);
    }
    return 0;
}

json_t *jsonl_next(jsonl *j) {
    if (j->next == j->rows) return NULL;
    int64_t step;
    if (fseek(j->file, j->offset[j->next++], SEEK_SET) || getline(&j->line, &j->line_size, j->file) < 0)
        return NULL;
    return parse(j, &step);
}

void jsonl_close(jsonl *j) {
    if (j->file) fclose(j->file);
    mem_free(j->line);
    mem_free(j->step);
    mem_free(j->offset);
    *j = (jsonl){0};
}
