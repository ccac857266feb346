/* Damages a checkpoint in every way that a disk, a copy or a person may, and asks whether it is seen.
 *
 *   damage DIRECTORY OLD NEW FLIPS PAGES SEED
 *
 * DIRECTORY holds the checkpoints of steps OLD and NEW; NEW is damaged in place and made whole again each
 * time. FLIPS random bits of all its files are changed, one at a time; every PAGES-th page of 4 KiB is
 * zeroed, and files end at its start; they are longer, missing, swapped, of the other step.  Each time:
 *   - opening NEW fails, before anything of it is used, and the message names the file and, where the byte is
 *     a chunk's, the dataset and the chunk;
 *   - the newest that verifies is OLD, and stderr says that NEW is skipped, why, and what is used instead;
 *   - `caracal verify` fails and names the same.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckpt/ckpt.h"
#include "ckpt/layout.h"
#include "launch/memory.h"
#include "launch/random.h"

enum { FILES = 8, PAGE = 4096 };

typedef struct chunk {
    char tensor[256];
    int64_t index, chunks, from, to; /* bytes of its file */
} chunk;

typedef struct file {
    char name[256], *path, *data;
    int64_t bytes, chunks;
    chunk *chunk;
} file;

typedef struct trial {
    const char *directory;
    char new_path[4096];
    int old_step, new_step, files;
    file file[FILES];
    comm *world;
    int captured, kept[2];
    char said[1 << 16];
    int64_t cases, missed, silent, wrong;
} trial;

/* What is said of damage in a bit of a frame on which no value depends: zstd has some. */
static const char no_value[] = "every dataset reads as it was written";

/* ---- files ---- */

static char *path_in(const char *directory, int step, const char *name) {
    char path[4200];
    snprintf(path, sizeof path, "%s/step-%08d/%s", directory, step, name);
    return mem_string(path);
}

static char *slurp(const char *path, int64_t *bytes) {
    FILE *in = fopen(path, "rb");
    if (!in) FAULT(EXIT_IO, "%s: %s", path, strerror(errno));
    fseek(in, 0, SEEK_END);
    *bytes = ftell(in);
    rewind(in);
    char *data = mem_alloc((size_t)*bytes + 1, "a file");
    if ((int64_t)fread(data, 1, (size_t)*bytes, in) != *bytes) FAULT(EXIT_IO, "%s: cannot be read", path);
    fclose(in);
    return data;
}

static void spill(const char *path, const char *data, int64_t bytes) {
    FILE *out = fopen(path, "wb");
    if (!out || (int64_t)fwrite(data, 1, (size_t)bytes, out) != bytes || fclose(out))
        FAULT(EXIT_IO, "%s: %s", path, strerror(errno));
}

static void patch(const file *f, int64_t at, const char *data, int64_t bytes) {
    int fd = open(f->path, O_WRONLY);
    if (fd < 0 || pwrite(fd, data, (size_t)bytes, at) != bytes)
        FAULT(EXIT_IO, "%s: %s", f->path, strerror(errno));
    close(fd);
}

/* Where the chunks lie, as HDF5 tells. */
static void find_chunks(ckpt *k, file *f) {
    const ckpt_tensor *tensor;
    int64_t n = ckpt_tensors(k, &tensor);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t shard = H5Fopen(f->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    for (int64_t i = 0; i < n; i++) {
        hid_t set = H5Dopen2(shard, tensor[i].name, H5P_DEFAULT);
        if (set < 0) continue; /* in another file */
        chunk_grid g = chunk_grid_of(&tensor[i]);
        f->chunk = mem_grow(f->chunk, (size_t)(f->chunks + g.chunks) * sizeof *f->chunk, "chunks");
        for (int64_t c = 0; c < g.chunks; c++) {
            chunk_span span = chunk_at(&tensor[i], &g, c);
            hsize_t corner[4], size;
            haddr_t address;
            unsigned mask;
            for (int d = 0; d < 4; d++) corner[d] = (hsize_t)span.corner[d];
            if (H5Dget_chunk_info_by_coord(set, corner, &mask, &address, &size) < 0)
                FAULT(EXIT_CORRUPT, "no chunk");
            chunk *at = &f->chunk[f->chunks++];
            *at = (chunk){"", c, g.chunks, (int64_t)address, (int64_t)(address + size)};
            snprintf(at->tensor, sizeof at->tensor, "%s", tensor[i].name);
        }
        H5Dclose(set);
    }
    H5Fclose(shard);
}

static const chunk *chunk_of(const file *f, int64_t at) {
    for (int64_t i = 0; i < f->chunks; i++)
        if (at >= f->chunk[i].from && at < f->chunk[i].to) return &f->chunk[i];
    return NULL;
}

/* ---- what is said ---- */

static void divert(trial *t) {
    fflush(NULL);
    if (ftruncate(t->captured, 0)) abort();
    lseek(t->captured, 0, SEEK_SET);
    for (int i = 0; i < 2; i++) {
        t->kept[i] = dup(i + 1);
        dup2(t->captured, i + 1);
    }
}

static void restore(trial *t) {
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        dup2(t->kept[i], i + 1);
        close(t->kept[i]);
    }
    ssize_t n = pread(t->captured, t->said, sizeof t->said - 1, 0);
    t->said[n > 0 ? n : 0] = 0;
}

