/* What a power loss may leave of a directory: from the log of tests/shim_fs.c, a state for a number of calls
 * made, a file system's promises, and chance.
 *
 * What was written to a file and not followed by a sync of that file may be lost as a whole, from some write
 * on, or in any pieces of a page; where a lost piece lies inside the file, zeros or an older file's bytes
 * show. STRICT  POSIX's word: a name that was made, moved or removed is safe once its directory was synced;
 * until then it may be lost or not, whatever happens to other names (but changes of one name stay in order)
 *   JOURNAL as ext4 and its like: names change in the order of the calls, and any sync makes all before it
 * safe
 */
#ifndef CARACAL_TESTS_POWER_STATES_H
#define CARACAL_TESTS_POWER_STATES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/random.h"
#include "tests/shim_fs.h"

enum power_model { STRICT, JOURNAL, POWER_MODELS };
enum { NODES = 4096, ENTRIES = 64, PAGE = 4096 };

typedef struct log_entry {
    shim_record r;
    const char *data;
    int64_t safe; /* the first later sync of the file, or of the directory whose names change; else far off */
    int64_t synced; /* the last sync of anything before this call, -1: none */
} log_entry;

typedef struct node {
    int64_t inode;
    int is_directory, entries;
    struct {
        char name[40];
        int node; /* -1: the name's last change was lost, and with it all that follow */
        int gone;
    } entry[ENTRIES];
    char *data;
    size_t size, room;
} node;

typedef struct power_state {
    node *node; /* [NODES]; 0 is the root */
    int nodes;
    uint64_t seed, draws;
} power_state;

static inline uint64_t draw(power_state *s, uint64_t below) {
    return random_bits(s->seed, 0, s->draws++) % below;
}

/* ---- the tree ---- */

static inline node *node_new(power_state *s, int64_t inode, int is_directory) {
    if (s->nodes == NODES) abort();
    node *n = &s->node[s->nodes++];
    n->inode = inode;
    n->is_directory = is_directory;
    n->entries = 0;
    n->size = 0;
    return n;
}

static inline node *node_of(power_state *s, int64_t inode) {
    for (int i = s->nodes - 1; i >= 0; i--) /* an inode number may be used again */
        if (s->node[i].inode == inode) return &s->node[i];
    return NULL;
}

/* The slot of a name, made when it is new. */
static inline int slot_of(node *directory, const char *name) {
    for (int i = 0; i < directory->entries; i++)
        if (!strcmp(directory->entry[i].name, name)) return i;
    if (directory->entries == ENTRIES) abort();
    int i = directory->entries++;
    snprintf(directory->entry[i].name, sizeof directory->entry[i].name, "%s", name);
    directory->entry[i].node = -1;
    directory->entry[i].gone = 0;
    return i;
}

static inline node *lookup(const power_state *s, const node *directory, const char *name) {
    for (int i = 0; directory && i < directory->entries; i++)
        if (!strcmp(directory->entry[i].name, name) && directory->entry[i].node >= 0)
            return &s->node[directory->entry[i].node];
    return NULL;
}

static inline void grow(node *n, size_t size, int filler) {
    if (size > n->room) {
        n->room = 2 * size;
        n->data = realloc(n->data, n->room);
        if (!n->data) abort();
    }
    if (size > n->size) memset(n->data + n->size, filler, size - n->size);
    if (size > n->size) n->size = size;
}

/* ---- one call ---- */

static inline int changes_names(const shim_record *r) {
    return r->operation == SHIM_CREATE || r->operation == SHIM_MKDIR || r->operation == SHIM_RENAME ||
           r->operation == SHIM_UNLINK || r->operation == SHIM_RMDIR;
}

