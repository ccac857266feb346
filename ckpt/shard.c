#include "ckpt/shard.h"

#include <hdf5.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/chunk.h"
#include "ckpt/driver.h"
#include "ckpt/filter.h"
#include "launch/memory.h"

struct shard {
    char *path;
    hid_t file, dataset; /* dataset: the one written or read now, or -1 */
    char *frame;         /* read buffer */
    size_t capacity;
    outfile *to; /* of a file that is written */
    error late;  /* what went wrong while it was sealed */
};

/* ---- HDF5's errors in our words ---- */

static herr_t innermost(unsigned n, const H5E_error2_t *entry, void *text) {
    if (n == 0) snprintf(text, 512, "%s", entry->desc);
    return 0;
}

/* Turns the failure of the HDF5 call just made (the next call forgets it) into ours.  HDF5 describes a failed
 * system call at length, with clock and pointers; errno's text in it is what matters. */
static int hdf5_error(error *e, int code, const char *where, const char *what) {
    char text[512] = "unknown error";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, text);
    static const char mark[] = "error message = '";
    char *message = strstr(text, mark);
    if (message) {
        message += sizeof mark - 1;
        message[strcspn(message, "'")] = 0;
        return error_set(e, EXIT_IO, "%s: %s: %s", where, what, message);
    }
    text[strcspn(text, "\n")] = 0;
    return error_set(e, code, "%s: %s: HDF5: %s", where, what, text);
}

/* HDF5 keeps its messages for hdf5_error, and knows this filter, whatever HDF5_PLUGIN_PATH offers. */
static int ready(error *e) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    if (H5Zregister(&filter_zstd) >= 0) return 0;
    return hdf5_error(e, EXIT_IO, "HDF5", "refuses the zstd filter");
}

static shard *shard_new(const char *path) {
    shard *s = mem_alloc(sizeof *s, "a shard");
    s->path = mem_string(path);
    s->file = s->dataset = -1;
    return s;
}

static hid_t access_list(void) {
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_file_locking(list, 0, 1); /* the directory has one owner, and not every file system has locks */
    H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);
    return list;
}

static hid_t element_type(int type) {
    return type == CKPT_F32 ? H5T_IEEE_F32LE : type == CKPT_F64 ? H5T_IEEE_F64LE : H5T_STD_I64LE;
}

static void drop_dataset(shard *s) {
    if (s->dataset >= 0) H5Dclose(s->dataset);
    s->dataset = -1;
}

static void shard_free(shard *s) {
    mem_free(s->frame);
    mem_free(s->path);
    mem_free(s);
}

void shard_close(shard *s) {
    if (!s) return;
    drop_dataset(s);
    if (s->to) outfile_cancel(s->to);
    if (s->file >= 0) H5Fclose(s->file);
    if (s->to) outfile_finish(s->to, NULL, NULL, &s->late);
    shard_free(s);
}

/* ---- writing ---- */

/* After any HDF5 call: a disk's failure shows in the outfile, HDF5's own in what the call returned. */
static int check(const shard *s, int ok, error *e) {
    int failure = outfile_failure(s->to);
    if (failure) return error_set(e, EXIT_IO, "%s: cannot be written: %s", s->path, strerror(failure));
    return ok ? 0 : hdf5_error(e, EXIT_IO, s->path, "cannot be written");
}

int shard_create(shard **out, const char *path, char *image, error *e) {
    outfile *to;
    if (ready(e) || outfile_create(&to, path, image, e)) return e->code;
    shard *s = shard_new(path);
    s->to = to;
    hid_t access = access_list(), create = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(create, 0); /* of the root group */
    int code = check(s, driver_use(access, to) >= 0, e);
    if (!code) {
        s->file = H5Fcreate(path, H5F_ACC_TRUNC, create, access);
        code = check(s, s->file >= 0, e);
    }
    H5Pclose(create);
    H5Pclose(access);
    if (code) shard_close(s);
    else *out = s;
    return code;
}

void shard_allow(shard *s, size_t room) {
    outfile_allow(s->to, room);
}

