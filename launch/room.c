#include "launch/room.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* What a version of control groups calls things; a limit counts what files take in memory. */
typedef struct group_names {
    const char *line; /* of /proc/self/cgroup: what stands before the path, behind a number and names */
    const char *mount, *limit, *used, *files[2];
} group_names;

static const group_names versions[] = {
    {"0::", "/sys/fs/cgroup", "memory.max", "memory.current", {"active_file", "inactive_file"}},
    {"memory:",
     "/sys/fs/cgroup/memory",
     "memory.limit_in_bytes",
     "memory.usage_in_bytes",
     {"total_active_file", "total_inactive_file"}},
};

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

/* The number in a group's file; 0: there is none, or it is "max". */
static int number_in(const char *directory, const char *name, size_t *x) {
    char path[4400];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "r");
    int found = f && fscanf(f, "%zu", x) == 1;
    if (f) fclose(f);
    return found;
}

static size_t files_of(const char *directory, const group_names *g) {
    char path[4400], line[256], key[64];
    size_t x, sum = 0;
    snprintf(path, sizeof path, "%s/memory.stat", directory);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%63s %zu", key, &x) == 2 &&
            (!strcmp(key, g->files[0]) || !strcmp(key, g->files[1])))
            sum += x;
    if (f) fclose(f);
    return sum;
}

/* Of the group at `path` and all that it is part of. */
static void limit_by(memory_room *room, const char *root, const group_names *g, char *path, size_t swap,
                     size_t swap_left) {
    for (;;) {
        char directory[4300];
        size_t limit, used = 0;
        snprintf(directory, sizeof directory, "%s%s%s", root, g->mount, path);
        if (number_in(directory, g->limit, &limit)) {
            size_t files = files_of(directory, g);
            number_in(directory, g->used, &used);
            used = used > files ? used - files : 0;
            if (plus(limit, swap) < room->most) {
                room->most = plus(limit, swap);
                room->in_group = 1;
            }
            room->left = smaller(room->left, plus(limit > used ? limit - used : 0, swap_left));
        }
        char *slash = strrchr(path, '/');
        if (!slash) return;
        *slash = 0;
    }
}

memory_room memory_room_of(const char *root) {
    char path[4200], line[4200];
    size_t total, left, swap, swap_left;
    read_meminfo(root, &total, &left, &swap, &swap_left);
    memory_room room = {.most = total ? plus(total, swap) : SIZE_MAX,
                        .left = left ? plus(left, swap_left) : SIZE_MAX};
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        for (size_t v = 0; v < sizeof versions / sizeof *versions; v++) {
            char *at = strstr(line, versions[v].line);
            /* version 2 begins with it */
            if (at && (v || at == line))
                limit_by(&room, root, &versions[v], at + strlen(versions[v].line), swap, swap_left);
        }
    }
    if (f) fclose(f);
    return room;
}
