#include "ckpt/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "launch/files.h"
#include "launch/memory.h"

/* What is written at a time: large enough for any disk, small enough that a slow one begins early. */
enum { BLOCK = 4 << 20, HINT = 1 << 20 };

struct outfile {
    char *path;
    int fd, direct; /* direct: past the page cache, or -1 */
    int failure;    /* atomic */
    char *image;    /* or NULL */
    size_t room;
    XXH128_hash_t digest; /* of the image */
    pthread_t thread;     /* where there is an image */
    pthread_mutex_t lock;
    pthread_cond_t more, idle;
    /* under the lock: */
    size_t end;  /* of the file so far; only its writer changes it */
    size_t sent; /* what the thread has written, or is writing: whole blocks */
    int sending;
    enum { OPEN, SEALED, LEFT } state; /* LEFT: the image was too small */
};

static void note(outfile *f) {
    int none = 0, cause = errno ? errno : EIO;
    __atomic_compare_exchange_n(&f->failure, &none, cause, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

int outfile_failure(const outfile *f) {
    return __atomic_load_n(&f->failure, __ATOMIC_ACQUIRE);
}

/* ---- to the disk ---- */

static void put(outfile *f, size_t at, const void *data, size_t bytes) {
    const char *from = data;
    const size_t first = at, all = bytes;
    while (bytes && !outfile_failure(f)) {
        ssize_t n = pwrite(f->fd, from, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return note(f);
        from += n;
        at += (size_t)n;
        bytes -= (size_t)n;
    }
    /* the disk begins with it now, and not only when the file is synced: a hint, which decides nothing */
    if (all >= HINT) sync_file_range(f->fd, (off_t)first, (off_t)all, SYNC_FILE_RANGE_WRITE);
}

static void cut(outfile *f, size_t bytes) {
    if (!outfile_failure(f) && ftruncate(f->fd, (off_t)bytes)) note(f);
}

/* A part of the image: whole pages past the page cache.  What such a write leaves, because the file system
 * wants other sizes or wrote less than it was told to, goes the ordinary way. */
static void put_image(outfile *f, size_t at, size_t bytes) {
    size_t pages = bytes / OUTFILE_PAGE * OUTFILE_PAGE;
    ssize_t n = 0;
    if (f->direct >= 0 && pages && !outfile_failure(f)) {
        do n = pwrite(f->direct, f->image + at, pages, (off_t)at);
        while (n < 0 && errno == EINTR);
        if (n < 0 && errno != EINVAL) return note(f);
        if (n < 0) n = 0;
    }
    put(f, at + (size_t)n, f->image + at + n, bytes - (size_t)n);
}

/* What the thread does. */
static void *write_behind(void *argument) {
    outfile *f = argument;
    pthread_mutex_lock(&f->lock);
    for (;;) {
        while (f->state == OPEN && f->end < f->sent + BLOCK) pthread_cond_wait(&f->more, &f->lock);
        if (f->end < f->sent + BLOCK) break;
        size_t at = f->sent;
        f->sent += BLOCK;
        f->sending = 1;
        pthread_mutex_unlock(&f->lock);
        put_image(f, at, BLOCK);
        pthread_mutex_lock(&f->lock);
        f->sending = 0;
        pthread_cond_signal(&f->idle);
    }
    pthread_mutex_unlock(&f->lock);
    put_image(f, f->sent, f->end - f->sent);
    if (f->state == LEFT || outfile_failure(f)) return NULL;
    if (fsync(f->fd)) note(f);
    f->digest = XXH3_128bits(f->image, f->end);
    return NULL;
}

static void stop_thread(outfile *f, int state) {
    pthread_mutex_lock(&f->lock);
    f->state = state;
    pthread_cond_signal(&f->more);
    pthread_mutex_unlock(&f->lock);
}

/* Goes on without memory. */
static void leave_image(outfile *f) {
    stop_thread(f, LEFT);
    pthread_join(f->thread, NULL);
    f->image = NULL;
}

/* ---- the file ---- */

static int open_paths(outfile *f, const char *path, int direct, error *e) {
    f->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (f->fd < 0) return path_error(e, path, "cannot be created");
    if (direct) f->direct = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (!direct || f->direct >= 0 || errno == EINVAL) return 0; /* EINVAL: not on this file system */
    path_error(e, path, "cannot be opened");
    close(f->fd);
    return e->code;
}

int outfile_create(outfile **out, const char *path, char *image, error *e) {
    REQUIRE((uintptr_t)image % OUTFILE_PAGE == 0);
    outfile *f = mem_alloc(sizeof *f, "a file to write");
    f->direct = -1;
    if (open_paths(f, path, image != NULL, e)) {
        mem_free(f);
        return e->code;
    }
    f->path = mem_string(path);
    f->image = image;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->more, NULL);
    pthread_cond_init(&f->idle, NULL);
    if (image && pthread_create(&f->thread, NULL, write_behind, f)) f->image = NULL;
    *out = f;
    return 0;
}

void outfile_allow(outfile *f, size_t room) {
    f->room = room;
}

/* Zeros from the end to `at`, where that lies behind it: what HDF5 leaves out is no leftover of the memory.
 */
static void fill(outfile *f, size_t at) {
    if (at > f->end) memset(f->image + f->end, 0, at - f->end);
}

/* Inside the image; pages that were sent before are sent again. */
static void correct(outfile *f, size_t at, const void *data, size_t bytes) {
    pthread_mutex_lock(&f->lock);
    while (f->sending && at < f->sent) pthread_cond_wait(&f->idle, &f->lock);
    memcpy(f->image + at, data, bytes);
    size_t from = at / OUTFILE_PAGE * OUTFILE_PAGE,
           to = (at + bytes + OUTFILE_PAGE - 1) / OUTFILE_PAGE * OUTFILE_PAGE;
    if (to > f->sent) to = f->sent;
    if (from < to) put(f, from, f->image + from, to - from);
    pthread_mutex_unlock(&f->lock);
}

void outfile_write(outfile *f, size_t at, const void *data, size_t bytes) {
    size_t end = at + bytes, inside = at < f->end ? (end < f->end ? end : f->end) - at : 0;
    if (f->image && end > f->room) leave_image(f);
    if (!f->image) {
        put(f, at, data, bytes);
        if (end > f->end) f->end = end;
        return;
    }
    if (inside) correct(f, at, data, inside);
    if (inside == bytes) return;
    fill(f, at);
    memcpy(f->image + at + inside, (const char *)data + inside, bytes - inside);
    pthread_mutex_lock(&f->lock);
    f->end = end;
    if (f->end >= f->sent + BLOCK) pthread_cond_signal(&f->more);
    pthread_mutex_unlock(&f->lock);
}

void outfile_read(outfile *f, size_t at, void *data, size_t bytes) {
    char *to = data;
    size_t there = at < f->end ? f->end - at : 0;
    if (there > bytes) there = bytes;
    memset(to + there, 0, bytes - there);
    if (f->image) {
        memcpy(to, f->image + at, there);
        return;
    }
    while (there) {
        ssize_t n = pread(f->fd, to, there, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) note(f);
        if (n <= 0) break;
        to += n;
        at += (size_t)n;
        there -= (size_t)n;
    }
    memset(to, 0, there); /* a hole at the end, or a disk that fails */
}

void outfile_resize(outfile *f, size_t bytes) {
    if (f->image && bytes > f->room) leave_image(f);
    if (!f->image) {
        cut(f, bytes);
        f->end = bytes;
        return;
    }
    fill(f, bytes);
    pthread_mutex_lock(&f->lock);
    while (f->sending && bytes < f->sent) pthread_cond_wait(&f->idle, &f->lock);
    if (bytes < f->sent) {
        cut(f, bytes);
        f->sent = bytes / BLOCK * BLOCK;
    }
    f->end = bytes;
    if (f->end >= f->sent + BLOCK) pthread_cond_signal(&f->more);
    pthread_mutex_unlock(&f->lock);
}

void outfile_seal(outfile *f) {
    if (f->image) stop_thread(f, SEALED);
}

size_t outfile_size(const outfile *f) {
    return f->end;
}

size_t outfile_held(const outfile *f) {
    return f->image ? f->end : 0;
}

void outfile_cancel(outfile *f) {
    errno = ECANCELED;
    note(f);
}

int outfile_finish(outfile *f, int64_t *bytes, XXH128_hash_t *digest, error *e) {
    outfile_seal(f);
    if (f->image) pthread_join(f->thread, NULL);
    else if (!outfile_failure(f) && fsync(f->fd)) note(f);
    if (f->direct >= 0 && close(f->direct)) note(f);
    if (close(f->fd)) note(f);
    int code = 0, failure = outfile_failure(f);
    if (failure) code = error_set(e, EXIT_IO, "%s: cannot be written: %s", f->path, strerror(failure));
    else if (!f->image) code = digest_file(f->path, bytes, digest, e);
    else {
        *bytes = (int64_t)f->end;
        *digest = f->digest;
    }
    pthread_cond_destroy(&f->idle);
    pthread_cond_destroy(&f->more);
    pthread_mutex_destroy(&f->lock);
    mem_free(f->path);
    mem_free(f);
    return code;
}
