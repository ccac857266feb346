/* A whole file mapped for reading. */
#ifndef CARACAL_DATA_INPUT_H
#define CARACAL_DATA_INPUT_H

#include <stddef.h>

#include "launch/error.h"

typedef struct input {
    const char *data; /* never NULL */
    size_t bytes;
} input;

/* Errors (EXIT_IO) name the file: it is missing, not readable, not a regular file. */
int input_open(input *i, const char *path, error *e);
void input_close(input *i);

#endif
