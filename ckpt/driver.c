#include "ckpt/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "launch/memory.h"

typedef struct driver_file {
    H5FD_t hdf5; /* HDF5's own part comes first */
    int fd;
    haddr_t end_of_addresses, end_of_file;
    haddr_t told; /* the disk was asked to write what lies before this */
    driver_status *status;
} driver_file;

enum { AHEAD = 4 << 20 }; /* the disk is told about so much at a time */

/* What the property list carries. */
typedef struct driver_info {
    driver_status *status;
} driver_info;

static void note(driver_status *s) {
    if (!s->failure) s->failure = errno ? errno : EIO;
}

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t access, haddr_t limit) {
    const driver_info *info = H5Pget_driver_info(access);
    (void)flags, (void)limit; /* H5Fcreate is the only caller */
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        note(info->status);
        return NULL;
    }
    driver_file *f = mem_alloc(sizeof *f, "an HDF5 file");
    f->fd = fd;
    f->status = info->status;
    return &f->hdf5;
}

static herr_t driver_close(H5FD_t *file) {
    driver_file *f = (driver_file *)file;
    if (close(f->fd)) note(f->status);
    mem_free(f);
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
    return ((const driver_file *)file)->end_of_file;
}

/* HDF5 reads back metadata that left its cache; past the end of the file there are zeros. */
static herr_t driver_read(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes,
                          void *buffer) {
    driver_file *f = (driver_file *)file;
    char *to = buffer;
    (void)type, (void)transfer;
    while (bytes) {
        ssize_t n = pread(f->fd, to, bytes, (off_t)address);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) note(f->status);
        if (n <= 0) break;
        to += n;
        address += (haddr_t)n;
        bytes -= (size_t)n;
    }
    memset(to, 0, bytes);
    return 0;
}

/* Has the disk begin with what is there, so that it works while the next chunks are compressed, and not only
 * when the file is synced.  A hint: whether it helps, or fails, decides nothing. */
static void write_behind(driver_file *f) {
    if (f->end_of_file < f->told + AHEAD) return;
    haddr_t end = f->end_of_file / AHEAD * AHEAD;
    sync_file_range(f->fd, (off_t)f->told, (off_t)(end - f->told), SYNC_FILE_RANGE_WRITE);
    f->told = end;
}

static herr_t driver_write(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes,
                           const void *buffer) {
    driver_file *f = (driver_file *)file;
    const char *from = buffer;
    (void)type, (void)transfer;
    if (address + bytes > f->end_of_file) f->end_of_file = address + bytes;
    while (bytes && !f->status->failure) {
        ssize_t n = pwrite(f->fd, from, bytes, (off_t)address);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            note(f->status);
            break;
        }
        from += n;
        address += (haddr_t)n;
        bytes -= (size_t)n;
    }
    if (!f->status->failure) write_behind(f);
    return 0;
}

/* The file ends where its addresses end. */
static herr_t driver_truncate(H5FD_t *file, hid_t transfer, hbool_t closing) {
    driver_file *f = (driver_file *)file;
    (void)transfer, (void)closing;
    if (f->end_of_file == f->end_of_addresses) return 0;
    if (!f->status->failure && ftruncate(f->fd, (off_t)f->end_of_addresses)) note(f->status);
    f->end_of_file = f->end_of_addresses;
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

herr_t driver_use(hid_t access, driver_status *status) {
    driver_info info = {status};
    hid_t id = H5FDregister(&driver);
    if (id < 0) return -1;
    herr_t result = H5Pset_driver(access, id, &info);
    H5FDunregister(id); /* the list, and then the file, keep it alive */
    return result;
}
