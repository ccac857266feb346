/* A switch for tests of silent data corruption: one bit is flipped on purpose, to see whether it is found.
 * Nothing but the environment variable CARACAL_TEST_FLIP turns it on, and it tells on stderr what it does:
 *
 *   CARACAL_TEST_FLIP="weight step=7 rank=1 tensor=model.norm.weight index=5 bit=22"
 *   CARACAL_TEST_FLIP="gemm step=7+ rank=1 layer=all index=5 bit=22"
 *   CARACAL_TEST_FLIP="message step=7 rank=1 layer=0 operation=combine index=5 bit=22"
 *
 * weight    before step 7 runs (steps count from 1) bit 22 of element 5 of that tensor changes, in the copy
 *           that rank 1 holds; rank=all: in every copy.  Also adam_m/NAME and adam_v/NAME, on the rank that
 *           owns the element, and router biases.
 * gemm      element 5 (counted round, where there are fewer) of the experts' gate and up product, every time
 *           that rank 1 computes it in that layer in step 7; step=7+: in step 7 and all that follow.
 * attention likewise of the gradient of q in both attentions' backwards.
 * message   likewise of every message of that operation (dispatch, combine, gather_of_weights, ...) that rank
 *           1 receives, in 32-bit elements.  layer=all also means: outside the layers.
 */
#ifndef CARACAL_LAUNCH_FLIP_H
#define CARACAL_LAUNCH_FLIP_H

#include <stddef.h>
#include <stdint.h>

#include "launch/error.h"

enum flip_kind { FLIP_NONE, FLIP_WEIGHT, FLIP_GEMM, FLIP_ATTENTION, FLIP_MESSAGE };
enum { FLIP_ALL_LAYERS = -2 };

typedef struct bit_flip {
    enum flip_kind kind; /* FLIP_NONE in every run that is not a test, and on ranks that are not meant */
    int64_t step, layer, index;
    int lasting, bit;
    int rank;       /* this rank */
    char name[256]; /* the tensor or the operation */
    int64_t now;    /* the step under way */
} bit_flip;

/* Reads the variable.  An error when it is set and says no sense. */
int flip_read(bit_flip *f, int rank, error *e);

/* Is the switch on for this kind, here and now? */
int flip_due(const bit_flip *f, enum flip_kind kind, int64_t layer);

/* Which of `elements` elements is meant. */
int64_t flip_element(const bit_flip *f, int64_t elements);
/* Flips the bit in an element of `size` bytes, number i of what the message calls `what`. */
void flip_strike(const bit_flip *f, const char *what, int64_t i, void *element, size_t size);
/* Both, in an array in host memory. */
void flip_strike_in(const bit_flip *f, const char *what, void *data, int64_t elements, size_t size);

#endif
