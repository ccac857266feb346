/* The file driver through which HDF5 writes shards.  A disk that fails must not be seen by HDF5: it cannot
 * close a file whose metadata it could not write, and ends the process at exit for that.  So the outfile
 * keeps the failure, everything after it is swallowed, HDF5 closes its file as ever, and the shard asks the
 * outfile for the truth.
 */
#ifndef CARACAL_CKPT_DRIVER_H
#define CARACAL_CKPT_DRIVER_H

#include <hdf5.h>

#include "ckpt/outfile.h"

/* Sets the driver on a file access property list, for one H5Fcreate that writes to the new file `to`, which
 * must outlive HDF5's file.  Returns < 0 as HDF5 does. */
herr_t driver_use(hid_t access, outfile *to);

#endif
