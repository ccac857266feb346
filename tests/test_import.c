/* caracal import: what others wrote is read bit for bit, in every layout, and what is wrong is named, with
 * nothing left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckpt/ckpt.h"
#include "ckpt/weights.h"
#include "launch/memory.h"
#include "launch/random.h"
#include "model/params.h"
#include "train/import.h"

#define GOLDEN "tests/golden/tokenizer/tokenizer.json"

static const model_config small = {.vocab_size = 700,
                                   .hidden_size = 6,
                                   .num_layers = 2,
                                   .num_attention_heads = 2,
                                   .q_lora_rank = 4,
                                   .kv_lora_rank = 3,
                                   .qk_nope_head_dim = 2,
                                   .qk_rope_head_dim = 2,
                                   .v_head_dim = 3,
                                   .ffn_hidden_size = 5,
                                   .expert_ffn_hidden_size = 4,
                                   .n_routed_experts = 3,
                                   .zero_expert_num = 2,
                                   .moe_topk = 2};

static const char config_json[] =
    "{\"architectures\": [\"LongcatFlashForCausalLM\"], \"model_type\": \"longcat_flash\", \"vocab_size\": "
    "700,\n"
    "\"hidden_size\": 6, \"num_layers\": 2, \"num_attention_heads\": 2, \"q_lora_rank\": 4, "
    "\"kv_lora_rank\": 3,\n"
    "\"qk_nope_head_dim\": 2, \"qk_rope_head_dim\": 2, \"v_head_dim\": 3, \"ffn_hidden_size\": 5,\n"
    "\"expert_ffn_hidden_size\": 4, \"n_routed_experts\": 3, \"zero_expert_num\": 2, \"moe_topk\": 2,\n"
    "\"routed_scaling_factor\": 1.5, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, \"head_dim\": 2,\n"
    "\"max_position_embeddings\": 64, \"num_hidden_layers\": 4, \"transformers_version\": \"4.57.6\"}\n";

typedef struct fixture {
    char root[64], from[96], to[96], log[96];
    char captured[8192];
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    strcpy(f->root, "/tmp/caracal-import-XXXXXX");
    if (!mkdtemp(f->root)) return -1;
    snprintf(f->from, sizeof f->from, "%s/hf", f->root);
    snprintf(f->to, sizeof f->to, "%s/run", f->root);
    snprintf(f->log, sizeof f->log, "%s/log", f->root);
    *state = f;
    return mkdir(f->from, 0777);
}

static int remove_entry(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s, (void)type, (void)at;
    return remove(path);
}

static int teardown(void **state) {
    fixture *f = *state;
    nftw(f->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

static void write_text(const fixture *f, const char *name, const char *text) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", f->from, name);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
}

__attribute__((format(printf, 1, 2))) static void shell(const char *format, ...) {
    char command[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    assert_int_equal(system(command), 0);
}

/* ---- files of others ---- */

static float value(const char *name, int64_t i) {
    uint32_t bits =
        ((uint32_t)random_bits(9, random_stream(name), (uint64_t)i) & 0xbfffffff) | 1 << 29; /* normal */
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

typedef struct tensors {
    safetensor_spec spec[256];
    float *values[256];
    int n;
} tensors;

static int64_t elements(const safetensor_spec *s) {
    int64_t n = 1;
    for (int k = 0; k < s->rank; k++) n *= s->shape[k];
    return n;
}

static int add(tensors *t, const char *name, int rank, int64_t a, int64_t b, int64_t c) {
    int i = t->n++;
    t->spec[i] = (safetensor_spec){mem_string(name), "F32", rank, {a, b, c}};
    t->values[i] = mem_alloc((size_t)elements(&t->spec[i]) * sizeof(float), "values");
    for (int64_t k = 0; k < elements(&t->spec[i]); k++) t->values[i][k] = value(name, k);
    return i;
}

static int find(const tensors *t, const char *name) {
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->spec[i].name, name)) return i;
    fail_msg("%s: no such tensor", name);
    return -1;
}

static void drop(tensors *t, int i) {
    mem_free((char *)t->spec[i].name);
    mem_free(t->values[i]);
    t->spec[i] = t->spec[--t->n];
    t->values[i] = t->values[t->n];
}

