/* Power losses at every call of a logged run, and what is found afterwards.
 *
 *   powerloss LOG RUN BASE SCRATCH SAMPLES SEED KEEP
 *
 * LOG: of tests/shim_fs.c, from the run's first call on; RUN: the run's directory below SHIM_UNDER; BASE: an
 * undisturbed run that kept every checkpoint.  For every number of calls made and each model of a file system
 * (tests/power_states.h) SAMPLES states are drawn, and in each:
 *   - every directory with a checkpoint's name is BASE's checkpoint, byte for byte: never a mix, nothing
 * torn;
 *   - the loader finds a checkpoint without complaint, one no older than the newest whose save had ended (by
 *     what the run did next), and finds none only while none had ended;
 *   - metrics.jsonl and eval.jsonl have all lines up to its step.
 * KEEP of the states are written to SCRATCH/0, 1, ... for a run to go on from. */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "ckpt/ckpt.h"
#include "launch/memory.h"
#include "tests/power_states.h"

enum { STEPS = 64, FILES = 8 };

typedef struct file {
    char name[40];
    char *data;
    size_t size;
} file;

typedef struct audit {
    log_entry *log;
    int64_t calls;
    const char *run, *scratch;
    struct {
        file file[FILES];
        int files;
    } base[STEPS];          /* by step */
    file metrics, eval;     /* of the undisturbed run */
    int64_t least[1 << 16]; /* [calls + 1] the newest step whose save had ended */
    power_state state;
    comm *world;
    XXH128_hash_t *seen; /* states that were looked at */
    int64_t n_seen, states, failures, old, none;
} audit;

static file read_whole(const char *path, const char *name) {
    char whole[4096];
    file f = {0};
    snprintf(whole, sizeof whole, "%s/%s", path, name);
    snprintf(f.name, sizeof f.name, "%s", name);
    FILE *in = fopen(whole, "rb");
    if (!in) FAULT(EXIT_IO, "%s: %s", whole, strerror(errno));
    fseek(in, 0, SEEK_END);
    f.size = (size_t)ftell(in);
    rewind(in);
    f.data = mem_alloc(f.size + 1, "a file");
    if (fread(f.data, 1, f.size, in) != f.size) FAULT(EXIT_IO, "%s: cannot be read", whole);
    fclose(in);
    return f;
}

static void read_base(audit *a, const char *base) {
    char path[4096];
    for (int step = 1; step < STEPS; step++) {
        snprintf(path, sizeof path, "%s/checkpoints/step-%08d", base, step);
        DIR *d = opendir(path);
        for (struct dirent *e; d && (e = readdir(d));)
            if (e->d_name[0] != '.') a->base[step].file[a->base[step].files++] = read_whole(path, e->d_name);
        if (d) closedir(d);
    }
    a->metrics = read_whole(base, "metrics.jsonl");
    a->eval = read_whole(base, "eval.jsonl");
}

/* step-00000012 is 12; anything else, step-00000012.tmp too, is 0. */
static int step_of(const char *name) {
    int step = 0, end = 0;
    return sscanf(name, "step-%8d%n", &step, &end) == 1 && end == 13 && !name[end] ? step : 0;
}

/* A save has ended, as far as the run knows, when the run begins another or removes an older one. */
static void find_ends(audit *a) {
    int there[STEPS] = {0}, ended[STEPS] = {0};
    for (int64_t i = 0; i < a->calls; i++) {
        const shim_record *r = &a->log[i].r;
        int moved = r->operation == SHIM_RENAME ? step_of(r->name) : 0;
        int made = r->operation == SHIM_RENAME ? step_of(r->new_name) : 0;
        if (moved) there[moved] = ended[moved] = 0;
        if (moved || (r->operation == SHIM_MKDIR && !strncmp(r->name, "step-", 5)))
            for (int s = 0; s < STEPS; s++) ended[s] |= there[s];
        if (made) there[made] = 1;
        for (int s = 0; s < STEPS; s++)
            if (ended[s]) a->least[i + 1] = s;
        if (!ended[a->least[i + 1]]) a->least[i + 1] = 0;
    }
}

