#include "train/config_table.h"

#include <string.h>

#include "launch/options.h"

/* Keys are named as the fields they fill, so the name is the field's own text. */
#define FIELD(field) offsetof(config, field), sizeof(((config *)0)->field)
#define INT(field, min, max, standard, decides, doc)                                                         \
    { #field, KEY_INT, FIELD(field), min, max, NULL, standard, decides, doc }
#define AUTO(field, max, doc)                                                                                \
    { #field, KEY_INT, FIELD(field), 0, max, "auto", "auto", FREE, doc }
#define REAL(field, min, max, standard, doc)                                                                 \
    { #field, KEY_REAL, FIELD(field), min, max, NULL, standard, DECIDES, doc }
#define FREE_REAL(field, min, max, standard, doc)                                                            \
    { #field, KEY_REAL, FIELD(field), min, max, NULL, standard, FREE, doc }
#define JOINED_REAL(field, min, max, standard, doc)                                                          \
    { #field, KEY_REAL, FIELD(field), min, max, NULL, standard, JOINED, doc }
#define BOOL(field, standard, decides, doc)                                                                  \
    { #field, KEY_BOOL, FIELD(field), 0, 1, NULL, standard, decides, doc }
#define ENUM(field, words, standard, decides, doc)                                                           \
    { #field, KEY_ENUM, FIELD(field), 0, 0, words, standard, decides, doc }

/* The upper ends of the model's sizes are what the cpu backend's scratch holds (REQUIREs in kernels/cpu). */
#define DIMENSION 524288
/* Steps that are added to one another, far from the end of an int64_t. */
#define STEPS 1e10
/* Positions whose angles have a sine: those below 2^20 (kernels/math.h), if no frequency is above 1. */
#define POSITIONS 1048576
#define ANY       KEY_UNBOUNDED
#define POSITIVE  KEY_ABOVE_ZERO

/* JOINED: decides, and is younger than some checkpoints: its default is what they were made with. */
enum { FREE = KEY_FREE, DECIDES = KEY_DECIDES, JOINED = KEY_JOINED };

/* Keys of one section stand together: config_write prints them in this order. */
const config_key config_keys[] = {
    {"run.dir", KEY_TEXT, FIELD(run_dir), 0, 0, NULL, KEY_REQUIRED, FREE, "where the run writes everything"},
    {"device", KEY_WORD, FIELD(kernels.device), 0, 0, "ref|cpu|cuda|check:cpu|check:ref|check:cuda", "cpu",
     FREE, "ref: plain loops; cpu: fast; check:cpu: both, compared at every operation"},
    {"isa", KEY_WORD, FIELD(kernels.isa), 0, 0, "auto|avx2|avx512", "auto", FREE,
     "vector instructions of the cpu device; all give the same bits"},
    {"dtype", KEY_ENUM, FIELD(kernels.dtype), 0, 0, "float32|bf16", "float32", JOINED,
     "how matrix products and attention read their operands; bf16: rounded, sums in float32"},
    {"wait_timeout", KEY_SECONDS, FIELD(wait_timeout), 0.1, 1e6, NULL, "10m", FREE,
     "a rank that waits longer for another ends the run"},

    INT(model.vocab_size, 2, INT32_MAX, KEY_REQUIRED, DECIDES, "tokens in the vocabulary"),
    INT(model.hidden_size, 1, DIMENSION, KEY_REQUIRED, DECIDES, "H"),
    INT(model.num_layers, 1, 100000, KEY_REQUIRED, DECIDES, "L; each has two attentions, two FFNs, one MoE"),
    INT(model.num_attention_heads, 1, 256, KEY_REQUIRED, DECIDES, ""),
    INT(model.q_lora_rank, 1, DIMENSION, KEY_REQUIRED, DECIDES, "width of the query latent"),
    INT(model.kv_lora_rank, 1, DIMENSION, KEY_REQUIRED, DECIDES, "width of the key-value latent"),
    INT(model.qk_nope_head_dim, 1, 256, KEY_REQUIRED, DECIDES, "per head, without position"),
    INT(model.qk_rope_head_dim, 2, 128, KEY_REQUIRED, DECIDES, "turned by position; even; keys share it"),
    INT(model.v_head_dim, 1, 256, KEY_REQUIRED, DECIDES, ""),
    INT(model.ffn_hidden_size, 1, DIMENSION, KEY_REQUIRED, DECIDES, "inner width of the dense FFNs"),
    INT(model.expert_ffn_hidden_size, 1, DIMENSION, KEY_REQUIRED, DECIDES, "inner width of one expert"),
    INT(model.n_routed_experts, 1, 16384, KEY_REQUIRED, DECIDES, "N, the FFN experts of a layer"),
    INT(model.zero_expert_num, 0, 8192, KEY_REQUIRED, DECIDES, "Z, identity experts; 0: none"),
    INT(model.moe_topk, 1, 4096, KEY_REQUIRED, DECIDES, "K, experts chosen per token"),
    REAL(model.routed_scaling_factor, POSITIVE, ANY, "1", "gamma: factor on the chosen probabilities"),
    REAL(model.rms_norm_eps, POSITIVE, ANY, "1e-5", ""),
    REAL(model.latent_norm_eps, POSITIVE, ANY, "1e-6", "of the norms inside MLA"),
    REAL(model.rope_theta, 1, ANY, "1e7", "base of the rotary frequencies"),
    BOOL(model.mla_scale_q_lora, "true", DECIDES, "alpha_q = sqrt(H / q_lora_rank), else 1"),
    BOOL(model.mla_scale_kv_lora, "true", DECIDES, "alpha_kv = sqrt(H / kv_lora_rank), else 1"),
    ENUM(model.moe_input, "shortcut|sequential", "shortcut", DECIDES,
         "shortcut: ScMoE; sequential: baseline"),
    BOOL(model.document_mask, "false", DECIDES, "attention and targets stay inside a document"),
    BOOL(model.recompute, "false", FREE, "less memory, more time; the same bits"),

    REAL(init.embedding_std, POSITIVE, ANY, "0.02", "of the initial normal distribution"),
    REAL(init.hidden_std, POSITIVE, ANY, "0.02", ""),
    REAL(init.unembedding_std, POSITIVE, ANY, "0.02", ""),

    REAL(router.expected_ffn_experts, POSITIVE, ANY, KEY_REQUIRED, "K_e, FFN experts expected among the K"),
    INT(router.lb_groups, 1, 1048576, "1", DECIDES, "expert groups of the load-balance loss; divides N"),
    REAL(router.lb_alpha, 0, ANY, "1e-4", "coefficient of the load-balance loss"),
    JOINED_REAL(router.grad_ratio_target, 0, ANY, "0",
                "moves lb_alpha until the largest R_g of a layer is this; 0: lb_alpha stays"),
    FREE_REAL(router.grad_ratio_limit, 0, ANY, "0.1", "a lasting R_g above this is warned of; 0: never"),
    ENUM(router.controller, "pid|sign", "pid", DECIDES,
         "how biases move; sign: by mu, whatever the error's size"),
    REAL(router.bias_rate, 0, ANY, "1e-3", "mu, speed of the bias controller"),
    REAL(router.bias_kp, 0, ANY, "0", "proportional gain"),
    REAL(router.bias_ki, 0, ANY, "1", "integral gain; (0, 1, 0) is the report's rule"),
    REAL(router.bias_kd, 0, ANY, "0", "derivative gain"),
    REAL(router.bias_budget_gain, 1, ANY, "1",
         "factor on the part that all experts' moves share, which keeps K_e; 1: none"),
    REAL(router.bias_clamp, 0, ANY, "0", "no bias beyond +- this; 0: no bound"),
    INT(router.bias_decay_steps, 0, ANY, "0", DECIDES, "cosine of mu to zero; 0: mu is held"),
    INT(router.bias_update_interval, 1, ANY, "1", DECIDES, "steps whose counts make one move"),

    REAL(loss.hidden_z_coef, 0, ANY, "0", "coefficient of the hidden z-loss"),
    REAL(loss.mtp_coef, 0, ANY, "0", "coefficient of the next-but-one token's loss; 0: no MTP head"),
    INT(loss.mtp_start, 0, STEPS, "0", JOINED, "steps before the MTP head joins in"),

    REAL(optim.lr, POSITIVE, ANY, KEY_REQUIRED, "the schedule's highest learning rate"),
    REAL(optim.beta1, 0, KEY_BELOW_ONE, "0.9", ""),
    REAL(optim.beta2, 0, KEY_BELOW_ONE, "0.95", ""),
    REAL(optim.eps, 1e-20, ANY, "1e-16", "outside the square root; what is less, a float moment loses first"),
    REAL(optim.weight_decay, 0, ANY, "0.1", "decoupled, on matrices"),
    REAL(optim.clip, 0, ANY, "1", "global gradient norm; 0: no clipping"),
    ENUM(optim.schedule, "constant|cosine|wsd", "constant", DECIDES, "after the warm-up"),
    INT(optim.schedule_steps, 0, ANY, "0", DECIDES, "horizon of cosine and wsd; train.steps only stops"),
    INT(optim.warmup_steps, 0, STEPS, "0", DECIDES, "linear from lr / warmup_steps"),
    INT(optim.decay_steps, 0, STEPS, "0", DECIDES, "wsd: length of the linear fall at the end"),
    REAL(optim.min_lr_ratio, 0, 1, "0.1", "where cosine and wsd end, as a part of lr"),

    INT(transfer.proxy_width, 0, DIMENSION, "0", DECIDES,
        "hidden size with which init and lr were found; 0: this model's"),

    INT(train.steps, 1, ANY, KEY_REQUIRED, FREE, "where the run stops"),
    INT(train.seed, 0, ANY, "1", DECIDES, ""),
    INT(train.seq_len, 1, POSITIONS, KEY_REQUIRED, DECIDES, "tokens of a sequence"),
    INT(train.micro_batches, 1, 1048576, KEY_REQUIRED, DECIDES, "per step, over all ranks"),
    INT(train.micro_batch_size, 1, 1048576, "1", DECIDES, "sequences of a micro-batch"),
    INT(train.log_every, 1, ANY, "10", FREE, "steps between lines on the console"),
    INT(train.eval_every, 0, ANY, "0", FREE, "steps between validations; 0: none"),
    INT(train.eval_samples, 1, ANY, "16", FREE, "samples of each source in a validation, its first"),
    ENUM(train.on_nonfinite, "stop|skip", "stop", FREE, "when loss or gradient norm is not finite"),

    {"data.tokenizer", KEY_TEXT, FIELD(data.tokenizer), 0, 0, NULL, KEY_REQUIRED, FREE,
     "path of a tokenizer.json"},

    AUTO(parallel.expert_parallel, 1048576, "ranks that share the experts"),
    INT(parallel.expert_replicas, 1, 65536, "1", DECIDES, "copies of the experts that a run may use"),
    BOOL(parallel.rank_invariant, "true", DECIDES, "false: faster, and the number of ranks decides bits"),
    INT(parallel.chunks, 1, COMM_REQUESTS, "2", FREE, "pieces in which tokens travel to the experts"),
    ENUM(parallel.transport, "auto|nccl|host", "auto", FREE,
         "between ranks; auto: shared memory on one host, nccl where each has a GPU of its own; host: MPI"),
    BOOL(parallel.overlap, "true", FREE, "false: every exchange is waited for where it starts"),
    {"parallel.expert_capacity", KEY_REAL, FIELD(parallel.expert_capacity), 0.01, 1e6, NULL, "1.5", FREE,
     "room for received rows, in multiples of the expected load; more goes in further rounds"},
    AUTO(parallel.threads, 4096,
         "per rank; auto: the cores it may run on, shared with the ranks that may run there too, and no more "
         "than a container gives it time for"),

    INT(checkpoint.every, 0, ANY, "0", FREE, "steps between checkpoints; 0: one at the end"),
    INT(checkpoint.keep, 1, ANY, "3", FREE, "the newest so many stay"),
    INT(checkpoint.keep_every, 0, ANY, "0", FREE, "and each at a multiple of so many steps; 0: none"),
    INT(checkpoint.shards, 1, 65536, "4", FREE, "files of a checkpoint"),
    AUTO(checkpoint.threads, 4096,
         "per rank, that compress while training goes on; auto: as parallel.threads"),

    INT(metrics.digest_every, 0, ANY, "100", FREE, "steps between digests of all parameters; 0: never"),
    BOOL(metrics.tensorboard, "false", FREE, "event files for TensorBoard in RUN_DIR/tensorboard"),

    ENUM(spike.on_spike, "off|warn|rollback", "warn", FREE,
         "when loss or gradient norm leaps; rollback: the last checkpoint, without that step's samples"),
    FREE_REAL(spike.loss_factor, 0, ANY, "6",
              "a spike: the LM loss so many deviations above its mean; 0: not watched"),
    FREE_REAL(spike.grad_factor, 0, ANY, "10", "the same of the gradient norm"),
    INT(spike.window, 2, SPIKE_MAX_WINDOW, "50", FREE, "steps whose mean and deviation a step is judged by"),
    INT(spike.max_rollbacks, 0, 1000, "3", FREE, "from the same step; then the run stops"),

    INT(sdc.interval, 0, ANY, "10", FREE,
        "silent data corruption: steps between checks of arithmetic and messages; 0: none, nor of memory"),
    ENUM(sdc.on_corruption, "stop|warn", "stop", FREE, "when such a check fails"),
};
const int config_key_count = sizeof config_keys / sizeof *config_keys;
_Static_assert(sizeof config_keys / sizeof *config_keys <= CONFIG_MAX_KEYS, "raise CONFIG_MAX_KEYS");

#define SOURCE(field) offsetof(data_source, field), sizeof(((data_source *)0)->field)
const config_key config_source_keys[] = {
    {"name", KEY_TEXT, SOURCE(name), 0, 0, NULL, KEY_REQUIRED, DECIDES, ""},
    {"train", KEY_TEXT, SOURCE(train), 0, 0, NULL, KEY_REQUIRED, FREE, ""},
    {"valid", KEY_TEXT, SOURCE(valid), 0, 0, NULL, KEY_NOTHING, FREE, ""},
    {"weight", KEY_REAL, SOURCE(weight), POSITIVE, ANY, NULL, "1", DECIDES, ""},
};
const int config_source_key_count = sizeof config_source_keys / sizeof *config_source_keys;

#define STAGE(field) offsetof(data_stage, field), sizeof(((data_stage *)0)->field)
const config_key config_stage_keys[] = {
    {"after", KEY_INT, STAGE(after), 1, ANY, NULL, KEY_REQUIRED, DECIDES, ""},
    {"ramp", KEY_INT, STAGE(ramp), 0, ANY, NULL, KEY_NOTHING, DECIDES, ""},
    {"seq_len", KEY_INT, STAGE(seq_len), 1, POSITIONS, NULL, KEY_NOTHING, DECIDES, ""},
    {"rope_theta", KEY_REAL, STAGE(rope_theta), 1, ANY, NULL, KEY_NOTHING, DECIDES, ""},
    {"micro_batches", KEY_INT, STAGE(micro_batches), 1, 1048576, NULL, KEY_NOTHING, DECIDES, ""},
    {"micro_batch_size", KEY_INT, STAGE(micro_batch_size), 1, 1048576, NULL, KEY_NOTHING, DECIDES, ""},
};
const int config_stage_key_count = sizeof config_stage_keys / sizeof *config_stage_keys;

int config_key_find(const config_key *keys, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (!strcmp(keys[i].name, name)) return i;
    return -1;
}

static const char *after_section(const char *name) {
    const char *dot = strchr(name, '.');
    return dot ? dot + 1 : name;
}

const char *config_key_nearest(const config_key *keys, int count, const char *name) {
    const char *leaf = after_section(name), *nearest = NULL;
    int best = 2 + (int)(strlen(leaf) / 4);
    for (int i = 0; i < count; i++) {
        int distance = name_distance(keys[i].name, name);
        /* the right key in the wrong section is one slip */
        int elsewhere = 1 + name_distance(after_section(keys[i].name), leaf);
        if (elsewhere < distance) distance = elsewhere;
        if (distance < best) best = distance, nearest = keys[i].name;
    }
    return nearest;
}