static void free_all(tensors *t) {
    while (t->n) drop(t, 0);
}

/* The model under the published names. */
static tensors published(int mtp) {
    tensors t = {.n = 0};
    params p;
    params_create(&p, &small, mtp, 1, 0);
    for (int64_t i = 0; i < p.n; i++)
        add(&t, p.param[i].name, p.param[i].rank, p.param[i].shape[0], p.param[i].shape[1], 0);
    add(&t, "model.layers.0.mlp.router.e_score_correction_bias", 1, 5, 0, 0);
    add(&t, "model.layers.1.mlp.router.e_score_correction_bias", 1, 5, 0, 0);
    params_free(&p);
    return t;
}

/* Its experts in one tensor a layer, with rows for `experts` of them. */
static void fuse(tensors *t, int64_t experts) {
    for (int layer = 0; layer < 2; layer++) {
        char name[128];
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.gate_up_proj", layer);
        int both = add(t, name, 3, experts, 8, 6);
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.down_proj", layer);
        int down = add(t, name, 3, 3, 6, 4);
        float *part[3] = {t->values[both], t->values[both] + 24, t->values[down]};
        for (int e = 0; e < 3; e++)
            for (int k = 0; k < 3; k++) {
                static const char *const what[] = {"gate", "up", "down"};
                snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s_proj.weight", layer, e,
                         what[k]);
                memcpy(part[k] + e * (k < 2 ? 48 : 24), t->values[find(t, name)], 24 * sizeof(float));
            }
    }
    for (int i = 0; i < t->n;)
        if (strstr(t->spec[i].name, "mlp.experts.") && strstr(t->spec[i].name, ".weight")) drop(t, i);
        else i++;
}

static void write_model(const fixture *f, const tensors *t, int64_t max_bytes) {
    error e = {0};
    weights_writer *w;
    shell("rm -f %s/model*; cp " GOLDEN " %s/tokenizer.json", f->from, f->from);
    if (weights_create(&w, f->from, t->spec, t->n, max_bytes, &e)) fail_msg("%s", e.text);
    for (int i = 0; i < t->n; i++)
        if (weights_append(w, t->values[i], elements(&t->spec[i]), &e)) fail_msg("%s", e.text);
    if (weights_finish(w, 0, &e)) fail_msg("%s", e.text);
}

/* ---- the command ---- */

static int run_import(fixture *f, const char *first, const char *second) {
    char name[] = "import", *argv[] = {name, f->from, f->to, (char *)first, (char *)second, NULL};
    int kept[2] = {dup(1), dup(2)}, fd = open(f->log, O_RDWR | O_CREAT | O_TRUNC, 0666);
    fflush(NULL);
    dup2(fd, 1);
    dup2(fd, 2);
    int code = import_command(3 + !!first + !!second, argv);
    fflush(NULL);
    lseek(fd, 0, SEEK_SET);
    ssize_t n = read(fd, f->captured, sizeof f->captured - 1);
    f->captured[n > 0 ? n : 0] = 0;
    close(fd);
    for (int i = 0; i < 2; i++) {
        dup2(kept[i], i + 1);
        close(kept[i]);
    }
    return code;
}

static int there(const fixture *f, const char *suffix) {
    char path[160];
    snprintf(path, sizeof path, "%s%s", f->to, suffix);
    return access(path, F_OK) == 0;
}

/* It is refused with these words, and nothing is left. */
static void refuses(fixture *f, int wanted, const char *words, const char *first, const char *second) {
    int code = run_import(f, first, second);
    if (code != wanted || !strstr(f->captured, words))
        fail_msg("gave %d: %s\n  wanted %d: %s", code, f->captured, wanted, words);
    assert_false(there(f, ""));
    assert_false(there(f, ".tmp"));
}

