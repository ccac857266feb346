/* The whole model's gradients against central differences, in double, over random small models: dimensions
 * that are multiples of nothing, one head, one expert, no identity experts, K = 1, one token, documents,
 * shortcut or sequential, with and without the MTP head, recomputation, rows past the capacity, expert
 * replicas.  Every parameter tensor, every loss term.  Experts' selection (and with it f of the load-balance
 * loss) is held fixed: a probe that moves it is drawn anew. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "launch/memory.h"
#include "launch/random.h"
#include "model/init.h"
#include "model/model.h"
#include "optim/optimizer.h"

enum { MODELS = 200, PROBES = 2, FIRST = 1000, CROWDED = FIRST + 3 };
#define TOLERANCE 2e-5

typedef struct draw {
    uint64_t seed, next;
} draw;

/* Whole number in [lo, hi]. */
static int64_t pick(draw *d, int64_t lo, int64_t hi) {
    return lo + (int64_t)(random_bits(d->seed, 1, d->next++) % (uint64_t)(hi - lo + 1));
}
static double between(draw *d, double lo, double hi) {
    return lo + (hi - lo) * random_uniform(d->seed, 2, d->next++);
}

static model_config_all random_config(draw *d) {
    model_config_all c = {.chunks = pick(d, 1, 3), .eos = 0, .batch = pick(d, 1, 2), .seq = pick(d, 1, 9)};
    model_config *m = &c.model;
    m->vocab_size = pick(d, 2, 11);
    m->hidden_size = pick(d, 1, 11);
    m->num_layers = pick(d, 1, 2);
    m->num_attention_heads = pick(d, 1, 3);
    m->q_lora_rank = pick(d, 1, 7);
    m->kv_lora_rank = pick(d, 1, 5);
    m->qk_nope_head_dim = pick(d, 1, 5);
    m->qk_rope_head_dim = 2 * pick(d, 1, 3);
    m->v_head_dim = pick(d, 1, 5);
    m->ffn_hidden_size = pick(d, 1, 9);
    m->expert_ffn_hidden_size = pick(d, 1, 5);
    m->n_routed_experts = pick(d, 1, 6);
    m->zero_expert_num = pick(d, 0, 3);
    m->moe_topk = pick(
        d, 1, m->n_routed_experts + m->zero_expert_num < 4 ? m->n_routed_experts + m->zero_expert_num : 4);
    if (m->zero_expert_num == 0 && m->moe_topk > m->n_routed_experts) m->moe_topk = m->n_routed_experts;
    m->routed_scaling_factor = between(d, 0.5, 4);
    m->rms_norm_eps = 1e-5;
    m->latent_norm_eps = 1e-6;
    m->rope_theta = 100;
    m->mla_scale_q_lora = (int)pick(d, 0, 1);
    m->mla_scale_kv_lora = (int)pick(d, 0, 1);
    m->moe_input = pick(d, 0, 1) ? MOE_SHORTCUT : MOE_SEQUENTIAL;
    m->document_mask = (int)pick(d, 0, 1);
    m->recompute = (int)pick(d, 0, 1);
    c.router.expected_ffn_experts =
        m->zero_expert_num ? (double)m->moe_topk * between(d, 0.3, 0.9) : (double)m->moe_topk;
    c.router.lb_groups = m->n_routed_experts % 2 ? 1 : pick(d, 1, 2);
    c.router.lb_alpha = between(d, 0, 0.5);
    c.loss.hidden_z_coef = pick(d, 0, 1) ? between(d, 0.01, 0.5) : 0;
    c.loss.mtp_coef = pick(d, 0, 1) ? between(d, 0.1, 1) : 0;
    c.slack = pick(d, 0, 1) ? 1.5 : 0.01;
    return c;
}

/* Tokens enough for rows past the least capacity that there is: all choose FFN experts. */
static void crowd(model_config_all *c) {
    c->batch = 1;
    c->seq = 300;
    c->slack = 0.01;
    c->model.n_routed_experts = 5;
    c->model.zero_expert_num = 0;
    c->model.moe_topk = 4;
    c->model.num_layers = 1;
    c->router.expected_ffn_experts = 4;
    c->router.lb_groups = 1;
}

typedef struct subject {
    model_config_all c;
    kernels k;
    comm *world;
    mesh mesh;
    model m;
    gradients g;
    optimizer o;
    int32_t *tokens;
} subject;

static double total_loss(subject *s) {
    const model_config_all *c = &s->c;
    double lb = 0;
    model_forward(&s->m, s->tokens, c->batch, c->seq, 1);
    model_evaluate(&s->m, NULL);
    for (int64_t l = 0; l < c->model.num_layers; l++) lb += s->m.saved[l].moe.stats.lb;
    return s->m.stats.lm + c->router.lb_alpha * lb + c->loss.hidden_z_coef * s->m.stats.z +
           c->loss.mtp_coef * s->m.stats.mtp;
}

