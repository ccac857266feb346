#include "model/init.h"

#include <math.h>

#include "kernels/math.h"
#include "kernels/twin.h"
#include "launch/random.h"

/* Box-Muller: two normals from two uniforms, in double; sqrt is exact by IEEE 754. */
static void fill_normal(real *w, int64_t count, double deviation, uint64_t seed, uint64_t stream,
                        int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && count > 65536)
    for (int64_t i = 0; i < count; i += 2) {
        double radius = deviation * sqrt(-2 * fixed_log(random_uniform(seed, stream, (uint64_t)i)));
        double angle = 2 * M_PI * random_uniform(seed, stream, (uint64_t)i + 1);
        w[i] = (real)(radius * fixed_cos(angle));
        if (i + 1 < count) w[i + 1] = (real)(radius * fixed_sin(angle));
    }
}

void init_weights(const params *p, const init_config *c, uint64_t seed, const kernels *k, real *weights,
                  int threads) {
    const double deviation[PARAM_GROUPS] = {[GROUP_EMBEDDING] = c->embedding_std,
                                            [GROUP_HIDDEN] = c->hidden_std,
                                            [GROUP_UNEMBEDDING] = c->unembedding_std};
    for (int64_t i = 0; i < p->n; i++) {
        const param *q = &p->param[i];
        if (q->offset < 0) continue;
        size_t bytes = (size_t)q->count * sizeof(real);
        real *table = params_weight(p, weights, q), *w = twin_alloc(k, table, bytes, "a new parameter");
        if (q->group == GROUP_NORM)
            for (int64_t j = 0; j < q->count; j++) w[j] = 1;
        else fill_normal(w, q->count, deviation[q->group], seed, random_stream(q->name), threads);
        twin_write(k, table, w, bytes);
        twin_free(table, w);
    }
}