/* The groups above a dataset, made by hand: those that HDF5 makes on the way carry times. */
static int make_groups(shard *s, const char *name, error *e) {
    hid_t create = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(create, 0);
    char *prefix = mem_string(name);
    int code = 0;
    for (char *slash = strchr(prefix, '/'); slash && !code; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        htri_t there = H5Lexists(s->file, prefix, H5P_DEFAULT);
        hid_t group = there ? -1 : H5Gcreate2(s->file, prefix, H5P_DEFAULT, create, H5P_DEFAULT);
        code = check(s, there > 0 || group >= 0, e);
        if (group >= 0) H5Gclose(group);
        *slash = '/';
    }
    mem_free(prefix);
    H5Pclose(create);
    return code;
}

/* Closes the dataset under way; HDF5 may write then. */
static int close_dataset(shard *s, error *e) {
    herr_t closed = s->dataset >= 0 ? H5Dclose(s->dataset) : 0;
    s->dataset = -1;
    return check(s, closed >= 0, e);
}

int shard_add(shard *s, const ckpt_tensor *t, const chunk_grid *g, error *e) {
    hsize_t shape[4], chunk[4];
    for (int i = 0; i < t->rank; i++) {
        shape[i] = (hsize_t)t->shape[i];
        chunk[i] = (hsize_t)g->chunk[i];
    }
    if (close_dataset(s, e) || make_groups(s, t->name, e)) return e->code;
    const unsigned level = (unsigned)FILTER_ZSTD_LEVEL;
    hid_t space = H5Screate_simple(t->rank, shape, NULL), create = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(create, t->rank, chunk);
    H5Pset_shuffle(create);
    H5Pset_filter(create, FILTER_ZSTD, H5Z_FLAG_MANDATORY, 1, &level);
    H5Pset_fill_time(create, H5D_FILL_TIME_NEVER); /* every chunk is written */
    H5Pset_obj_track_times(create, 0);
    s->dataset = H5Dcreate2(s->file, t->name, element_type(t->type), space, H5P_DEFAULT, create, H5P_DEFAULT);
    int code = check(s, s->dataset >= 0, e);
    H5Pclose(create);
    H5Sclose(space);
    return code;
}

static void corner_of(const chunk_span *chunk, hsize_t corner[4]) {
    for (int i = 0; i < 4; i++) corner[i] = (hsize_t)chunk->corner[i];
}

int shard_put(shard *s, const chunk_span *chunk, const void *frame, size_t bytes, error *e) {
    hsize_t corner[4];
    corner_of(chunk, corner);
    return check(s, H5Dwrite_chunk(s->dataset, H5P_DEFAULT, 0, corner, bytes, frame) >= 0, e);
}

size_t shard_seal(shard *s) {
    int code = close_dataset(s, &s->late);
    herr_t closed = H5Fclose(s->file);
    s->file = -1;
    if (!code) check(s, closed >= 0, &s->late);
    outfile_seal(s->to);
    return outfile_held(s->to);
}

int shard_finish(shard *s, int64_t *bytes, XXH128_hash_t *digest, error *e) {
    if (s->file >= 0) shard_seal(s);
    int code = outfile_finish(s->to, bytes, digest, e);
    if (!code && s->late.code) *e = s->late, code = e->code;
    shard_free(s);
    return code;
}

/* ---- reading ---- */

int shard_open(shard **out, const char *path, error *e) {
    if (ready(e)) return e->code;
    shard *s = shard_new(path);
    hid_t access = access_list();
    s->file = H5Fopen(path, H5F_ACC_RDONLY, access);
    int code = s->file < 0 ? hdf5_error(e, EXIT_CORRUPT, path, "cannot be opened") : 0;
    H5Pclose(access);
    if (code) shard_close(s);
    else *out = s;
    return code;
}

