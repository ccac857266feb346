/* Tables that kernels and host code both use.  Such a table lies in the backend's memory and has a twin on
 * the host; where the backend's memory is the host's, the two are one and nothing is ever copied. */
#ifndef CARACAL_KERNELS_TWIN_H
#define CARACAL_KERNELS_TWIN_H

#include "kernels/kernels.h"
#include "launch/memory.h"

/* The host's twin of a table: itself, or room in `host`. */
static inline void *twin_place(const kernels *k, arena *host, void *table, size_t bytes) {
    return k->host_memory ? table : arena_alloc(host, bytes);
}
/* The same in memory of its own; to be freed with twin_free, before the table. */
static inline void *twin_alloc(const kernels *k, void *table, size_t bytes, const char *what) {
    return k->host_memory ? table : mem_alloc(bytes, what);
}
static inline void twin_free(const void *table, void *twin) {
    if (twin != table) mem_free(twin);
}

/* The twin gets what kernels wrote. */
static inline void twin_read(const kernels *k, void *twin, const void *table, size_t bytes) {
    if (twin != table) k->to_host(k->ctx, twin, table, bytes);
}
/* The same in two halves: the twins have what was written when twin_fetched returns. */
static inline void twin_fetch(const kernels *k, void *twin, const void *table, size_t bytes) {
    if (twin == table) return;
    if (k->fetch) k->fetch(k->ctx, twin, table, bytes);
    else k->to_host(k->ctx, twin, table, bytes);
}
static inline void twin_fetched(const kernels *k) {
    if (k->fetched) k->fetched(k->ctx);
}
/* Kernels get what the host wrote. */
static inline void twin_write(const kernels *k, void *table, const void *twin, size_t bytes) {
    if (twin != table) k->to_device(k->ctx, table, twin, bytes);
}

#endif
