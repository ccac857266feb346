/* A directory for the files of one test, removed with all that is in it. */
#ifndef CARACAL_TESTS_SCRATCH_H
#define CARACAL_TESTS_SCRATCH_H

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct scratch {
    char directory[64];
    char **path; /* all that scratch_path gave; they live as long as the directory */
    int paths;
} scratch;

static inline int scratch_setup(void **state) {
    scratch *s = calloc(1, sizeof *s);
    strcpy(s->directory, "/tmp/caracal-test-XXXXXX");
    *state = s;
    return mkdtemp(s->directory) ? 0 : -1;
}

static inline int scratch_remove(const char *path, const struct stat *info, int kind, struct FTW *at) {
    (void)info, (void)kind, (void)at;
    return remove(path);
}

/* Removes its files, and not what lies in directories. */
static inline void scratch_empty(const scratch *s) {
    DIR *d = opendir(s->directory);
    for (struct dirent *f; d && (f = readdir(d));)
        if (f->d_name[0] != '.') unlinkat(dirfd(d), f->d_name, 0);
    if (d) closedir(d);
}

static inline int scratch_teardown(void **state) {
    scratch *s = *state;
    nftw(s->directory, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
    for (int i = 0; i < s->paths; i++) free(s->path[i]);
    free(s->path);
    free(s);
    return 0;
}

static inline char *scratch_path(scratch *s, const char *name) {
    size_t bytes = strlen(s->directory) + strlen(name) + 2;
    char *p = malloc(bytes);
    s->path = realloc(s->path, ((size_t)s->paths + 1) * sizeof *s->path);
    if (!p || !s->path) abort();
    s->path[s->paths++] = p;
    snprintf(p, bytes, "%s/%s", s->directory, name);
    return p;
}

static inline char *scratch_write_bytes(scratch *s, const char *name, const void *data, size_t bytes) {
    char *path = scratch_path(s, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f)) abort();
    return path;
}

static inline char *scratch_write(scratch *s, const char *name, const char *text) {
    return scratch_write_bytes(s, name, text, strlen(text));
}

/* How many files the directory holds. */
static inline int scratch_files(const scratch *s) {
    DIR *d = opendir(s->directory);
    int n = 0;
    for (struct dirent *f; d && (f = readdir(d));) n += f->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

/* The whole file and a final 0, to be freed. */
static inline char *scratch_read(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        abort();
    }
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    rewind(f);
    char *data = calloc(1, n + 1);
    if (fread(data, 1, n, f) != n) abort();
    fclose(f);
    if (bytes) *bytes = n;
    return data;
}

/* The text of a page or picture that the test made, to be freed: something, and less than a mebibyte. */
static inline char *scratch_text(scratch *s, const char *name) {
    size_t bytes;
    char *text = scratch_read(scratch_path(s, name), &bytes);
    if (bytes < 1 || bytes > (1 << 20) - 2) {
        fprintf(stderr, "%s: %zu bytes\n", name, bytes);
        abort();
    }
    return text;
}

#endif
