/* A file that appears under its name only when it is whole: written beside it as NAME.tmp, fsynced, renamed.
 */
#ifndef CARACAL_DATA_OUTPUT_H
#define CARACAL_DATA_OUTPUT_H

#include <stddef.h>
#include <stdio.h>

#include "launch/error.h"

typedef struct output {
    FILE *file;
    char *path, *temporary;
    int failed; /* errno of the first write that failed, or 0 */
} output;

/* Every function that fails returns EXIT_IO and names the file and the reason; the caller then calls
 * output_discard. */
int output_open(output *o, const char *path, error *e); /* makes directories that are missing above it */
/* A failure is kept for output_finish. */
void output_write(output *o, const void *data, size_t bytes);
/* All bytes are on the disk, still under the temporary name. */
int output_finish(output *o, error *e);
/* Gives the finished file its name.  After this the output is closed. */
int output_commit(output *o, error *e);
/* Removes whatever was written; does nothing to an output that is {0} or committed. */
void output_discard(output *o);

#endif
