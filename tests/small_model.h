/* A small model for tests, which each changes where it wants other sizes: two layers, four FFN and two
 * identity experts; rows are whole chunks of 16 bytes in bf16, as those of real models. */
#ifndef CARACAL_TESTS_SMALL_MODEL_H
#define CARACAL_TESTS_SMALL_MODEL_H

#include "model/model.h"

static inline model_config_all small_model(void) {
    return (model_config_all){.model = {.vocab_size = 300,
                                        .hidden_size = 32,
                                        .num_layers = 2,
                                        .num_attention_heads = 2,
                                        .q_lora_rank = 24,
                                        .kv_lora_rank = 16,
                                        .qk_nope_head_dim = 8,
                                        .qk_rope_head_dim = 8,
                                        .v_head_dim = 8,
                                        .ffn_hidden_size = 48,
                                        .expert_ffn_hidden_size = 24,
                                        .n_routed_experts = 4,
                                        .zero_expert_num = 2,
                                        .moe_topk = 3,
                                        .routed_scaling_factor = 2,
                                        .rms_norm_eps = 1e-5,
                                        .latent_norm_eps = 1e-6,
                                        .rope_theta = 1e4,
                                        .mla_scale_q_lora = 1,
                                        .mla_scale_kv_lora = 1},
                              .router = {.expected_ffn_experts = 2, .lb_groups = 1},
                              .batch = 1,
                              .seq = 8,
                              .chunks = 1,
                              .slack = 1.5};
}

#endif
