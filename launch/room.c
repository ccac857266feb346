#include "launch/room.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "launch/group.h"

/* What a version of control groups calls things; a limit counts what files take in memory. */
static const struct {
    const char *limit, *used, *files[2];
} names[GROUP_VERSIONS] = {
    [GROUP_V2] = {"memory.max", "memory.current", {"active_file", "inactive_file"}},
    [GROUP_V1] = {"memory.limit_in_bytes",
                  "memory.usage_in_bytes",
                  {"total_active_file", "total_inactive_file"}},
};

/* What is known so far, and the host's swap space. */
typedef struct search {
    memory_room room;
    size_t swap, swap_left;
} search;

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

/* a + b, or the largest number there is. */
static size_t plus(size_t a, size_t b) {
    return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}

/* The host's memory and swap space in bytes; 0 where it does not say. */
static void read_meminfo(const char *root, size_t *total, size_t *left, size_t *swap, size_t *swap_left) {
    char path[4200], line[128];
    size_t kib;
    *total = *left = *swap = *swap_left = 0;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemTotal: %zu kB", &kib) == 1) *total = kib << 10;
        if (sscanf(line, "MemAvailable: %zu kB", &kib) == 1) *left = kib << 10;
        if (sscanf(line, "SwapTotal: %zu kB", &kib) == 1) *swap = kib << 10;
        if (sscanf(line, "SwapFree: %zu kB", &kib) == 1) *swap_left = kib << 10;
    }
    if (f) fclose(f);
}

static size_t files_of(const char *directory, group_version v) {
    char path[4400], line[256], key[64];
    size_t x, sum = 0;
    snprintf(path, sizeof path, "%s/memory.stat", directory);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%63s %zu", key, &x) == 2 &&
            (!strcmp(key, names[v].files[0]) || !strcmp(key, names[v].files[1])))
            sum += x;
    if (f) fclose(f);
    return sum;
}

static void limit_by(void *what, group_version v, const char *directory) {
    search *s = what;
    int64_t limit[2], used[2];
    if (!group_numbers(directory, names[v].limit, limit)) return;
    const size_t most = (size_t)limit[0], files = files_of(directory, v);
    const size_t taken = group_numbers(directory, names[v].used, used) ? (size_t)used[0] : 0;
    const size_t kept = taken > files ? taken - files : 0;
    if (plus(most, s->swap) < s->room.most) {
        s->room.most = plus(most, s->swap);
        s->room.in_group = 1;
    }
    s->room.left = smaller(s->room.left, plus(most > kept ? most - kept : 0, s->swap_left));
}

memory_room memory_room_of(const char *root) {
    size_t total, left;
    search s = {0};
    read_meminfo(root, &total, &left, &s.swap, &s.swap_left);
    s.room.most = total ? plus(total, s.swap) : SIZE_MAX;
    s.room.left = left ? plus(left, s.swap_left) : SIZE_MAX;
    group_each(root, "memory", limit_by, &s);
    return s.room;
}