/* A number that changes when any token's choice of experts does. */
static uint64_t selection(const subject *s) {
    uint64_t h = 1469598103934665603u;
    for (int64_t l = 0; l < s->c.model.num_layers; l++)
        for (int64_t i = 0; i < s->m.x.tokens * s->c.model.moe_topk; i++)
            h = (h ^ (uint64_t)s->m.saved[l].moe.index_TK[i]) * 1099511628211u;
    return h;
}

static void backward(subject *s) {
    model *m = &s->m;
    gradients *g = &s->g;
    int class_of = 0;
    for (int64_t i = 0; i < g->owned_count; i++) g->owned[i] = NAN; /* what was there is of no matter */
    for (int64_t i = 0; i < s->c.batch * s->c.seq * s->c.model.hidden_size; i++) m->d_TH[0][i] = NAN;
    gradients_begin(g);
    model_forward(m, s->tokens, s->c.batch, s->c.seq, 1);
    real *embedding = gradients_embedding(g, 0), *head = gradients_buffer(g, bucket_head(&m->p), 0);
    real *mtp = m->p.mtp ? gradients_buffer(g, bucket_mtp(&m->p), 0) : NULL;
    model_head_backward(m, embedding, head, mtp);
    gradients_fold(g, bucket_head(&m->p), 0);
    if (mtp) gradients_fold(g, bucket_mtp(&m->p), 0);
    for (int64_t l = s->c.model.num_layers - 1; l >= 0; l--) {
        model_layer_backward(m, l, gradients_buffer(g, BUCKET_LAYER_0 + l, 0), gradients_classes(g, l),
                             &class_of);
        gradients_fold(g, BUCKET_LAYER_0 + l, 0);
    }
    model_embedding_backward(m, embedding);
    gradients_fold(g, BUCKET_EMBEDDING, 0);
    gradients_end_step(g);
}

static void subject_create(subject *s, draw *d) {
    error e = {0};
    *s = (subject){.c = random_config(d)};
    if (d->seed == CROWDED) crowd(&s->c);
    kernels_config kc = {.device = "ref", .isa = "auto", .threads = 1};
    parallel_config pc = {.expert_replicas = pick(d, 1, 2), .rank_invariant = 1};
    optim_config oc = {0};
    init_config init = {1.0, 0.6, 0.6};
    assert_int_equal(comm_open(&s->world, 10, &e), 0);
    assert_int_equal(kernels_open(&s->k, &kc, &e), 0);
    assert_int_equal(mesh_open(&s->mesh, s->world, &pc, 2, s->c.model.n_routed_experts, &e), 0);
    model_create(&s->m, &s->c, &s->k, &s->mesh);
    gradients_create(&s->g, &s->m.p, &s->k, &s->mesh);
    optimizer_create(&s->o, &oc, &s->m.p, s->m.weights, &s->g, &s->k, &s->mesh);
    init_weights(&s->m.p, &init, d->seed, &s->k, s->m.weights, 1);
    for (int64_t i = 0; i < s->m.p.n; i++) /* norms away from one, so that each factor shows */
        if (s->m.p.param[i].group == GROUP_NORM) {
            const param *q = &s->m.p.param[i];
            for (int64_t j = 0; j < q->count; j++)
                s->m.weights[s->m.p.bucket[q->bucket].dense_offset + q->offset + j] =
                    (real)between(d, 0.5, 1.5);
        }
    for (int64_t i = 0; i < s->c.model.num_layers * experts_total(&s->c.model); i++)
        s->m.router_bias_LE[i] = (real)between(d, -0.05, 0.05);
    int64_t n = s->c.batch * (s->c.seq + 2);
    s->tokens = mem_alloc((size_t)n * sizeof *s->tokens, "tokens");
    for (int64_t i = 0; i < n; i++) s->tokens[i] = (int32_t)pick(d, 0, s->c.model.vocab_size - 1);
}

static void subject_destroy(subject *s) {
    mem_free(s->tokens);
    optimizer_destroy(&s->o);
    gradients_destroy(&s->g);
    model_destroy(&s->m);
    mesh_close(&s->mesh);
    kernels_close(&s->k);
    comm_close(s->world);
}

/* ---- what was drawn: each of these must have been, or the test tests less than it says ---- */

