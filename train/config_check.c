/* Combinations that cannot be.  What depends on the number of ranks is checked in launch/mesh.c. */
#include <inttypes.h>
#include <stdarg.h>

#include "train/config_table.h"

/* "file:line: key = value: " and the rest. */
__attribute__((format(printf, 5, 6))) static int refuse(const config *c, const config_origin *o,
                                                        const char *name, error *e, const char *format, ...) {
    int k = config_key_find(config_keys, config_key_count, name);
    REQUIRE(k >= 0);
    char where[ORIGIN_TEXT], value[256], why[512];
    config_origin_text(o, k, where);
    config_value_text(&config_keys[k], c, value, sizeof value);
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    return error_set(e, EXIT_USAGE, "%s: %s = %s%s: %s", where, name, value,
                     o->line[k] == ORIGIN_DEFAULT ? " (the default)" : "", why);
}

static int check_model(const config *c, const config_origin *o, error *e) {
    const model_config *m = &c->model;
    double expected = c->router.expected_ffn_experts;
    int64_t experts = m->n_routed_experts + m->zero_expert_num;
    if (m->moe_topk > experts)
        return refuse(c, o, "model.moe_topk", e,
                      "must be at most model.n_routed_experts + model.zero_expert_num = %" PRId64, experts);
    if (m->zero_expert_num > 0 && expected >= (double)m->moe_topk)
        return refuse(c, o, "router.expected_ffn_experts", e,
                      "must be below model.moe_topk = %" PRId64 " when there are identity experts",
                      m->moe_topk);
    if (m->zero_expert_num == 0 && expected != (double)m->moe_topk)
        return refuse(c, o, "router.expected_ffn_experts", e,
                      "must be model.moe_topk = %" PRId64 " when model.zero_expert_num is 0", m->moe_topk);
    if (expected > (double)m->n_routed_experts)
        return refuse(c, o, "router.expected_ffn_experts", e,
                      "must be at most model.n_routed_experts = %" PRId64, m->n_routed_experts);
    if (m->n_routed_experts % c->router.lb_groups)
        return refuse(c, o, "router.lb_groups", e, "must divide model.n_routed_experts = %" PRId64,
                      m->n_routed_experts);
    const int64_t tensors = 25 + 3 * m->n_routed_experts, most = 1 << 20; /* of a layer; of a model */
    if (m->num_layers > most / tensors)
        return refuse(c, o, "model.num_layers", e,
                      "must be at most %" PRId64 " with model.n_routed_experts = %" PRId64
                      ": a model has at most %" PRId64 " tensors, and a layer %" PRId64,
                      most / tensors, m->n_routed_experts, most, tensors);
    const router_config *r = &c->router;
    if (r->controller == CONTROLLER_SIGN &&
        (r->bias_kp != 0 || r->bias_kd != 0 || r->bias_ki != 1 || r->bias_budget_gain != 1))
        return refuse(c, o, "router.controller", e,
                      "has no gains: leave router.bias_kp, bias_ki, bias_kd and bias_budget_gain alone");
    if (r->grad_ratio_target > 0 && r->lb_alpha == 0)
        return refuse(c, o, "router.grad_ratio_target", e,
                      "moves router.lb_alpha by factors, which leave 0 as it is");
    if (m->qk_rope_head_dim % 2)
        return refuse(c, o, "model.qk_rope_head_dim", e, "must be even: RoPE turns pairs");
    return 0;
}

static int check_schedule(const config *c, const config_origin *o, error *e) {
    const optim_config *p = &c->optim;
    if (p->schedule == LR_WSD && p->decay_steps < 1)
        return refuse(c, o, "optim.decay_steps", e, "must be at least 1 with optim.schedule = wsd");
    if (p->schedule != LR_WSD && p->decay_steps > 0)
        return refuse(c, o, "optim.decay_steps", e, "has a meaning with optim.schedule = wsd only");
    int64_t least =
        p->schedule == LR_CONSTANT ? 0 : p->warmup_steps + (p->schedule == LR_WSD ? p->decay_steps : 1);
    if (p->schedule_steps < least)
        return refuse(c, o, "optim.schedule_steps", e,
                      "must be at least %" PRId64 ": optim.warmup_steps = %" PRId64 " and the fall after it",
                      least, p->warmup_steps);
    return 0;
}

int config_check(const config *c, const config_origin *o, error *e) {
    if (check_model(c, o, e) || check_schedule(c, o, e)) return e->code;
    /* rows of dispatched tokens are numbered with 32 bits */
    double rows = (double)c->train.seq_len * (double)c->train.micro_batch_size * (double)c->model.moe_topk;
    if (rows > INT32_MAX)
        return refuse(c, o, "train.micro_batch_size", e,
                      "times train.seq_len times model.moe_topk must be at most %d", INT32_MAX);
    const checkpoint_config *k = &c->checkpoint;
    if (k->keep_every && (k->every == 0 || k->keep_every % k->every))
        return refuse(c, o, "checkpoint.keep_every", e, "must be a multiple of checkpoint.every = %" PRId64,
                      k->every);
    return 0;
}
