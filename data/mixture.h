/* Which source a position of the run belongs to, and which of that source's samples comes there: the mixture
 * of sources and how stages change it.
 *
 * Positions lie in blocks of LOADER_BLOCK.  In a ramp a block has the shares of its middle.  A stage with
 * other weights or another length begins a block of its own, and the block that it cuts short leaves samples
 * unused: they come first in what follows, so that an epoch has each sample once, whatever the stages.  With
 * another length a source is cut into other samples: the epoch at hand ends there, and the new samples begin
 * an epoch of theirs.  What came before a stage begins does not depend on it.
 */
#ifndef CARACAL_DATA_MIXTURE_H
#define CARACAL_DATA_MIXTURE_H

#include "data/loader.h"

typedef struct mixture mixture;

/* Makes the table of all stages.  samples [stages + 1][sources]: of each source at the length of each stage,
 * from which on an epoch begins anew.  An error names the source whose weight gives less than one sample in a
 * block. */
int mixture_open(mixture **out, const data_config *c, int64_t seq_len, const int64_t *samples, uint64_t seed,
                 error *e);
void mixture_close(mixture *m);

/* A sample of a source: number `ordinal` of epoch `epoch`, before any permutation inside the epoch. */
typedef struct mixture_draw {
    int64_t source, epoch, ordinal;
} mixture_draw;
/* In constant time (the logarithm of the number of different shares, at most RAMP_LEVELS a stage). */
mixture_draw mixture_at(const mixture *m, int64_t stage, int64_t position);
/* Whether any sample of this source comes in this stage. */
int mixture_uses(const mixture *m, int64_t stage, int64_t source);

/* count [sources] = largest-remainder shares of `total`; of equal remainders the earlier source's is served
 * first.  Weights are >= 0, their sum is above 0; a weight of 0 gets nothing. */
void mixture_shares(int64_t *count, const double *weight, int64_t sources, int64_t total);

#endif
