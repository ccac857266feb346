/* A directory that appears whole, under its name, or not at all. */
#ifndef CARACAL_CKPT_STAGING_H
#define CARACAL_CKPT_STAGING_H

#include "launch/error.h"

/* Makes the empty directory PATH.tmp (*temporary, mem_free), to be filled.  EXIT_USAGE: PATH exists and is
 * not an empty directory, or a PATH.tmp stands there. */
int staging_begin(const char *path, char **temporary, error *e);
/* Gives it its name, durably. */
int staging_commit(const char *temporary, error *e);
/* Removes it with all that is in it. */
void staging_abandon(const char *temporary);

#endif
