/* How much memory this process may have: the host's, or less where a control group (a container, a batch job)
 * sets a limit. */
#ifndef CARACAL_LAUNCH_ROOM_H
#define CARACAL_LAUNCH_ROOM_H

#include <stddef.h>

/* Bytes, swap space included; SIZE_MAX where nobody says. */
typedef struct memory_room {
    size_t most;  /* that all processes of the host, or of the group, can have together */
    size_t left;  /* of that, now; what files take of it can be had */
    int in_group; /* most is a group's limit */
} memory_room;

/* root: "" (tests: where else proc/ and sys/ lie). */
memory_room memory_room_of(const char *root);

#endif
