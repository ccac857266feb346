#include "launch/group.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PATH_ROOM = 4200, DIRECTORY_ROOM = PATH_ROOM + 200 };

/* Is it one of "cpu,cpuacct"? */
static int is_listed(const char *controllers, const char *controller) {
    const size_t length = strlen(controller);
    for (const char *c = controllers; *c;) {
        const size_t n = strcspn(c, ",");
        if (n == length && !strncmp(c, controller, n)) return 1;
        c += n + (c[n] == ',');
    }
    return 0;
}

/* The group at `path`, which is cut on the way, and all that it is part of. */
static void climb(const char *root, const char *controller, group_version version, char *path,
                  group_visit *visit, void *what) {
    for (char *slash;; *slash = 0) {
        char directory[DIRECTORY_ROOM];
        snprintf(directory, sizeof directory, "%s/sys/fs/cgroup%s%s%s", root, version == GROUP_V1 ? "/" : "",
                 version == GROUP_V1 ? controller : "", path);
        visit(what, version, directory);
        slash = strrchr(path, '/');
        if (!slash) return;
    }
}

void group_each(const char *root, const char *controller, group_visit *visit, void *what) {
    char path[PATH_ROOM], line[PATH_ROOM];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) { /* number:controllers:path, and no controllers in version 2 */
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *controllers++ = *group++ = 0;
        if (!*controllers) climb(root, controller, GROUP_V2, group, visit, what);
        else if (is_listed(controllers, controller)) climb(root, controller, GROUP_V1, group, visit, what);
    }
    if (f) fclose(f);
}

int group_numbers(const char *directory, const char *name, int64_t x[2]) {
    char path[DIRECTORY_ROOM + 64];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "r");
    const int n = f ? fscanf(f, "%" SCNd64 " %" SCNd64, &x[0], &x[1]) : 0;
    if (f) fclose(f);
    return n < 0 ? 0 : n;
}
