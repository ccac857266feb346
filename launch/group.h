/* The control groups that this process is in: a container's, a batch job's, and those that these are part of.
 */
#ifndef CARACAL_LAUNCH_GROUP_H
#define CARACAL_LAUNCH_GROUP_H

#include <stdint.h>

typedef enum group_version { GROUP_V2, GROUP_V1, GROUP_VERSIONS } group_version;

/* Called with a group's directory. */
typedef void group_visit(void *what, group_version version, const char *directory);

/* Visits the groups in which `controller` ("memory", "cpu") may be limited, from the innermost on.  root: ""
 * (tests: where else proc/ and sys/ lie). */
void group_each(const char *root, const char *controller, group_visit *visit, void *what);

/* The one or two numbers at the beginning of a group's file.  Returns how many there are: "max" is none. */
int group_numbers(const char *directory, const char *name, int64_t x[2]);

#endif