static void read_log(audit *a, const char *path) {
    file f = read_whole(".", path);
    for (size_t at = 0; at < f.size;) {
        if (a->calls % 4096 == 0)
            a->log = mem_grow(a->log, (size_t)(a->calls + 4097) * sizeof *a->log, "the log");
        log_entry *e = &a->log[a->calls++];
        memcpy(&e->r, f.data + at, sizeof e->r);
        at += sizeof e->r;
        e->data = f.data + at;
        if (e->r.operation == SHIM_WRITE) at += (size_t)e->r.bytes;
    }
    if (a->calls >= 1 << 16) FAULT(EXIT_USAGE, "%s: too long", path);
    a->log[a->calls] = (log_entry){.r = {.operation = SHIM_ROOT}}; /* after the last call */
    power_log_prepare(a->log, a->calls + 1);
    find_ends(a);
}

/* ---- one state ---- */

static int wrong(audit *a, int64_t calls, int model, uint64_t seed, const char *what, const char *about) {
    const shim_record *r = &a->log[calls ? calls - 1 : 0].r;
    printf("after %lld calls (the last: operation %lld, %s %s), model %d, seed %llu: %s %s\n",
           (long long)calls, (long long)r->operation, r->name, r->new_name, model, (unsigned long long)seed,
           what, about);
    a->failures++;
    return -1;
}

static void digest_tree(const power_state *s, const node *n, XXH3_state_t *h) {
    for (int i = 0; n->is_directory && i < n->entries; i++) {
        if (n->entry[i].node < 0) continue;
        XXH3_128bits_update(h, n->entry[i].name, strlen(n->entry[i].name) + 1);
        digest_tree(s, &s->node[n->entry[i].node], h);
    }
    XXH3_128bits_update(h, &n->size, sizeof n->size);
    if (!n->is_directory) XXH3_128bits_update(h, n->data, n->size);
}

static int is_new(audit *a, int64_t least) {
    XXH3_state_t *h = XXH3_createState();
    XXH3_128bits_reset(h);
    digest_tree(&a->state, &a->state.node[0], h);
    XXH3_128bits_update(h, &least, sizeof least);
    XXH128_hash_t digest = XXH3_128bits_digest(h);
    XXH3_freeState(h);
    for (int64_t i = 0; i < a->n_seen; i++)
        if (XXH128_isEqual(a->seen[i], digest)) return 0;
    a->seen = mem_grow(a->seen, (size_t)(a->n_seen + 1) * sizeof *a->seen, "digests of states");
    a->seen[a->n_seen++] = digest;
    return 1;
}

/* Is the directory the undisturbed run's checkpoint? */
static int is_whole(const audit *a, const node *directory, int step) {
    int there = 0;
    for (int i = 0; i < directory->entries; i++) there += directory->entry[i].node >= 0;
    for (int i = 0; i < a->base[step].files; i++) {
        const file *f = &a->base[step].file[i];
        const node *n = lookup(&a->state, directory, f->name);
        if (!n || n->size != f->size || memcmp(n->data, f->data, f->size)) return 0;
    }
    return there == a->base[step].files && there > 0;
}

/* Bytes of the lines of at most `step`. */
static size_t lines_until(const file *f, int64_t step) {
    const char *at = f->data;
    for (const char *end; (end = strchr(at, '\n')) && atoll(strstr(at, "\"step\":") + 7) <= step;
         at = end + 1) {}
    return (size_t)(at - f->data);
}

static int has_lines(const audit *a, const node *run, const file *f, int64_t step) {
    const node *n = lookup(&a->state, run, f->name);
    size_t wanted = lines_until(f, step);
    return wanted == 0 || (n && n->size >= wanted && !memcmp(n->data, f->data, wanted));
}