/* The checkpoint has the published values under their names, and zeros elsewhere. */
static void check_run(fixture *f, int mtp, int rounded) {
    comm *world;
    ckpt *k;
    error e = {0};
    char path[160];
    const ckpt_tensor *tensor;
    int64_t weights = 0;
    snprintf(path, sizeof path, "%s/checkpoints/step-00000000", f->to);
    assert_int_equal(comm_open(&world, 60, &e), 0);
    if (ckpt_open(world, path, &k, &e)) fail_msg("%s", e.text);
    int64_t n = ckpt_tensors(k, &tensor);
    for (int64_t i = 0; i < n; i++) {
        ckpt_slice s = {i, 0, 1, NULL};
        for (int d = 0; d < tensor[i].rank; d++) s.count *= tensor[i].shape[d];
        s.data = mem_alloc((size_t)s.count * 8, "values");
        if (ckpt_read(k, &s, 1, &e)) fail_msg("%s", e.text);
        int is_weight = !strncmp(tensor[i].name, "weights/", 8);
        weights += is_weight;
        for (int64_t j = 0; j < s.count; j++) {
            if (!is_weight) {
                if (((float *)s.data)[j] != 0) fail_msg("%s is not zero", tensor[i].name);
                continue;
            }
            float want = value(tensor[i].name + 8, j), got = ((float *)s.data)[j];
            if (rounded ? fabsf(want - got) > fabsf(want) / 256 : memcmp(&want, &got, 4))
                fail_msg("%s[%lld]: %a, not %a", tensor[i].name, (long long)j, (double)got, (double)want);
        }
        mem_free(s.data);
    }
    tensors t = published(mtp);
    assert_int_equal(weights, t.n);
    free_all(&t);
    assert_true(json_integer_value(json_object_get(ckpt_state(k), "step")) == 0);
    ckpt_close(k);
    comm_close(world);
    assert_true(there(f, "/config.yaml") && there(f, "/tokenizer.json"));
    shell("rm -r %s", f->to);
}

static void imports(fixture *f, const tensors *t, int64_t max_bytes, int mtp, int rounded) {
    write_model(f, t, max_bytes);
    if (run_import(f, NULL, NULL)) fail_msg("%s", f->captured);
    check_run(f, mtp, rounded);
}

static void test_layouts(void **state) {
    fixture *f = *state;
    write_text(f, "config.json", config_json);
    for (int mtp = 0; mtp < 2; mtp++) {
        tensors t = published(mtp);
        imports(f, &t, INT64_MAX, mtp, 0);
        imports(f, &t, 2000, mtp, 0);                                         /* sharded */
        add(&t, "model.layers.1.mlp.experts.3.gate_proj.weight", 2, 4, 6, 0); /* of an identity expert */
        add(&t, "model.layers.0.self_attn.1.rotary_emb.inv_freq", 1, 1, 0, 0);
        imports(f, &t, INT64_MAX, mtp, 0);
        for (int i = 0; i < t.n; i++) t.spec[i].dtype = "BF16";
        imports(f, &t, INT64_MAX, mtp, 1);
        free_all(&t);
        t = published(mtp);
        fuse(&t, mtp ? 5 : 3); /* N + Z rows, or N */
        imports(f, &t, INT64_MAX, mtp, 0);
        free_all(&t);
    }
}

static void test_embedding_of_the_mtp_head(void **state) {
    fixture *f = *state;
    write_text(f, "config.json", config_json);
    tensors t = published(1);
    int copy = add(&t, "model.mtp.embed_tokens.weight", 2, 700, 6, 0);
    memcpy(t.values[copy], t.values[find(&t, "model.embed_tokens.weight")], 700 * 6 * sizeof(float));
    imports(f, &t, INT64_MAX, 1, 0);
    assert_null(strstr(f->captured, "not equal"));
    t.values[copy][4199] += 1;
    imports(f, &t, INT64_MAX, 1, 0);
    assert_non_null(strstr(f->captured, "model.mtp.embed_tokens.weight is not equal"));
    free_all(&t);
}