enum {
    ONE_HEAD,
    ODD_WIDTHS,
    ONE_FFN_EXPERT,
    NO_IDENTITY,
    ONE_CHOSEN,
    ONE_TOKEN,
    ONE_TAKES_ALL,
    EMPTY_EXPERT,
    SHORTCUT,
    SEQUENTIAL,
    DOCUMENTS,
    NO_TARGET,
    RECOMPUTED,
    PAST_CAPACITY,
    TWO_REPLICAS,
    LB_GROUPS,
    Z_LOSS,
    MTP,
    NO_MTP,
    KINDS
};
static const char *const kind_name[KINDS] = {"one head",
                                             "odd widths",
                                             "N = 1",
                                             "Z = 0",
                                             "K = 1",
                                             "T = 1",
                                             "one expert takes all",
                                             "an empty expert",
                                             "shortcut",
                                             "sequential",
                                             "documents",
                                             "no target",
                                             "recomputation",
                                             "rows past the capacity",
                                             "two replicas",
                                             "two balance groups",
                                             "hidden z-loss",
                                             "MTP",
                                             "no MTP"};

/* Counts the kinds that a model is of; its forward has run. */
static void take_kinds(const subject *s, int *count) {
    const model_config *m = &s->c.model;
    int64_t tokens = s->c.batch * s->c.seq, all = 0, none = 0;
    for (int64_t l = 0; l < m->num_layers; l++)
        for (int64_t e = 0; e < m->n_routed_experts; e++) {
            all += tokens > 1 && s->m.saved[l].moe.stats.count_E[e] == tokens;
            none += s->m.saved[l].moe.stats.count_E[e] == 0;
        }
    const int is[KINDS] = {
        [ONE_HEAD] = m->num_attention_heads == 1,
        [ODD_WIDTHS] =
            m->hidden_size % 2 && m->v_head_dim % 2 && m->q_lora_rank % 2 && m->ffn_hidden_size % 2,
        [ONE_FFN_EXPERT] = m->n_routed_experts == 1,
        [NO_IDENTITY] = m->zero_expert_num == 0,
        [ONE_CHOSEN] = m->moe_topk == 1,
        [ONE_TOKEN] = tokens == 1,
        [ONE_TAKES_ALL] = all > 0,
        [EMPTY_EXPERT] = none > 0,
        [SHORTCUT] = m->moe_input == MOE_SHORTCUT,
        [SEQUENTIAL] = m->moe_input == MOE_SEQUENTIAL,
        [DOCUMENTS] = m->document_mask,
        [NO_TARGET] = s->m.counted == 0,
        [RECOMPUTED] = m->recompute,
        [PAST_CAPACITY] = s->m.saved[0].moe.plan.rounds > 1,
        [TWO_REPLICAS] = s->mesh.replica_classes == 2,
        [LB_GROUPS] = s->c.router.lb_groups == 2,
        [Z_LOSS] = s->c.loss.hidden_z_coef > 0,
        [MTP] = s->m.p.mtp,
        [NO_MTP] = !s->m.p.mtp,
    };
    for (int i = 0; i < KINDS; i++) count[i] += is[i];
}

/* `best` has the greatest of the logits of this state after a last norm; equal ones are as good. */
static void assert_greatest(const subject *s, const real *final_H, int32_t best) {
    int64_t width = s->c.model.hidden_size;
    double logit[16], most = -INFINITY;
    assert_true(s->c.model.vocab_size <= 16);
    for (int64_t v = 0; v < s->c.model.vocab_size; v++) {
        logit[v] = 0;
        for (int64_t j = 0; j < width; j++) logit[v] += final_H[j] * s->m.head.lm_head[v * width + j];
        most = fmax(most, logit[v]);
    }
    assert_in_range(best, 0, s->c.model.vocab_size - 1);
    assert_true(logit[best] >= most - 1e-12 * (1 + fabs(most)));
}

/* What MTP's acceptance is counted from: the choices of the trunk and of the MTP head. */
static void check_choices(const subject *s) {
    int64_t width = s->c.model.hidden_size;
    for (int64_t t = 0; t < s->c.batch * s->c.seq && s->m.mtp_on; t++) {
        if (s->m.host_rows.target_T[t] >= 0)
            assert_greatest(s, s->m.final_TH + t * width, s->m.host_rows.best_T[t]);
        if (s->m.host_rows.target2_T[t] >= 0)
            assert_greatest(s, s->m.mtp_saved.final_TH + t * width, s->m.host_rows.best2_T[t]);
    }
}

/* With a document mask no target lies past the end of the document that a token is of, and no token sees what
 * was before it; without one all do. */
