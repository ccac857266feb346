/* The file driver through which HDF5 writes shards.  A disk that fails must not be seen by HDF5: it cannot
 * close a file whose metadata it could not write, and ends the process at exit for that.  So the first
 * failure is kept here, everything after it is swallowed, HDF5 closes its file as ever, and the shard looks
 * here for the truth.
 */
#ifndef CARACAL_CKPT_DRIVER_H
#define CARACAL_CKPT_DRIVER_H

#include <hdf5.h>

/* What went wrong first: errno, 0 while nothing did.  It must outlive the file. */
typedef struct driver_status {
    int failure;
} driver_status;

/* Sets the driver on a file access property list, for H5Fcreate.  Returns < 0 as HDF5 does. */
herr_t driver_use(hid_t access, driver_status *status);

#endif