static void wrong(trial *t, const char *what, const char *name, int64_t at, const char *problem,
                  const char *text) {
    if (++t->wrong > 20) return;
    printf("%s of %s at %lld: %s: %s\n", what, name, (long long)at, problem, text);
}

/* The damage is done: is it seen?  c: the chunk that it hits, or NULL. */
static void look(trial *t, const char *what, const char *name, int64_t at, const chunk *c) {
    error e = {0};
    ckpt *k = NULL;
    char instead[64], *argv[] = {"verify", t->new_path, NULL};
    t->cases++;
    if (!ckpt_open(t->world, t->new_path, &k, &e)) {
        t->missed++;
        wrong(t, what, name, at, "not seen", "");
        ckpt_close(k);
        return;
    }
    char where[400] = "";
    t->silent += c && strstr(e.text, no_value);
    if (c && !strstr(e.text, no_value))
        snprintf(where, sizeof where, "dataset /%s, chunk %lld of %lld", c->tensor, (long long)c->index,
                 (long long)c->chunks);
    if ((e.code != EXIT_CORRUPT && e.code != EXIT_IO) || !strstr(e.text, name) || !strstr(e.text, where))
        wrong(t, what, name, at, "the message when it is opened", e.text);

    divert(t);
    e = (error){0};
    ckpt_newest(t->world, t->directory, &k, &e);
    restore(t);
    snprintf(instead, sizeof instead, "step-%08d is used instead", t->old_step);
    if (!k || ckpt_step(k) != t->old_step) wrong(t, what, name, at, "the older one is not used", e.text);
    else if (!strstr(t->said, "checkpoint skipped") || !strstr(t->said, name) || !strstr(t->said, where) ||
             !strstr(t->said, instead))
        wrong(t, what, name, at, "falling back", t->said);
    ckpt_close(k);

    divert(t);
    int code = ckpt_verify_command(2, argv);
    restore(t);
    if ((code != EXIT_CORRUPT && code != EXIT_IO) || !strstr(t->said, name) || !strstr(t->said, where))
        wrong(t, what, name, at, "caracal verify", t->said);
}

/* ---- damage ---- */

static void flip_bits(trial *t, int64_t flips, uint64_t seed) {
    int64_t total = 0, hits = 0;
    for (int i = 0; i < t->files; i++) total += t->file[i].bytes;
    for (int64_t n = 0; n < flips; n++) {
        int64_t at = (int64_t)(random_bits(seed, 0, (uint64_t)n) % (uint64_t)total);
        const file *f = t->file;
        for (; at >= f->bytes; f++) at -= f->bytes;
        char bad = (char)(f->data[at] ^ 1 << (random_bits(seed, 1, (uint64_t)n) % 8));
        const chunk *c = chunk_of(f, at);
        hits += c != NULL;
        patch(f, at, &bad, 1);
        look(t, "flip", f->name, at, c);
        patch(f, at, &f->data[at], 1);
    }
    printf("%lld bits flipped, %lld of them in chunks\n", (long long)flips, (long long)hits);
}

