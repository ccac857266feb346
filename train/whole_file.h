/* Files that are looked at while they are written. */
#ifndef CARACAL_TRAIN_WHOLE_FILE_H
#define CARACAL_TRAIN_WHOLE_FILE_H

#include <stdio.h>

#include "launch/error.h"

/* Writes a file under a temporary name first, so that what is read under its own is never half of it.  Not
 * made durable: it can be made again. */
int whole_file(const char *path, void (*content)(FILE *, const void *), const void *data, error *e);

#endif
