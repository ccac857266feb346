/* Where the elements of logical tensors lie: which file, which chunk.  Pure functions of the list of tensors,
 * so that every rank computes the same answer and no rank count shows in a file.
 */
#ifndef CARACAL_CKPT_LAYOUT_H
#define CARACAL_CKPT_LAYOUT_H

#include "ckpt/ckpt.h"

enum {
    CHUNK_BYTES = 4 << 20,   /* a chunk's limit; larger tensors are cut into chunks of 1 to 4 MiB */
    WINDOW_BYTES = 32 << 20, /* what travels to a file's owner at one time */
    WINDOW_SPANS = 1024,     /* tensors that one window may touch */
};

/* "[512, 64]" of up to eight dimensions; returns text. */
enum { SHAPE_TEXT = 192 };
const char *shape_text(int rank, const int64_t *shape, char text[SHAPE_TEXT]);
int64_t shape_elements(int rank, const int64_t *shape);

size_t ckpt_type_size(int type); /* bytes of one element */
const char *ckpt_type_name(int type);
int64_t ckpt_elements(const ckpt_tensor *t);
size_t ckpt_bytes(const ckpt_tensor *t);

/* How a tensor is cut.  Chunks have the shape (1, .., 1, c, whole trailing dimensions): each is one
 * contiguous run of the row-major tensor.  `run` is the length of the dimension that is cut times what trails
 * it; the last chunk of each run may be shorter than the others, and is stored padded with zeros. */
typedef struct chunk_grid {
    int64_t chunk[4]; /* shape of a chunk */
    int64_t full;     /* elements of a full chunk */
    int64_t run;
    int64_t run_chunks; /* chunks of one run */
    int64_t chunks;     /* of the whole tensor */
} chunk_grid;

typedef struct chunk_span {
    int64_t offset, count; /* elements of the tensor */
    int64_t corner[4];     /* the coordinates of its first element */
} chunk_span;

chunk_grid chunk_grid_of(const ckpt_tensor *t);
chunk_span chunk_at(const ckpt_tensor *t, const chunk_grid *g, int64_t index);
/* The chunk that holds element `offset`. */
int64_t chunk_holding(const chunk_grid *g, int64_t offset);

/* Shares tensors out to `files` files, in order and balanced by size: file f holds the tensors
 * first[f] .. first[f + 1] - 1.  first has files + 1 entries. */
void ckpt_assign(const ckpt_tensor *tensors, int64_t n, int64_t files, int64_t *first);

/* A file's content, in order, a window at a time. */
typedef struct window_span {
    int64_t tensor, offset, count; /* elements of the tensor */
    int64_t chunk, chunks;         /* the same, in chunks */
    size_t at;                     /* where it lies in the window, bytes */
} window_span;

typedef struct window {
    int spans;
    size_t bytes;
    window_span span[WINDOW_SPANS];
} window;

typedef struct window_walk {
    const ckpt_tensor *tensors;
    int64_t tensor, end; /* tensors still to come */
    int64_t chunk;       /* of the first of them */
} window_walk;

/* The next window of the walk; 0 when there is none left. */
int window_next(window_walk *w, window *out);

/* A run of elements of one tensor that some rank holds. */
typedef struct extent {
    int64_t tensor, offset, count;
} extent;

/* Where a window and a sorted list of extents meet. */
typedef struct overlap {
    int64_t extent; /* index into the list */
    int64_t skip;   /* elements of the extent before the common part */
    int64_t count;  /* elements of the common part */
    size_t element; /* their size */
    size_t at;      /* where the common part lies in the window, bytes */
} overlap;

/* Gives the common parts one after the other, 0 when there is none left.  *cursor is the first extent that
 * may still matter: start a file with 0 and keep it from window to window.  *span starts each window
 * with 0. */
int window_overlap(const window *w, const ckpt_tensor *tensors, const extent *list, int64_t n,
                   int64_t *cursor, int *span, overlap *out);

#endif
