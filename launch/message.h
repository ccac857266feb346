/* One message of an exchange, and whether what came is what was sent. */
#ifndef CARACAL_LAUNCH_MESSAGE_H
#define CARACAL_LAUNCH_MESSAGE_H

#include <stdint.h>

#include "launch/error.h"

typedef struct message {
    int peer, bytes, is_receive;
    void *data;
    uint64_t *digest; /* of its blocks, as the sender has them; NULL: not checked */
} message;

/* 1 when a received message has other digests than came with it: *e names the sender, the first word that
 * differs and both its values (or the block, when more than one bit of it is wrong). */
int message_damaged(const message *m, int sender, error *e);

#endif
