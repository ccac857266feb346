#include "train/figures.h"

#include <math.h>
#include <string.h>

#include "launch/memory.h"

/* One micro-batch's figures: the scalars, then per layer LB, sums of FFN experts, the largest element, and
 * per expert counts and the gradient that reached its probability.  All are summed over micro-batches but the
 * maxima. */
enum { LM, Z, MTP, HIDDEN_L2, SCALARS };
enum { LB, FFN_SUM, FFN_SUM_SQ, OUTPUT_MAX, LAYER_SCALARS };

static int64_t layer_figures(const model_config *c) {
    return LAYER_SCALARS + 2 * experts_total(c);
}
int64_t step_figures(const model_config *c) {
    return SCALARS + c->num_layers * layer_figures(c);
}

static double *layer_at(const model_config *c, double *figure, int64_t l) {
    return figure + SCALARS + l * layer_figures(c);
}

void step_result_create(step_result *r, const model_config *c) {
    size_t layers = (size_t)c->num_layers;
    *r = (step_result){0};
    double **vector[] = {&r->ffn_mean,          &r->ffn_std,           &r->load_max_over_mean,
                         &r->router_similarity, &r->router_grad_ratio, &r->layer_output_max};
    for (size_t i = 0; i < sizeof vector / sizeof *vector; i++)
        *vector[i] = mem_alloc(layers * sizeof(double), "a step's figures");
    r->count = mem_alloc(layers * (size_t)experts_total(c) * sizeof *r->count, "a step's figures");
}

void step_result_destroy(step_result *r) {
    mem_free(r->ffn_mean);
    mem_free(r->ffn_std);
    mem_free(r->load_max_over_mean);
    mem_free(r->router_similarity);
    mem_free(r->router_grad_ratio);
    mem_free(r->layer_output_max);
    mem_free(r->count);
}

static int is_maximum(const model_config *c, int64_t figure) {
    return figure >= SCALARS && (figure - SCALARS) % layer_figures(c) == OUTPUT_MAX;
}

static double larger(double a, double b) {
    return b > a || isnan(b) ? b : a;
}

void figures_begin(state *s) {
    memset(s->figure_sum, 0, (size_t)s->figures * sizeof(double));
}

/* Adds the turn's figures that are on their way, if any are. */
static void finish(state *s) {
    const model_config *c = &s->c.model;
    if (!s->figures_wait) return;
    comm_wait(s->mesh.world, s->figures_told);
    s->figures_wait = 0;
    for (int64_t k = 0; k < s->mesh.ranks; k++) {
        const double *x = s->figure_all + mesh_rank_of(&s->mesh, k) * s->figures;
        for (int64_t i = 0; i < s->figures; i++)
            s->figure_sum[i] = is_maximum(c, i) ? larger(s->figure_sum[i], x[i]) : s->figure_sum[i] + x[i];
    }
}

void figures_fold(state *s) {
    const model_config *c = &s->c.model;
    int64_t n = experts_total(c);
    const model_stats *m = &s->model.stats;
    finish(s);
    s->figure[LM] = m->lm;
    s->figure[Z] = m->z;
    s->figure[MTP] = m->mtp;
    s->figure[HIDDEN_L2] = m->hidden_l2;
    for (int64_t l = 0; l < c->num_layers; l++) {
        const moe_stats *e = &s->model.saved[l].moe.stats;
        double *at = layer_at(c, s->figure, l);
        at[LB] = e->lb;
        at[FFN_SUM] = (double)e->ffn_sum;
        at[FFN_SUM_SQ] = (double)e->ffn_sum_sq;
        at[OUTPUT_MAX] = model_layer_max(&s->model, l);
        for (int64_t i = 0; i < n; i++) {
            at[LAYER_SCALARS + i] = (double)e->count_E[i];
            at[LAYER_SCALARS + n + i] = (double)e->dprob_sum_E[i];
        }
    }
    s->figures_told = comm_all_gather_start(s->mesh.world, "figures of a turn", s->figure_all, s->figure,
                                            (size_t)s->figures * sizeof(double));
    s->figures_wait = 1;
}

/* Mean cosine over all pairs of rows of w [n, h]: (|sum of unit rows|^2 - n) / (n (n - 1)).  sum: scratch
 * [h]. */