/* Is the selected dataset stored as this program stores t? */
static int as_expected(hid_t dataset, const ckpt_tensor *t, const chunk_grid *g) {
    hid_t space = H5Dget_space(dataset), type = H5Dget_type(dataset), create = H5Dget_create_plist(dataset);
    hsize_t shape[4] = {0}, chunk[4] = {0};
    int ok = space >= 0 && type >= 0 && create >= 0 && H5Sget_simple_extent_ndims(space) == t->rank &&
             H5Sget_simple_extent_dims(space, shape, NULL) == t->rank &&
             H5Tequal(type, element_type(t->type)) > 0 && H5Pget_layout(create) == H5D_CHUNKED &&
             H5Pget_chunk(create, 4, chunk) == t->rank && H5Pget_nfilters(create) == 2;
    for (int i = 0; ok && i < t->rank; i++)
        ok = shape[i] == (hsize_t)t->shape[i] && chunk[i] == (hsize_t)g->chunk[i];
    static const H5Z_filter_t filters[2] = {H5Z_FILTER_SHUFFLE, FILTER_ZSTD};
    for (unsigned i = 0; ok && i < 2; i++) {
        size_t values = 0;
        ok = H5Pget_filter2(create, i, NULL, &values, NULL, 0, NULL, NULL) == filters[i];
    }
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (create >= 0) H5Pclose(create);
    return ok;
}

int shard_select(shard *s, const ckpt_tensor *t, const chunk_grid *g, error *e) {
    drop_dataset(s);
    s->dataset = H5Dopen2(s->file, t->name, H5P_DEFAULT);
    if (s->dataset >= 0 && as_expected(s->dataset, t, g)) return 0;
    if (s->dataset < 0) hdf5_error(e, EXIT_CORRUPT, "dataset", "cannot be opened");
    else error_set(e, EXIT_CORRUPT, "its type, shape, chunks or filters are not those of the manifest");
    return error_within(e, "%s: /%s", s->path, t->name);
}

/* Chunk bytes as stored, and where: *bytes 0 and *address -1 until known. */
static int read_frame(shard *s, const chunk_span *chunk, size_t *bytes, int64_t *address, error *e) {
    hsize_t corner[4], size = 0;
    haddr_t where = HADDR_UNDEF;
    unsigned skipped = 0;
    uint32_t mask = 0;
    corner_of(chunk, corner);
    if (H5Dget_chunk_info_by_coord(s->dataset, corner, &skipped, &where, &size) < 0)
        return hdf5_error(e, EXIT_CORRUPT, "chunk index", "cannot be read");
    if (where == HADDR_UNDEF) return error_set(e, EXIT_CORRUPT, "is not there");
    *bytes = (size_t)size;
    *address = (int64_t)where;
    if (skipped || size > chunk_frame_limit(1, CHUNK_BYTES))
        return error_set(e, EXIT_CORRUPT, "is not compressed, or too large");
    if (size > s->capacity) {
        mem_free(s->frame);
        s->frame = mem_alloc((size_t)size, "a compressed chunk");
        s->capacity = (size_t)size;
    }
    if (H5Dread_chunk(s->dataset, H5P_DEFAULT, corner, &mask, s->frame) < 0)
        return hdf5_error(e, EXIT_CORRUPT, "data", "cannot be read");
    return 0;
}

/* Says which chunk an error is about. */
static int chunk_error(const shard *s, const ckpt_tensor *t, const chunk_grid *g, int64_t index, size_t bytes,
                       int64_t address, error *e) {
    chunk_span chunk = chunk_at(t, g, index);
    return error_within(e,
                        "%s: dataset /%s, chunk %lld of %lld (elements %lld..%lld; %zu bytes at byte %lld)",
                        s->path, t->name, (long long)index, (long long)g->chunks, (long long)chunk.offset,
                        (long long)(chunk.offset + chunk.count - 1), bytes, (long long)address);
}

int shard_frame(shard *s, const ckpt_tensor *t, const chunk_grid *g, int64_t index, const void **frame,
                size_t *bytes, error *e) {
    chunk_span chunk = chunk_at(t, g, index);
    int64_t address = -1;
    *bytes = 0;
    if (read_frame(s, &chunk, bytes, &address, e)) return chunk_error(s, t, g, index, *bytes, address, e);
    *frame = s->frame;
    return 0;
}

int shard_read(shard *s, chunk_codec *codec, const ckpt_tensor *t, const chunk_grid *g, int64_t index,
               const void **values, error *e) {
    chunk_span chunk = chunk_at(t, g, index);
    size_t bytes = 0;
    int64_t address = -1;
    if (!read_frame(s, &chunk, &bytes, &address, e) &&
        !chunk_decode(codec, ckpt_type_size(t->type), s->frame, bytes, (size_t)g->full, values, e))
        return 0;
    return chunk_error(s, t, g, index, bytes, address, e);
}
