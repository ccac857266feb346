#include "train/sdc.h"

#include "train/state.h"

int sdc_open(state *s, error *e) {
    flip *f = &s->sdc.flip;
    if (flip_read(f, s->mesh.rank, e)) return e->code;
    if (f->kind == FLIP_WEIGHT && params_find(&s->model.p, f->tensor) < 0)
        return error_set(e, EXIT_USAGE, "CARACAL_TEST_FLIP: there is no tensor %s", f->tensor);
    return 0;
}

/* The tests' switch, in this rank's copy of a weight. */
static void flip_weight(const state *s) {
    const flip *f = &s->sdc.flip;
    if (f->kind != FLIP_WEIGHT || f->step != s->step + 1) return;
    const param *q = &s->model.p.param[params_find(&s->model.p, f->tensor)];
    const bucket *b = &s->model.p.bucket[q->bucket];
    if (q->offset < 0) return; /* an expert of another rank */
    real *w = s->model.weights + (q->expert < 0 ? b->dense_offset : b->expert_offset) + q->offset;
    flip_strike(f, q->name, w, q->count, sizeof *w);
}

void sdc_begin(state *s) {
    flip_weight(s);
}
