#include "launch/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "launch/error.h"
#include "launch/room.h"

enum { PAGE = 4096, HUGE_PAGE = 2 << 20, LARGE = 64 << 20 };

static size_t round_up(size_t bytes) {
    return (bytes + 63) & ~(size_t)63;
}

size_t mem_left(void) {
    return memory_room_of("").left;
}

/* The system promises more than it has, and kills whoever takes it at its word: large pieces, which are
 * touched at once, are asked for only where there is room. */
static void want(size_t bytes, const char *what) {
    size_t left = bytes < LARGE ? SIZE_MAX : mem_left();
    if (bytes > left)
        FAULT(EXIT_NO_MEMORY,
              "out of memory: this host has %zu MiB left of the %zu MiB that are needed for %s; `caracal "
              "plan CONFIG` tells what a model needs",
              left >> 20, bytes >> 20, what);
}

void *mem_alloc(size_t bytes, const char *what) {
    want(bytes, what);
    size_t size = round_up(bytes ? bytes : 1);
    void *p = size < bytes ? NULL : aligned_alloc(64, size);
    if (!p) FAULT(EXIT_NO_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
    return memset(p, 0, size);
}

void *mem_alloc_pages(size_t bytes, const char *what) {
    want(bytes, what);
    size_t page = bytes < 4 * HUGE_PAGE ? PAGE : HUGE_PAGE, size = (bytes + page - 1) / page * page;
    void *p = size < bytes ? NULL : aligned_alloc(page, size ? size : page);
    if (!p) FAULT(EXIT_NO_MEMORY, "out of memory: %zu MiB for %s", bytes >> 20, what);
    if (page == HUGE_PAGE) madvise(p, size, MADV_HUGEPAGE);
    return memset(p, 0, size);
}

void *mem_grow(void *old, size_t bytes, const char *what) {
    void *p = realloc(old, bytes ? bytes : 1);
    if (!p) FAULT(EXIT_NO_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
    return p;
}

char *mem_string(const char *text) {
    size_t n = strlen(text) + 1;
    return memcpy(mem_alloc(n, "a string"), text, n);
}

void mem_free(void *p) {
    free(p);
}

arena arena_measure(const char *name) {
    return (arena){.name = name, .size = SIZE_MAX};
}

arena arena_create(const char *name, size_t bytes) {
    arena a = {.name = name, .size = round_up(bytes)};
    if (a.size) a.base = mem_alloc_pages(a.size, name);
    return a;
}

arena arena_over(const char *name, void *memory, size_t bytes) {
    return (arena){.name = name, .base = memory, .size = bytes};
}

void *arena_alloc(arena *a, size_t bytes) {
    size_t at = a->used, size = round_up(bytes);
    if (size < bytes || size > a->size - at)
        FAULT(EXIT_NO_MEMORY, "arena %s is full: %zu bytes wanted, %zu of %zu left", a->name, bytes,
              a->size - at, a->size);
    a->used += size;
    return a->base ? a->base + at : NULL;
}

void arena_destroy(arena *a) {
    mem_free(a->base);
    *a = (arena){0};
}