static void check_documents(const subject *s) {
    const token_rows *r = &s->m.host_rows;
    for (int64_t b = 0; b < s->c.batch; b++)
        for (int64_t t = 0, i = b * s->c.seq; t < s->c.seq; t++, i++) {
            const int32_t *in = s->tokens + b * (s->c.seq + 2);
            int mask = s->c.model.document_mask, ends = mask && in[t] == s->c.eos;
            int64_t start = t;
            while (start > 0 && in[start - 1] != s->c.eos) start--;
            assert_int_equal(r->target_T[i], ends ? -1 : in[t + 1]);
            assert_int_equal(r->target2_T[i], ends || (mask && in[t + 1] == s->c.eos) ? -1 : in[t + 2]);
            if (mask) assert_int_equal(s->m.x.first_key[i], start);
            else assert_null(s->m.x.first_key);
        }
}

/* A sample's loss is the mean of its own targets', and all samples together have the micro-batch's. */
static void check_samples(const subject *s) {
    const token_rows *r = &s->m.host_rows;
    double sum = 0;
    for (int64_t b = 0; b < s->c.batch; b++)
        for (int64_t i = b * s->c.seq; i < (b + 1) * s->c.seq; i++)
            if (r->target_T[i] >= 0) sum += s->m.sample_loss[b];
    assert_true(fabs(sum - s->m.stats.lm * (double)s->m.counted) < 1e-9);
}

/* What a layer hands on is the next one's input, or what the final norm reads. */
static void check_maxima(const subject *s) {
    int64_t layers = s->c.model.num_layers, n = s->c.batch * s->c.seq * s->c.model.hidden_size;
    for (int64_t l = 0; l < layers; l++) {
        const real *out = l + 1 < layers ? s->m.saved[l + 1].x_TH : s->m.hidden_TH;
        double most = 0;
        for (int64_t i = 0; i < n; i++) most = fmax(most, fabs(out[i]));
        assert_true(most > 0 && model_layer_max(&s->m, l) == most);
        real *first = s->m.saved[l].max_host_T, was = *first;
        *first = NAN; /* one that is none stays, whatever follows */
        assert_true(isnan(model_layer_max(&s->m, l)));
        *first = was;
    }
}

/* Relative error of one gradient element, -1 when the probe moved the selection. */
static double probe(subject *s, const piece *q, int64_t i, double scale, double h) {
    real was = q->weight[i];
    uint64_t chosen = selection(s);
    q->weight[i] = was + h;
    double up = total_loss(s);
    int moved = selection(s) != chosen;
    q->weight[i] = was - h;
    double down = total_loss(s);
    moved |= selection(s) != chosen;
    q->weight[i] = was;
    total_loss(s);
    if (moved) return -1;
    return fabs((up - down) / (2 * h) - (double)q->gradient[i]) / (fabs((double)q->gradient[i]) + scale);
}

static void test_gradients(void **unused) {
    (void)unused;
    double worst = 0;
    int64_t probes = 0, moved = 0;
    int kinds[KINDS] = {0};
    for (uint64_t k = 0; k < MODELS; k++) {
        draw d = {.seed = FIRST + k};
        subject s;
        subject_create(&s, &d);
        backward(&s);
        check_maxima(&s);
        check_documents(&s);
        check_samples(&s);
        gradient_figures f = optimizer_gradient(&s.o);
        assert_true(isfinite(f.norm));
        double scale = 1e-3 * (f.norm + 1e-3); /* below this an element is judged absolutely */
        total_loss(&s);
        take_kinds(&s, kinds);
        check_choices(&s);
        assert_int_equal(s.o.pieces, s.m.p.n); /* every tensor of the table is probed */
        for (int64_t i = 0; i < s.o.pieces; i++)
            for (int p = 0; p < PROBES; p++) {
                const piece *q = &s.o.piece[i];
                int64_t at = pick(&d, 0, q->count - 1);
                double error = probe(&s, q, at, scale, 1e-5);
                if (error > TOLERANCE)
                    error = probe(&s, q, at, scale, 1e-6); /* a kink of |z|, strong curvature */
                probes++;
                if (error < 0) {
                    moved++;
                    continue;
                }
                if (!(error <= TOLERANCE))
                    fail_msg("model %llu: gradient of %s is off by %g", (unsigned long long)d.seed,
                             s.m.p.param[q->param].name, error);
                worst = error > worst ? error : worst;
            }
        subject_destroy(&s);
    }
    print_message("%d models, %lld probes (%lld moved the selection): largest relative error %.1e\n", MODELS,
                  (long long)probes, (long long)moved, worst);
    assert_true(moved < probes / 20);
    for (int i = 0; i < KINDS; i++) {
        print_message("    %3d with %s\n", kinds[i], kind_name[i]);
        assert_true(kinds[i] > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
