/* What is made of the operations of launch/comm.c alone. */
#include "launch/comm.h"
#include "launch/memory.h"

int comm_ranges(const comm *c, void *data, const size_t *offset, comm_part *send, comm_part *receive) {
    int n = 0, size = comm_size(c), rank = comm_rank(c);
    for (int step = 1; step < size; step++) { /* every rank starts with another neighbour */
        int to = (rank + step) % size, from = (rank - step + size) % size;
        send[n] = (comm_part){to, (char *)data + offset[rank], offset[rank + 1] - offset[rank]};
        receive[n++] = (comm_part){from, (char *)data + offset[from], offset[from + 1] - offset[from]};
    }
    return n;
}

void comm_all_gather_ranges(comm *c, const char *operation, void *data, const size_t *offset) {
    int size = comm_size(c);
    if (size == 1) return;
    comm_part *part = mem_alloc(2 * (size_t)size * sizeof *part, "message parts");
    int n = comm_ranges(c, data, offset, part, part + size);
    comm_wait(c, comm_exchange(c, operation, n, part, n, part + size));
    mem_free(part);
}

int comm_agree(comm *c, error *e) {
    int size = comm_size(c);
    if (size == 1) return e->code;
    int32_t mine = e->code, *all = mem_alloc((size_t)size * sizeof *all, "exit codes");
    comm_all_gather(c, "agree", all, &mine, sizeof mine);
    int first = 0;
    while (first < size && !all[first]) first++;
    mem_free(all);
    if (first == size) return 0;
    comm_broadcast(c, "agree", e, sizeof *e, first);
    return e->code;
}
