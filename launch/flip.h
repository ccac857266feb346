/* A switch for tests of silent data corruption: one bit is flipped on purpose, to see whether it is found.
 * Nothing but the environment variable CARACAL_TEST_FLIP turns it on, and it tells on stderr what it does:
 *
 *   CARACAL_TEST_FLIP="weight step=7 rank=1 tensor=model.norm.weight index=5 bit=22"
 *
 * weight    before step 7 runs (steps count from 1) bit 22 of element 5 of that tensor changes, in the copy
 *           that rank 1 holds; rank=all: in every copy.
 */
#ifndef CARACAL_LAUNCH_FLIP_H
#define CARACAL_LAUNCH_FLIP_H

#include <stddef.h>
#include <stdint.h>

#include "launch/error.h"

enum flip_kind { FLIP_NONE, FLIP_WEIGHT };

typedef struct flip {
    enum flip_kind kind; /* FLIP_NONE in every run that is not a test, and on ranks that are not meant */
    int64_t step, index;
    int bit;
    int rank; /* this rank */
    char tensor[256];
} flip;

/* Reads the variable.  An error when it is set and says no sense. */
int flip_read(flip *f, int rank, error *e);

/* Flips the bit in element f->index of `elements` elements of `size` bytes; tells so, naming `what`. */
void flip_strike(const flip *f, const char *what, void *data, int64_t elements, size_t size);

#endif