static void put_down(const power_state *s, const node *n, const char *path) {
    char below[4200];
    if (n->is_directory) {
        mkdir(path, 0777);
        for (int i = 0; i < n->entries; i++) {
            if (n->entry[i].node < 0) continue;
            snprintf(below, sizeof below, "%s/%s", path, n->entry[i].name);
            put_down(s, &s->node[n->entry[i].node], below);
        }
        return;
    }
    FILE *out = fopen(path, "wb");
    if (!out || fwrite(n->data, 1, n->size, out) != n->size || fclose(out))
        FAULT(EXIT_IO, "%s: cannot be written", path);
}

static int remove_entry(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s, (void)type, (void)at;
    return remove(path);
}

static int check_state(audit *a, int64_t calls, int model, uint64_t seed) {
    const power_state *s = &a->state;
    const node *run = lookup(s, &s->node[0], a->run), *all = lookup(s, run, "checkpoints");
    char path[4200];
    ckpt *k = NULL;
    error e = {0};
    int newest = 0;
    for (int i = 0; all && i < all->entries; i++) {
        int step = step_of(all->entry[i].name);
        if (!step || all->entry[i].node < 0) continue;
        if (!is_whole(a, &s->node[all->entry[i].node], step))
            return wrong(a, calls, model, seed, "torn:", all->entry[i].name);
        if (step > newest) newest = step;
    }
    snprintf(path, sizeof path, "%s/state", a->scratch);
    put_down(s, &s->node[0], path);
    snprintf(path, sizeof path, "%s/state/%s/checkpoints", a->scratch, a->run);
    ckpt_newest(a->world, path, &k, &e);
    int64_t found = k ? ckpt_step(k) : 0;
    ckpt_close(k);
    snprintf(path, sizeof path, "%s/state", a->scratch);
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    a->old += found && found == a->least[calls];
    a->none += !found;
    if (e.code) return wrong(a, calls, model, seed, "the loader:", e.text);
    if (found != newest) return wrong(a, calls, model, seed, "the loader did not take the newest", "");
    if (found < a->least[calls])
        return wrong(a, calls, model, seed, "a checkpoint is lost whose save had ended", "");
    if (!has_lines(a, run, &a->metrics, found))
        return wrong(a, calls, model, seed, "metrics.jsonl misses lines", "");
    if (!has_lines(a, run, &a->eval, found))
        return wrong(a, calls, model, seed, "eval.jsonl misses lines", "");
    return 0;
}

int main(int argc, char **argv) {
    error e = {0};
    if (argc != 8) FAULT(EXIT_USAGE, "usage: powerloss LOG RUN BASE SCRATCH SAMPLES SEED KEEP");
    audit *a = mem_alloc(sizeof *a, "the audit");
    int64_t samples = atoll(argv[5]), keep = atoll(argv[7]), kept = 0;
    uint64_t seed = (uint64_t)atoll(argv[6]);
    char path[4200];
    a->run = argv[2];
    a->scratch = argv[4];
    a->state.node = mem_alloc(NODES * sizeof *a->state.node, "a file system");
    if (comm_open(&a->world, 60, &e)) FAULT(e.code, "%s", e.text);
    read_base(a, argv[3]);
    read_log(a, argv[1]);
    int64_t total = (a->calls + 1) * POWER_MODELS * samples;
    for (int64_t i = 0; i < total && a->failures < 10; i++) {
        int64_t calls = i / (POWER_MODELS * samples);
        int model = (int)(i % POWER_MODELS);
        power_state_make(&a->state, a->log, calls, model, seed + (uint64_t)i);
        a->states++;
        if (!calls || !is_new(a, a->least[calls]) || check_state(a, calls, model, seed + (uint64_t)i))
            continue;
        if (kept < keep && i >= total * kept / keep) {
            snprintf(path, sizeof path, "%s/%lld", a->scratch, (long long)kept++);
            put_down(&a->state, &a->state.node[0], path);
        }
    }
    printf("%lld states after %lld calls, %lld of them different: %lld with the newest ended save, %lld with "
           "a newer "
           "one, %lld before the first; %lld wrong\n",
           (long long)a->states, (long long)a->calls, (long long)a->n_seen, (long long)a->old,
           (long long)(a->n_seen - a->old - a->none), (long long)a->none, (long long)a->failures);
    return a->failures != 0;
}
