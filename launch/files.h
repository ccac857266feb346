/* What is asked of the file system.  Errors have code EXIT_IO, the path and errno's text. */
#ifndef CARACAL_LAUNCH_FILES_H
#define CARACAL_LAUNCH_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <xxhash.h>

#include "launch/error.h"

/* "PATH: what: errno's text"; returns EXIT_IO. */
int path_error(error *e, const char *path, const char *what);

/* printf into a string of its own (mem_free). */
char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

int path_exists(const char *path);
/* Is there a DIRECTORY/NAME, links followed? */
int path_has(const char *directory, const char *name);
/* The directory that holds `path`, "." where it names none (mem_free). */
char *parent_of(const char *path);
/* Makes the directory and those above it, each made durable; the error names the one that cannot be made. */
int make_directories(const char *path, error *e);
/* Makes a file or a directory durable. */
int sync_path(const char *path, error *e);
int rename_path(const char *from, const char *to, error *e);
/* Renames a file and makes the new name durable. */
int move_into_place(const char *temporary, const char *path, error *e);
/* write() until everything is written; -1 with errno otherwise. */
int write_all(int fd, const void *data, size_t bytes);
/* Writes a file whole: under a temporary name, synced, renamed, the directory synced. */
int write_file(const char *path, const void *data, size_t bytes, error *e);
/* Makes the directory if it is missing and tries it out: a file is written, synced, renamed and removed. */
int probe_directory(const char *path, error *e);
/* Takes the directory for this process alone, until it ends or closes *fd (-1: a file system without locks).
 * Another one that has it may be about to end, and gets ten seconds for that.  EXIT_USAGE: it still has it.
 */
int hold_directory(const char *path, int *fd, error *e);
/* Opens a file to be read; -1 where it cannot, with errno and *why in words.  What is no regular file is
 * refused: a pipe that nobody writes into would be waited for. */
int open_file(const char *path, const char **why);
FILE *open_text(const char *path, const char **why); /* likewise; NULL */
/* Reads a file whole: *data (mem_free) ends with a zero that *bytes does not count. */
int read_file(const char *path, char **data, size_t *bytes, error *e);
/* A digest as 32 hexadecimal digits. */
void digest_text(XXH128_hash_t digest, char hex[33]);
/* Size and XXH3-128 of a file's bytes. */
int digest_file(const char *path, int64_t *bytes, XXH128_hash_t *digest, error *e);

#endif
