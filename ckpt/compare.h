/* Two checkpoints side by side: which elements differ, and by how much. */
#ifndef CARACAL_CKPT_COMPARE_H
#define CARACAL_CKPT_COMPARE_H

#include "ckpt/ckpt.h"

typedef struct element_pair {
    int64_t index;    /* in the row-major tensor */
    uint64_t bits[2]; /* as stored, of the first and the second checkpoint */
} element_pair;

typedef struct tensor_difference {
    int64_t elements;      /* whose bits differ; 0: the tensors are equal, and nothing below is set */
    int64_t nans;          /* of them, those where one or both are NaN, which have no distance */
    element_pair first;    /* in order of index */
    element_pair farthest; /* of those that have a distance; of equal ones the first */
    uint64_t distance;     /* of the farthest */
} tensor_difference;

/* Compares tensor `i` of a with tensor `j` of b, which have one type and one shape, a chunk at a time.  Where
 * the manifests' digests are equal nothing is read. */
int ckpt_compare(ckpt *a, int64_t i, ckpt *b, int64_t j, tensor_difference *d, error *e);

int element_is_nan(int type, uint64_t bits);
/* Steps from one number to the other in the order of all numbers of their type (ULPs; both zeros are one
 * number); for integers the difference.  Returns 0 where one is NaN: there is no distance. */
int element_distance(int type, const uint64_t bits[2], uint64_t *distance);
/* "0.1 = 0x1.99999ap-4 (bits 3dcccccd)" */
enum { ELEMENT_TEXT = 96 };
void element_text(int type, uint64_t bits, char text[ELEMENT_TEXT]);

#endif
