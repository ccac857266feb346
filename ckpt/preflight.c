#include <string.h>
#include <sys/statvfs.h>

#include "ckpt/commit.h"
#include "ckpt/layout.h"
#include "ckpt/manifest.h"
#include "launch/files.h"
#include "launch/memory.h"

/* Bytes of the newest complete checkpoint's files, 0 if there is none. */
static int64_t newest_bytes(const char *directory, error *e) {
    int64_t bytes = 0;
    for (int64_t step = INT64_MAX; !bytes;) {
        error why = {0};
        manifest m;
        if (step_below(directory, "", step, &step, e) || step < 0) break;
        char *path = step_path(directory, step, "");
        if (!manifest_load(&m, path, &why)) {
            for (int64_t i = 0; i < m.n_files; i++) bytes += m.file[i].bytes;
            manifest_free(&m);
        }
        mem_free(path);
    }
    return bytes;
}

int ckpt_preflight(const char *directory, const ckpt_tensor *tensors, int64_t n, error *e) {
    e->code = 0;
    if (probe_directory(directory, e) || commit_clean(directory, 1, e)) return e->code;
    double each = 0, known = (double)newest_bytes(directory, e);
    if (e->code) return e->code;
    /* HDF5 and the manifest spend about 1 KiB on a tensor, whatever its size */
    for (int64_t i = 0; i < n; i++) each += (double)ckpt_bytes(&tensors[i]) + 1024;
    /* later ones compress less: moments fill up */
    if (known > 0 && 1.1 * known < each) each = 1.1 * known;
    int more = known > 0 ? 1 : 2;
    struct statvfs s;
    if (statvfs(directory, &s)) return path_error(e, directory, "its free space cannot be read");
    double room = (double)s.f_bavail * (double)s.f_frsize, needed = more * each, MiB = 1 << 20;
    if (s.f_blocks == 0 || needed <= room) return 0; /* 0: a file system that does not tell */
    return error_set(e, EXIT_IO,
                     "%s: too little room for checkpoints: %d more of up to %.1f MiB need %.1f MiB, %.1f MiB "
                     "are free: %.1f MiB are missing; make room, or choose another run.dir",
                     directory, more, each / MiB, needed / MiB, room / MiB, (needed - room) / MiB);
}
