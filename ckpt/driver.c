#include "ckpt/driver.h"

#include "launch/memory.h"

typedef struct driver_file {
    H5FD_t hdf5; /* HDF5's own part comes first */
    outfile *to;
    haddr_t end_of_addresses;
} driver_file;

/* What the property list carries. */
typedef struct driver_info {
    outfile *to;
} driver_info;

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t access, haddr_t limit) {
    const driver_info *info = H5Pget_driver_info(access);
    (void)name, (void)flags, (void)limit; /* the file is there, and empty; H5Fcreate is the only caller */
    driver_file *f = mem_alloc(sizeof *f, "an HDF5 file");
    f->to = info->to;
    return &f->hdf5;
}

static herr_t driver_close(H5FD_t *file) {
    mem_free(file);
    return 0;
}

static herr_t driver_query(const H5FD_t *file, unsigned long *features) {
    (void)file;
    *features = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
                H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t driver_get_eoa(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return ((const driver_file *)file)->end_of_addresses;
}

static herr_t driver_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t address) {
    (void)type;
    ((driver_file *)file)->end_of_addresses = address;
    return 0;
}

static haddr_t driver_get_eof(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return outfile_size(((const driver_file *)file)->to);
}

/* HDF5 reads back metadata that left its cache. */
static herr_t driver_read(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes,
                          void *buffer) {
    (void)type, (void)transfer;
    outfile_read(((driver_file *)file)->to, address, buffer, bytes);
    return 0;
}

static herr_t driver_write(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes,
                           const void *buffer) {
    (void)type, (void)transfer;
    outfile_write(((driver_file *)file)->to, address, buffer, bytes);
    return 0;
}

/* The file ends where its addresses end. */
static herr_t driver_truncate(H5FD_t *file, hid_t transfer, hbool_t closing) {
    driver_file *f = (driver_file *)file;
    (void)transfer, (void)closing;
    if (outfile_size(f->to) != f->end_of_addresses) outfile_resize(f->to, f->end_of_addresses);
    return 0;
}

static const H5FD_class_t driver = {.name = "caracal",
                                    .maxaddr = ((haddr_t)1 << 62) - 1,
                                    .fc_degree = H5F_CLOSE_STRONG,
                                    .fapl_size = sizeof(driver_info),
                                    .open = driver_open,
                                    .close = driver_close,
                                    .query = driver_query,
                                    .get_eoa = driver_get_eoa,
                                    .set_eoa = driver_set_eoa,
                                    .get_eof = driver_get_eof,
                                    .read = driver_read,
                                    .write = driver_write,
                                    .truncate = driver_truncate,
                                    .fl_map = H5FD_FLMAP_DICHOTOMY};

herr_t driver_use(hid_t access, outfile *to) {
    driver_info info = {to};
    hid_t id = H5FDregister(&driver);
    if (id < 0) return -1;
    herr_t result = H5Pset_driver(access, id, &info);
    H5FDunregister(id); /* the list, and then the file, keep it alive */
    return result;
}
