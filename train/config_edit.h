/* Changes to a config's YAML text that leave everything else, comments included, as it was. */
#ifndef CARACAL_TRAIN_CONFIG_EDIT_H
#define CARACAL_TRAIN_CONFIG_EDIT_H

#include "launch/error.h"

/* The text with section.key = value: in place of the value that is there, or as a new line at the end of its
 * section, or with the section at the end of the file.  `text` is a config that config_load can read; it is
 * freed, and the new one is the caller's.  NULL: an earlier edit took away what an alias stands for; aliases
 * may also spread a value: load what comes out and look. */
char *config_edit(char *text, const char *name, const char *value);

#endif