static void pages(trial *t, int64_t stride) {
    static const char zeros[PAGE];
    for (const file *f = t->file; f < t->file + t->files; f++)
        for (int64_t at = 0; at < f->bytes; at += stride * PAGE) {
            int64_t n = f->bytes - at < PAGE ? f->bytes - at : PAGE;
            spill(f->path, f->data, at);
            look(t, "cut", f->name, at, NULL);
            spill(f->path, f->data, f->bytes);
            if (!memcmp(f->data + at, zeros, (size_t)n)) continue;
            patch(f, at, zeros, n);
            look(t, "zero page", f->name, at, NULL);
            patch(f, at, f->data + at, n);
        }
}

static void whole_files(trial *t) {
    for (const file *f = t->file; f < t->file + t->files; f++) {
        char *longer = mem_alloc((size_t)f->bytes + PAGE, "a longer file"); /* zeros at its end */
        memcpy(longer, f->data, (size_t)f->bytes);
        static const int64_t more[] = {-1, 1, PAGE};
        for (int i = 0; i < 3; i++) {
            spill(f->path, longer, f->bytes + more[i]);
            look(t, "length", f->name, more[i], NULL);
        }
        mem_free(longer);
        unlink(f->path);
        look(t, "loss", f->name, 0, NULL);
        mkdir(f->path, 0777);
        look(t, "a directory in place", f->name, 0, NULL);
        rmdir(f->path);
        if (!symlink("/dev/null", f->path)) look(t, "/dev/null in place", f->name, 0, NULL);
        unlink(f->path);
        int64_t bytes;
        char *old_path = path_in(t->directory, t->old_step, f->name), *old = slurp(old_path, &bytes);
        spill(f->path, old, bytes);
        /* a manifest of another step is whole: the shards are not its shards */
        look(t, "the other step's", strstr(f->name, "shard") ? f->name : "shard-00000.h5", 0, NULL);
        mem_free(old);
        mem_free(old_path);
        const file *other = f + 1 < t->file + t->files ? f + 1 : t->file;
        spill(f->path, other->data, other->bytes);
        spill(other->path, f->data, f->bytes);
        look(t, "swap", strstr(f->name, "shard") && strstr(other->name, "shard") ? f->name : "manifest.json",
             0, NULL);
        spill(other->path, other->data, other->bytes);
        spill(f->path, f->data, f->bytes);
    }
}

int main(int argc, char **argv) {
    error e = {0};
    ckpt *k = NULL;
    if (argc != 7) FAULT(EXIT_USAGE, "usage: damage DIRECTORY OLD NEW FLIPS PAGES SEED");
    trial *t = mem_alloc(sizeof *t, "a trial");
    t->directory = argv[1];
    t->old_step = atoi(argv[2]);
    t->new_step = atoi(argv[3]);
    snprintf(t->new_path, sizeof t->new_path, "%s/step-%08d", t->directory, t->new_step);
    t->captured = memfd_create("said", 0);
    if (comm_open(&t->world, 60, &e) || ckpt_open(t->world, t->new_path, &k, &e)) FAULT(e.code, "%s", e.text);
    DIR *d = opendir(t->new_path);
    for (struct dirent *entry; d && (entry = readdir(d));) {
        if (entry->d_name[0] == '.') continue;
        file *f = &t->file[t->files++];
        snprintf(f->name, sizeof f->name, "%s", entry->d_name);
        f->path = path_in(t->directory, t->new_step, f->name);
        f->data = slurp(f->path, &f->bytes);
        if (strstr(f->name, ".h5")) find_chunks(k, f);
        printf("%s: %lld bytes, %lld chunks\n", f->name, (long long)f->bytes, (long long)f->chunks);
    }
    if (d) closedir(d);
    ckpt_close(k);

    flip_bits(t, atoll(argv[4]), (uint64_t)atoll(argv[6]));
    pages(t, atoll(argv[5]));
    whole_files(t);
    k = NULL;
    if (ckpt_open(t->world, t->new_path, &k, &e)) FAULT(e.code, "whole again, and yet: %s", e.text);
    ckpt_close(k);
    printf("%lld bits of frames change no value: the file is named\n", (long long)t->silent);
    printf("%lld kinds of damage: %lld not seen, %lld answers wrong\n", (long long)t->cases,
           (long long)t->missed, (long long)t->wrong);
    return t->wrong != 0;
}
