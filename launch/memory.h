/* The only allocator.  What a step works on is there before the first one; steps allocate lists and messages
 * at most. */
#ifndef CARACAL_LAUNCH_MEMORY_H
#define CARACAL_LAUNCH_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Zeroed memory, aligned to 64 bytes.  Ends the program (exit 7) with `what` and the size if there is none.
 */
void *mem_alloc(size_t bytes, const char *what);
/* The same for large buffers that kernels work on: on pages of their own, huge ones where that pays. */
void *mem_alloc_pages(size_t bytes, const char *what);
/* Bytes that this host, or this process's control group, can still give; SIZE_MAX where nobody says. */
size_t mem_left(void);
/* As realloc; new bytes are not zeroed.  For growing lists outside the training step. */
void *mem_grow(void *old, size_t bytes, const char *what);
char *mem_string(const char *text);
void mem_free(void *p);

/* An arena: one block, cut from the front.  With base == NULL it only measures: the same layout function runs
 * once to learn the size and once to place things. */
typedef struct arena {
    const char *name;
    char *base;
    size_t size, used;
} arena;

arena arena_measure(const char *name);
/* Allocates and touches `bytes`, so that memory that is not there is missed now and not in step 1,000. */
arena arena_create(const char *name, size_t bytes);
/* Over memory of the caller's, which may be a device's: nothing here touches it, nor is it destroyed. */
arena arena_over(const char *name, void *memory, size_t bytes);
/* 64-byte aligned, zeroed when the arena is new; ends the program if the arena is full. */
void *arena_alloc(arena *a, size_t bytes);
void arena_destroy(arena *a);

#endif