static void test_wrong_tensors(void **state) {
    fixture *f = *state;
    write_text(f, "config.json", config_json);
    const char *gate = "model.layers.1.mlp.experts.2.gate_proj.weight";
    tensors t = published(1);
    drop(&t, find(&t, gate));
    write_model(f, &t, INT64_MAX);
    refuses(f, EXIT_CORRUPT, "model.layers.1.mlp.experts.2.gate_proj.weight is missing", NULL, NULL);
    int i = add(&t, gate, 2, 6, 4, 0);
    write_model(f, &t, INT64_MAX);
    refuses(f, EXIT_CORRUPT, "gate_proj.weight has the shape [6, 4]; config.json makes it", NULL, NULL);
    drop(&t, i);
    i = add(&t, gate, 3, 4, 6, 2);
    write_model(f, &t, INT64_MAX);
    refuses(f, EXIT_CORRUPT, "has the shape [4, 6, 2]; config.json makes it [4, 6]", NULL, NULL);
    drop(&t, i);
    add(&t, gate, 2, 4, 6, 0);
    i = add(&t, "model.layers.1.mlp.experts.5.gate_proj.weight", 2, 4, 6, 0);
    write_model(f, &t, INT64_MAX);
    refuses(f, EXIT_CORRUPT, "experts.5.gate_proj.weight is no tensor of the model", NULL, NULL);
    drop(&t, i);
    i = add(&t, "model.layers.1.mlp.router.classifier.bias", 1, 5, 0, 0);
    write_model(f, &t, INT64_MAX);
    refuses(f, EXIT_CORRUPT, "classifier.bias is no tensor of the model", NULL, NULL);
    drop(&t, i);
    t.values[7][3] = NAN;
    write_model(f, &t, INT64_MAX);
    refuses(f, EXIT_CORRUPT, ": element 3 is nan", NULL, NULL);
    assert_non_null(strstr(f->captured, f->from));
    t.values[7][3] = value(t.spec[7].name, 3);
    drop(&t, find(&t, "model.mtp.norm.weight"));
    write_model(f, &t, INT64_MAX);
    refuses(f, EXIT_CORRUPT, "model.mtp.norm.weight is missing", NULL, NULL);
    assert_int_equal(run_import(f, "--loss.mtp_coef=0", NULL), 0); /* the head may be left out */
    assert_non_null(strstr(f->captured, "its MTP head is left out"));
    check_run(f, 0, 0);
    free_all(&t);

    t = published(0);
    fuse(&t, 4);
    write_model(f, &t, INT64_MAX);
    refuses(f, EXIT_CORRUPT, "gate_up_proj has the shape [4, 8, 6]; config.json makes", NULL, NULL);
    refuses(f, EXIT_USAGE, "has no MTP head, and the config wants one", "--loss.mtp_coef=0.3", NULL);
    free_all(&t);
}

/* config.json with one place changed. */
static void edited(fixture *f, const char *from, const char *to) {
    char text[2048];
    const char *at = strstr(config_json, from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - config_json), config_json, to, at + strlen(from));
    write_text(f, "config.json", text);
}

