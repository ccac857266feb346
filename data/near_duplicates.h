/* Which documents are nearly the same, so that a text and its near copy never lie on both sides of the split
 * into training and held-out data.
 *
 * A document's shingles are its stretches of 32 bytes (white space runs count as one space, ASCII letters as
 * lower case).  They are hashed into 64 bins whose minima sketch the set (one-permutation MinHash); the
 * sketch is cut into 16 bands of 4, and documents that agree in a band are put into one group.  Documents
 * that share 80% of their shingles are found practically always (99.98%), 50% mostly (64%), 20% hardly ever
 * (3%).
 */
#ifndef CARACAL_DATA_NEAR_DUPLICATES_H
#define CARACAL_DATA_NEAR_DUPLICATES_H

#include <stddef.h>
#include <stdint.h>

typedef struct near_duplicates near_duplicates;

near_duplicates *near_duplicates_open(void);
void near_duplicates_close(near_duplicates *n);

/* Adds the next document; they are numbered 0, 1, 2, ... */
void near_duplicates_add(near_duplicates *n, const char *text, size_t bytes);
int64_t near_duplicates_count(const near_duplicates *n); /* documents added */

typedef struct near_duplicates_split {
    int64_t groups;           /* of two or more documents ... */
    int64_t grouped;          /* ... with this many documents in all */
    int64_t held_out;         /* documents */
    int64_t documents, bytes; /* of everything */
} near_duplicates_split;

/* held_out [documents] = 1 for the documents held out, whole groups at a time.  Groups are taken in an order
 * that depends on the seed and their texts alone, as long as they fit into `fraction` of all bytes; if none
 * fits, the smallest is taken, unless it is all there is.  The same documents in another order give the same
 * split. */
near_duplicates_split near_duplicates_hold_out(const near_duplicates *n, double fraction, uint64_t seed,
                                               uint8_t *held_out);

#endif
