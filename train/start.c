#include "train/start.h"

#include <stdio.h>
#include <string.h>

#include "ckpt/commit.h"
#include "launch/files.h"
#include "launch/memory.h"
#include "train/checkpoint.h"

/* The checkpoint of this run to go on from; *k = NULL: there is none, and the run is a fresh one. */
static int open_checkpoint(session *x, const start_point *p, ckpt **k, error *e) {
    char *directory = text_of("%s/checkpoints", x->c.run_dir);
    int code = 0;
    if (p->saved >= 0) {
        char *path = step_path(directory, p->saved, "");
        code = session_checkpoint(x, path, k, e);
        mem_free(path);
    } else if (!strcmp(p->resume, "auto")) {
        code = ckpt_newest(x->world, directory, k, e);
    } else if (strcmp(p->resume, "none")) {
        code = session_checkpoint(x, p->resume, k, e);
    }
    mem_free(directory);
    return code;
}

int start_state(session *x, const start_point *p, error *e) {
    state *s = &x->s;
    ckpt *k = NULL;
    if (open_checkpoint(x, p, &k, e)) return e->code;
    int model_only = !k && p->init_from;
    if (model_only && session_checkpoint(x, p->init_from, &k, e)) return e->code;
    state_reset(s);
    if (!k) {
        state_initialise(s);
        return 0;
    }
    int code = model_only ? checkpoint_init_from(s, k, e) : checkpoint_resume(s, k, x->inputs, e);
    if (!code && s->mesh.rank == 0) printf("%s %s\n", model_only ? "from     " : "resuming ", ckpt_path(k));
    ckpt_close(k);
    return code;
}