static void test_wrong_config(void **state) {
    fixture *f = *state;
    static const struct {
        const char *from, *to, *words;
        int code;
    } bad[] = {
        {"\"hidden_size\": 6, ", "", "config.json: hidden_size is missing", EXIT_CORRUPT},
        {"\"hidden_size\": 6", "\"hidden_size\": \"6\"", "model.hidden_size = \"6\": must be an integer",
         EXIT_USAGE},
        {"\"hidden_size\": 6", "\"hidden_size\": 0", "config.json: model.hidden_size = 0: must be",
         EXIT_USAGE},
        {"\"hidden_size\": 6", "\"hidden_size\": 6, \"hidden_size\": 7", "duplicate", EXIT_CORRUPT},
        {"\"hidden_size\": 6", "\"hidden_size\": 8", "has the shape [700, 6]; config.json makes it [700, 8]",
         EXIT_CORRUPT},
        {"\"num_layers\": 2", "\"num_layers\": 3", "model.layers.2.input_layernorm.0.weight is missing",
         EXIT_CORRUPT},
        {"\"num_layers\": 2", "\"num_layers\": 1", "is no tensor of the model that config.json describes",
         EXIT_CORRUPT},
        {"\"moe_topk\": 2", "\"moe_topk\": 6", "model.moe_topk = 6: must be at most", EXIT_USAGE},
        {"\"moe_topk\": 2", "\"moe_topk\": 2, \"num_experts_per_tok\": 3",
         "moe_topk and num_experts_per_tok contradict one another", EXIT_CORRUPT},
        {"\"head_dim\": 2", "\"head_dim\": 64", "head_dim is 64, but qk_rope_head_dim makes it 2",
         EXIT_CORRUPT},
        {"\"head_dim\": 2", "\"qk_head_dim\": 5", "qk_nope_head_dim + qk_rope_head_dim make it 4",
         EXIT_CORRUPT},
        {"\"head_dim\": 2", "\"num_key_value_heads\": 1", "num_attention_heads makes it 2", EXIT_CORRUPT},
        {"\"head_dim\": 2", "\"tie_word_embeddings\": true", "tie_word_embeddings is true; only false",
         EXIT_CORRUPT},
        {"\"head_dim\": 2", "\"zero_expert_type\": \"zero\"", "only \"identity\" is supported", EXIT_CORRUPT},
        {"\"head_dim\": 2", "\"rope_scaling\": {\"type\": \"yarn\"}", "rope_scaling is {\"type\":\"yarn\"}",
         EXIT_CORRUPT},
        {"\"head_dim\": 2", "\"rope_parameters\": {\"rope_type\": \"yarn\"}", "rope_parameters.rope_type",
         EXIT_CORRUPT},
        {"\"head_dim\": 2", "\"rope_parameters\": {\"rope_theta\": 5}", "contradict one another",
         EXIT_CORRUPT},
        {"longcat_flash\"", "deepseek_v3\"", "model_type is \"deepseek_v3\"", EXIT_CORRUPT},
        {"\"vocab_size\": 700", "\"vocab_size\": 600", "has 640 tokens, but vocab_size is 600", EXIT_CORRUPT},
        {"{\"arch", "\"arch", "config.json, line 1: not JSON", EXIT_CORRUPT},
    };
    tensors t = published(0);
    write_model(f, &t, INT64_MAX);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        edited(f, bad[i].from, bad[i].to);
        refuses(f, bad[i].code, bad[i].words, NULL, NULL);
    }
    edited(f, "\"rope_theta\": 10000.0",
           "\"rope_parameters\": {\"rope_theta\": 10000.0, \"rope_type\": \"default\"}");
    imports(f, &t, INT64_MAX, 0, 0);
    edited(f, "\"head_dim\": 2", "\"head_dim\": 2, \"something_else\": {\"of\": [\"others\"]}");
    imports(f, &t, INT64_MAX, 0, 0);
    free_all(&t);
}

/* With a config of the user's, and without a tokenizer. */
static void test_config_of_the_user(void **state) {
    fixture *f = *state;
    char path[96], option[128], tokenizer[128];
    write_text(f, "config.json", config_json);
    tensors t = published(0);
    write_model(f, &t, INT64_MAX);
    assert_int_equal(run_import(f, NULL, NULL), 0);
    snprintf(path, sizeof path, "%s/mine.yaml", f->root);
    snprintf(option, sizeof option, "--config=%s", path);
    shell("sed 's|%s/tok|%s/tok|; s|lr: .*|lr: 0.5|' %s/config.yaml > %s", f->to, f->from, f->to, path);
    check_run(f, 0, 0);

    assert_int_equal(run_import(f, option, NULL), 0);
    shell("grep -q 'lr: 0.5' %s/config.yaml && grep -q 'dir: %s ' %s/config.yaml", f->to, f->to, f->to);
    assert_int_equal(run_import(f, option, NULL), EXIT_USAGE);
    assert_non_null(strstr(f->captured, "exists already"));
    shell("rm -r %s", f->to);

    refuses(f, EXIT_USAGE, "model.routed_scaling_factor = 2, but", option, "--model.routed_scaling_factor=2");
    shell("mv %s/tokenizer.json %s/other.json", f->from, f->root);
    refuses(f, EXIT_USAGE, "tokenizer.json: is not there; --data.tokenizer=FILE names one", NULL, NULL);
    shell("sed 's/\"!\": 34,/\"!\": 35,/; s/\"\\\\\"\": 35/\"\\\\\"\": 34/' " GOLDEN " > %s/tokenizer.json",
          f->from);
    snprintf(tokenizer, sizeof tokenizer, "--data.tokenizer=%s/other.json", f->root);
    refuses(f, EXIT_USAGE, "give texts other ids", option, tokenizer);
    free_all(&t);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(layouts),      TEST(embedding_of_the_mtp_head), TEST(wrong_tensors),
        TEST(wrong_config), TEST(config_of_the_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
