#include "data/documents.h"

#include <jansson.h>
#include <string.h>

#include "data/input.h"
#include "data/utf8.h"
#include "launch/memory.h"

struct document_reader {
    char *path;
    input file;
    size_t at;
    int64_t line; /* of `at`, from 1; counted in jsonl only */
    int is_jsonl;
    json_t *object; /* that holds the last document */
};

int documents_open(document_reader **out, const char *path, error *e) {
    input file;
    if (input_open(&file, path, e)) return e->code;
    document_reader *r = mem_alloc(sizeof *r, "a reader of documents");
    size_t n = strlen(path);
    *r = (document_reader){.path = mem_string(path), .file = file, .line = 1};
    r->is_jsonl = n > 6 && !strcmp(path + n - 6, ".jsonl");
    if (file.bytes >= 3 && !memcmp(file.data, "\xEF\xBB\xBF", 3)) r->at = 3;
    *out = r;
    return 0;
}

size_t documents_at(const document_reader *r) {
    return r->at;
}

void documents_close(document_reader *r) {
    if (!r) return;
    json_decref(r->object);
    input_close(&r->file);
    mem_free(r->path);
    mem_free(r);
}

static int64_t line_of(const document_reader *r, size_t at) {
    int64_t line = 1;
    const char *p = r->file.data, *end = p + at;
    while ((p = memchr(p, '\n', (size_t)(end - p)))) {
        p++;
        line++;
    }
    return line;
}

static int check_utf8(const document_reader *r, size_t from, size_t bytes, error *e) {
    size_t valid = utf8_valid_prefix(r->file.data + from, bytes);
    if (valid == bytes) return 0;
    return error_set(e, EXIT_CORRUPT, "%s, line %lld: the byte 0x%02X at offset %zu is not UTF-8", r->path,
                     (long long)line_of(r, from + valid), (unsigned char)r->file.data[from + valid],
                     from + valid);
}

/* The document in one line of jsonl; *d is left alone if there is none in it (a blank line, an empty text).
 */
static int read_line(document_reader *r, size_t from, size_t bytes, document *d, error *e) {
    if (bytes > DOCUMENT_LINE_LIMIT)
        return error_set(e, EXIT_CORRUPT, "%s, line %lld: %zu bytes long; the limit is %d MiB a line",
                         r->path, (long long)r->line, bytes, DOCUMENT_LINE_LIMIT >> 20);
    if (check_utf8(r, from, bytes, e)) return e->code;
    const char *line = r->file.data + from;
    size_t spaces = 0;
    while (spaces < bytes && strchr(" \t\r", line[spaces]) && line[spaces]) spaces++;
    if (spaces == bytes) return 0;

    json_error_t why;
    json_decref(r->object);
    /* numbers are nobody's concern here: one that no integer holds is no fault */
    r->object = json_loadb(line, bytes, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &why);
    if (!r->object)
        return error_set(e, EXIT_CORRUPT, "%s, line %lld: not valid JSON: %s", r->path, (long long)r->line,
                         why.text);
    const json_t *text = json_object_get(r->object, "text");
    if (!json_is_string(text))
        return error_set(e, EXIT_CORRUPT, "%s, line %lld: not an object with a string \"text\"", r->path,
                         (long long)r->line);
    *d = (document){json_string_value(text), json_string_length(text)};
    return 0;
}

static int next_in_jsonl(document_reader *r, document *d, error *e) {
    while (r->at < r->file.bytes) {
        const char *line = r->file.data + r->at;
        const char *end = memchr(line, '\n', r->file.bytes - r->at);
        size_t bytes = end ? (size_t)(end - line) : r->file.bytes - r->at;
        *d = (document){0};
        if (read_line(r, r->at, bytes, d, e)) return -1;
        r->at += bytes + (end != NULL);
        r->line++;
        if (d->bytes) return 1;
    }
    return 0;
}

/* The line end that follows at a place: its bytes, or 0 if there is none. */
static size_t line_end(const char *text, size_t bytes) {
    if (bytes > 0 && text[0] == '\n') return 1;
    return bytes > 1 && text[0] == '\r' && text[1] == '\n' ? 2 : 0;
}

/* The bytes of the document at the start of what is left of a large file. */
static size_t cut(const char *text, size_t bytes) {
    size_t last_line = 0, blank;
    for (size_t i = 0; i < bytes && i < DOCUMENT_CUT_BEFORE; i++) {
        if (text[i] != '\n') continue;
        last_line = i + 1;
        if (last_line >= DOCUMENT_CUT_AFTER && (blank = line_end(text + last_line, bytes - last_line)))
            return last_line + blank;
    }
    if (bytes <= DOCUMENT_CUT_BEFORE) return bytes;
    if (last_line) return last_line;
    size_t at = DOCUMENT_CUT_BEFORE;
    while (at > DOCUMENT_CUT_BEFORE - 3 && (text[at] & 0xC0) == 0x80) at--; /* not inside a character */
    return at;
}

static int next_in_plain(document_reader *r, document *d, error *e) {
    if (r->at == r->file.bytes) return 0;
    size_t from = r->at, bytes = r->file.bytes - from;
    if (r->file.bytes > DOCUMENT_CUT_BEFORE) bytes = cut(r->file.data + from, bytes);
    if (check_utf8(r, from, bytes, e)) return -1;
    r->at += bytes;
    *d = (document){r->file.data + from, bytes};
    return 1;
}

int documents_next(document_reader *r, document *d, error *e) {
    return r->is_jsonl ? next_in_jsonl(r, d, e) : next_in_plain(r, d, e);
}