/* Changes names, or loses the change. */
static inline void apply_names(power_state *s, const shim_record *r, int lost) {
    if (r->operation == SHIM_CREATE || r->operation == SHIM_MKDIR)
        node_new(s, r->inode, r->operation == SHIM_MKDIR);
    node *directory = node_of(s, r->directory);
    if (!directory || (r->operation == SHIM_RENAME && r->to != r->directory)) abort();
    int from = slot_of(directory, r->name),
        to = r->operation == SHIM_RENAME ? slot_of(directory, r->new_name) : from;
    if (lost || directory->entry[from].gone || directory->entry[to].gone) {
        directory->entry[from].gone = directory->entry[to].gone = 1;
        return;
    }
    if (r->operation == SHIM_CREATE || r->operation == SHIM_MKDIR) directory->entry[from].node = s->nodes - 1;
    else if (r->operation == SHIM_RENAME) {
        directory->entry[to].node = directory->entry[from].node;
        directory->entry[from].node = -1;
    } else directory->entry[from].node = -1;
}

enum loss { LOSE_NONE, LOSE_ALL, LOSE_TAIL, LOSE_SOME, LOSSES };

/* Writes what is not lost, a page at a time.  What is lost may still count in the file's length: `stale`. */
static inline void apply_data(power_state *s, const log_entry *e, enum loss loss, int stale) {
    node *n = node_of(s, e->r.inode);
    if (!n) abort();
    if (e->r.operation == SHIM_TRUNCATE) {
        if (loss == LOSE_ALL || (loss == LOSE_SOME && draw(s, 2))) return;
        grow(n, (size_t)e->r.offset, 0);
        n->size = (size_t)e->r.offset;
        return;
    }
    for (int64_t at = e->r.offset, end = at + e->r.bytes, stop; at < end; at = stop) {
        stop = (at / PAGE + 1) * PAGE < end ? (at / PAGE + 1) * PAGE : end;
        if (loss == LOSE_ALL || (loss == LOSE_SOME && draw(s, 2))) {
            if (stale) grow(n, (size_t)stop, 0xa5);
            continue;
        }
        grow(n, (size_t)stop, 0);
        memcpy(n->data + at, e->data + (at - e->r.offset), (size_t)(stop - at));
    }
}

/* Fills in `safe` and `synced`. */
static inline void power_log_prepare(log_entry *log, int64_t n) {
    for (int64_t i = 0, synced = -1; i < n; i++) {
        const shim_record *r = &log[i].r;
        int64_t matters = changes_names(r) ? r->directory : r->inode;
        log[i].synced = synced;
        log[i].safe = INT64_MAX;
        for (int64_t j = i + 1; j < n && log[i].safe == INT64_MAX; j++) {
            if (log[j].r.operation == SHIM_SYNC && log[j].r.inode == matters) log[i].safe = j;
            if (log[j].r.operation == SHIM_CREATE && log[j].r.inode == matters) break; /* its number, again */
        }
        if (r->operation == SHIM_SYNC) synced = i;
    }
}

/* The state after a power loss when the first `calls` calls of the log were made. */
static inline void power_state_make(power_state *s, const log_entry *log, int64_t calls,
                                    enum power_model model, uint64_t seed) {
    s->nodes = 0;
    s->seed = seed;
    s->draws = 0;
    int64_t synced = log[calls].synced, cut = synced + 1 + (int64_t)draw(s, (uint64_t)(calls - synced));
    enum loss names = (enum loss)draw(s, LOSSES),
              files = (enum loss)draw(s, LOSSES + 1); /* last: each its own */
    const int stale = (int)draw(s, 2);
    for (int64_t i = 0; i < calls; i++) {
        const shim_record *r = &log[i].r;
        int safe = log[i].safe < calls;
        if (r->operation == SHIM_ROOT && !s->nodes) node_new(s, r->inode, 1);
        if (r->operation == SHIM_ROOT || r->operation == SHIM_SYNC) continue;
        if (changes_names(r)) {
            int lost = model == JOURNAL ? i >= cut
                                        : !safe && names != LOSE_NONE && (names == LOSE_ALL || draw(s, 2));
            apply_names(s, r, lost);
            continue;
        }
        enum loss loss =
            files < LOSSES ? files : (enum loss)(random_bits(seed, 1, (uint64_t)r->inode) % LOSSES);
        if (loss == LOSE_TAIL) loss = i < cut ? LOSE_NONE : LOSE_ALL;
        apply_data(s, &log[i], safe ? LOSE_NONE : loss, stale);
    }
}

#endif