static double mean_cosine(const real *w, int64_t n, int64_t h, double *sum) {
    double square = 0;
    if (n < 2) return 0;
    memset(sum, 0, (size_t)h * sizeof *sum);
    for (int64_t i = 0; i < n; i++) {
        double norm = 0;
        for (int64_t j = 0; j < h; j++) norm += (double)w[i * h + j] * (double)w[i * h + j];
        double scale = norm > 0 ? 1 / sqrt(norm) : 0;
        for (int64_t j = 0; j < h; j++) sum[j] += scale * (double)w[i * h + j];
    }
    for (int64_t j = 0; j < h; j++) square += sum[j] * sum[j];
    return (square - (double)n) / ((double)n * (double)(n - 1));
}

/* R_g = |alpha dLB/dP| / |dLM/dP|, P the batch's mean probabilities. */
static double gradient_ratio(const state *s, const int64_t *count, const double *dprob, double tokens) {
    const model_config *c = &s->c.model;
    double lb = 0, lm = 0;
    for (int64_t j = 0, first, end; j <= s->c.router.lb_groups; j++) {
        double f = s->c.router.lb_alpha * moe_lb_group(c, &s->c.router, count, tokens, j, &first, &end);
        lb += (double)(end - first) * f * f;
    }
    for (int64_t i = 0; i < experts_total(c); i++) lm += dprob[i] * dprob[i];
    return lm > 0 ? sqrt(lb / lm) : 0;
}

static double deviation(double sum, double sum_sq, double n) {
    double mean = sum / n, variance = sum_sq / n - mean * mean;
    return variance > 0 ? sqrt(variance) : 0;
}

void figures_read(state *s, step_result *r) {
    const model_config *c = &s->c.model;
    finish(s);
    int64_t n = experts_total(c), ffn = c->n_routed_experts;
    double v = (double)s->c.train.micro_batches, layers = (double)c->num_layers;
    double tokens = v * (double)(s->c.train.micro_batch_size * s->c.train.seq_len);
    double *x = s->figure_sum, all = 0, all_sq = 0;
    size_t router_bytes = (size_t)(n * c->hidden_size) * sizeof(real);
    r->lm = x[LM] / v;
    r->z = x[Z] / v;
    r->mtp = x[MTP] / v;
    r->hidden_l2 = x[HIDDEN_L2] / v;
    r->lb = 0;
    for (int64_t l = 0; l < c->num_layers; l++) {
        const double *at = layer_at(c, x, l), *count = at + LAYER_SCALARS;
        double most = 0, sum = 0;
        r->lb += at[LB] / v;
        r->layer_output_max[l] = at[OUTPUT_MAX];
        r->ffn_mean[l] = at[FFN_SUM] / tokens;
        r->ffn_std[l] = deviation(at[FFN_SUM], at[FFN_SUM_SQ], tokens);
        all += at[FFN_SUM];
        all_sq += at[FFN_SUM_SQ];
        for (int64_t i = 0; i < n; i++) r->count[l * n + i] = (int64_t)count[i];
        for (int64_t i = 0; i < ffn; i++) {
            most = count[i] > most ? count[i] : most;
            sum += count[i];
        }
        r->load_max_over_mean[l] = sum > 0 ? most * (double)ffn / sum : 0;
        r->router_grad_ratio[l] = gradient_ratio(s, r->count + l * n, count + n, tokens);
        const real *router = s->model.layer[l].router;
        if (s->router) s->k.to_host(s->k.ctx, s->router, router, router_bytes);
        r->router_similarity[l] = mean_cosine(s->router ? s->router : router, n, c->hidden_size, s->row_sum);
    }
    r->ffn_mean_all = all / (tokens * layers);
    r->ffn_std_all = deviation(all, all_sq, tokens * layers);
    r->hidden_max = r->layer_output_max[c->num_layers - 1];
    r->lb_alpha = s->c.router.lb_alpha;
    r->loss =
        r->lm + s->c.router.lb_alpha * r->lb + s->c.loss.hidden_z_coef * r->z + s->c.loss.mtp_coef * r->mtp;
}

void figures_read_biases(const state *s, step_result *r) {
    const model_config *c = &s->c.model;
    r->bias_min = INFINITY;
    r->bias_max = -INFINITY;
    for (int64_t l = 0; l < c->num_layers; l++)
        for (int64_t i = 0; i < c->n_routed_experts; i++) {
            double b = (double)s->model.router_bias_LE[l * experts_total(c) + i];
            r->bias_min = b < r->bias_min ? b : r->bias_min;
            r->bias_max = b > r->bias_max ? b : r->bias_max;
        }
}
