#include "launch/host.h"

#include <stdio.h>
#include <unistd.h>

#include "launch/memory.h"

int host_processors_of(const cpu_set_t *allowed, int ranks, int rank) {
    int sharing = 0;
    for (int r = 0; r < ranks; r++) {
        cpu_set_t both;
        CPU_AND(&both, &allowed[r], &allowed[rank]);
        sharing += CPU_COUNT(&both) > 0;
    }
    int n = sharing ? CPU_COUNT(&allowed[rank]) / sharing : 0;
    return n > 1 ? n : 1;
}

int host_processors(comm *host) {
    int ranks = comm_size(host);
    cpu_set_t mine, *all = mem_alloc((size_t)ranks * sizeof *all, "processors of ranks");
    if (sched_getaffinity(0, sizeof mine, &mine)) CPU_ZERO(&mine); /* more than a set has room for */
    comm_all_gather(host, "processors", all, &mine, sizeof mine);
    int n = host_processors_of(all, ranks, comm_rank(host));
    mem_free(all);
    return n;
}

void host_name_rank(const comm *world, const comm *host, char text[HOST_TEXT]) {
    char name[256] = "";
    if (comm_size(world) == comm_size(host) || gethostname(name, sizeof name - 1))
        snprintf(text, HOST_TEXT, "rank %d", comm_rank(world));
    else snprintf(text, HOST_TEXT, "rank %d on %s", comm_rank(world), name);
}
