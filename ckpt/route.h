/* Takes the elements of logical tensors from the ranks that hold them to the ranks that write them, a window
 * of every file at a time, so that messages under way need little room.
 */
#ifndef CARACAL_CKPT_ROUTE_H
#define CARACAL_CKPT_ROUTE_H

#include "ckpt/layout.h"

typedef struct route {
    comm *c;
    const ckpt_tensor *tensors;
    const ckpt_slice *mine;
    extent *extents;   /* of all ranks, rank by rank */
    int64_t *first;    /* [ranks + 1] where a rank's begin */
    int files;         /* of this round: rank q writes the q-th */
    window_walk *walk; /* [ranks] */
    int64_t *sent;     /* [ranks] the first of my extents that the file may still need */
    int64_t *received; /* [ranks] the first of a rank's extents that my file may still need */
    window *scratch;   /* another rank's window */
    comm_part *part;   /* of the exchange being made */
    int parts, capacity;
} route;

/* Collective: every rank tells every other what it holds.  Ends the program where an element is given twice
 * or not at all, which only a bug can do. */
void route_open(route *r, comm *c, const ckpt_tensor *tensors, int64_t n_tensors, const ckpt_slice *mine,
                int64_t n_mine);
void route_close(route *r);

/* Begins a round of at most as many files as ranks; file q holds the tensors first[q] .. first[q + 1] - 1. */
void route_begin(route *r, int files, const int64_t *first);
/* Starts the exchange of the next window of each file; *out is my file's (no bytes: none), which will be in
 * `staging` after comm_wait.  Returns 0 when no file of the round has a window left. */
int route_next(route *r, window *out, void *staging, comm_request **request);

#endif
