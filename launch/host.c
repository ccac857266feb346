#include "launch/host.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "launch/group.h"
#include "launch/memory.h"

cpu_set_t host_one_of_each_core(const char *root, const cpu_set_t *processors) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    for (int i = 0; i < CPU_SETSIZE; i++) {
        char path[4200];
        int first = i;
        if (!CPU_ISSET(i, processors)) continue;
        snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", root, i);
        FILE *f = fopen(path, "r");
        if (f && (fscanf(f, "%d", &first) != 1 || first < 0 || first >= CPU_SETSIZE)) first = i;
        if (f) fclose(f);
        CPU_SET(first, &cores);
    }
    return cores;
}

cpu_set_t host_own_cores(void) {
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof mine, &mine)) CPU_ZERO(&mine);
    return host_one_of_each_core("", &mine);
}

static void limit_by(void *what, group_version version, const char *directory) {
    double *most = what;
    int64_t quota[2], period[2];
    int known;
    if (version == GROUP_V2) {
        known = group_numbers(directory, "cpu.max", quota) == 2;
        period[0] = quota[1];
    } else {
        known = group_numbers(directory, "cpu.cfs_quota_us", quota) && /* -1: none */
                group_numbers(directory, "cpu.cfs_period_us", period);
    }
    if (known && quota[0] > 0 && period[0] > 0) *most = fmin(*most, (double)quota[0] / (double)period[0]);
}

int host_quota(const char *root) {
    double most = INT_MAX;
    group_each(root, "cpu", limit_by, &most);
    return (int)most;
}

int host_cores_of(const cpu_set_t *allowed, int ranks, int rank) {
    int sharing = 0;
    for (int r = 0; r < ranks; r++) {
        cpu_set_t both;
        CPU_AND(&both, &allowed[r], &allowed[rank]);
        sharing += CPU_COUNT(&both) > 0;
    }
    int n = sharing ? CPU_COUNT(&allowed[rank]) / sharing : 0;
    return n > 1 ? n : 1;
}

int host_cores(comm *host) {
    const int ranks = comm_size(host), quota = host_quota("") / ranks;
    const cpu_set_t mine = host_own_cores();
    cpu_set_t *all = mem_alloc((size_t)ranks * sizeof *all, "cores of ranks");
    comm_all_gather(host, "cores", all, &mine, sizeof mine);
    const int n = host_cores_of(all, ranks, comm_rank(host));
    mem_free(all);
    return quota < 1 ? 1 : n < quota ? n : quota;
}

void host_name_rank(const comm *world, const comm *host, char text[HOST_TEXT]) {
    char name[256] = "";
    if (comm_size(world) == comm_size(host) || gethostname(name, sizeof name - 1))
        snprintf(text, HOST_TEXT, "rank %d", comm_rank(world));
    else snprintf(text, HOST_TEXT, "rank %d on %s", comm_rank(world), name);
}
