/* What the model is made of: the published keys of config.json, and this project's own beside them. */
#ifndef CARACAL_MODEL_CONFIG_H
#define CARACAL_MODEL_CONFIG_H

#include <stdint.h>

enum moe_input { MOE_SHORTCUT, MOE_SEQUENTIAL }; /* y1 (ScMoE) or y3 (the baseline) */

typedef struct model_config {
    int64_t vocab_size, hidden_size, num_layers, num_attention_heads;
    int64_t q_lora_rank, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim;
    int64_t ffn_hidden_size, expert_ffn_hidden_size;
    int64_t n_routed_experts, zero_expert_num, moe_topk; /* N, Z, K */
    double routed_scaling_factor, rms_norm_eps, latent_norm_eps, rope_theta;
    int mla_scale_q_lora, mla_scale_kv_lora; /* alpha_q, alpha_kv on (published) or 1 */
    int moe_input;                           /* enum moe_input */
    int document_mask;                       /* attention and targets stay inside a document */
    int recompute;                           /* keep a layer's input, routing and received rows only */
} model_config;

enum controller { CONTROLLER_PID, CONTROLLER_SIGN }; /* of the router biases */

typedef struct init_config {
    double embedding_std, hidden_std, unembedding_std;
} init_config;

typedef struct router_config {
    double expected_ffn_experts; /* K_e */
    int64_t lb_groups;           /* D */
    double lb_alpha;             /* in a run with a grad_ratio_target: the one in force */
    double grad_ratio_target;    /* R_g that lb_alpha is moved to keep; 0: lb_alpha stays */
    double grad_ratio_limit;     /* R_g that is warned of; 0: none */
    int controller;              /* enum controller */
    double bias_rate, bias_kp, bias_ki, bias_kd;
    double bias_budget_gain;      /* factor on what the moves of all FFN experts have in common; 1: none */
    double bias_clamp;            /* no bias beyond +- this; 0: no bound */
    int64_t bias_decay_steps;     /* cosine to zero over so many steps; 0: held */
    int64_t bias_update_interval; /* counts of so many steps are gathered before a move */
} router_config;

typedef struct loss_config {
    double hidden_z_coef, mtp_coef;
    int64_t mtp_start; /* steps before the MTP head joins in */
} loss_config;

#endif
