/* What a backend with memory of its own may bring to send that memory to other ranks without the host
 * (model/transport.h uses it).  A wire belongs to one group of ranks; all of them start the same exchanges in
 * the same order. */
#ifndef CARACAL_KERNELS_WIRE_H
#define CARACAL_KERNELS_WIRE_H

#include "launch/comm.h"

enum { WIRE_ID = 128, WIRE_NAME = 64, WIRE_SLOTS = COMM_REQUESTS };

struct kernel_context;
typedef struct wire wire;

typedef struct wires {
    /* Finds the library and says its name and version; EXIT_USAGE where there is none. */
    int (*load)(struct kernel_context *, char name[WIRE_NAME], error *e);
    /* A name of this rank's device that no other device has. */
    void (*device)(struct kernel_context *, char name[WIRE_NAME]);
    /* What one rank of a group makes and all of them open the wire with; seconds: how long to wait for the
     * others. */
    int (*identify)(struct kernel_context *, char id[WIRE_ID], error *e);
    int (*open)(struct kernel_context *, wire **out, const char id[WIRE_ID], int ranks, int rank,
                double seconds, error *e);
    void (*close)(wire *w);
    /* Starts exchange `slot` on a stream of its own, behind everything that the backend was asked before;
     * peers may be the caller itself.  What is asked of the backend later runs beside it. */
    int (*start)(wire *w, int slot, int sends, const comm_part *send, int receives, const comm_part *receive,
                 double seconds, error *e);
    /* 1: exchange `slot` is over; 0: not yet; -1: it failed, *e says how. */
    int (*done)(wire *w, int slot, error *e);
} wires;

#endif
