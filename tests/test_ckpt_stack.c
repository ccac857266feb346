/* Growth: the files of a stacked checkpoint are those that saving the stacked tensors by hand gives. */
#include "tests/ckpt_fixture.h"

enum { LAYERS = 3, MOST = 80 };

typedef struct list {
    ckpt_tensor tensor[MOST];
    ckpt_slice slice[MOST];
    char name[MOST][64];
    int64_t n;
} list;

/* `from`: whose values the tensor has. */
static void put(list *l, const char *format, int layer, int from, int type, int64_t rows, int64_t cols) {
    char source[64];
    int64_t i = l->n++;
    assert_true(i < MOST);
    snprintf(l->name[i], sizeof l->name[i], format, from);
    strcpy(source, l->name[i]);
    l->tensor[i] = (ckpt_tensor){source, type, 2, {rows, cols}};
    int64_t count = rows * cols;
    l->slice[i] = (ckpt_slice){i, 0, count, mem_alloc((size_t)count * ckpt_type_size(type), "a tensor")};
    fill(l->slice[i].data, &l->tensor[i], 11);
    snprintf(l->name[i], sizeof l->name[i], format, layer);
    l->tensor[i].name = l->name[i];
}

/* A model's tensors in the order of a training run; layer l has the values of layer l mod LAYERS. */
static list *model(int layers) {
    list *l = mem_alloc(sizeof *l, "a list");
    put(l, "weights/model.embed_tokens.weight", 0, 0, CKPT_F32, 31, 20);
    put(l, "adam_m/model.embed_tokens.weight", 0, 0, CKPT_F32, 31, 20);
    for (int k = 0; k < layers; k++) {
        put(l, "weights/model.layers.%d.mlps.0.up_proj.weight", k, k % LAYERS, CKPT_F32, 17, 20);
        put(l, "adam_v/model.layers.%d.mlps.0.up_proj.weight", k, k % LAYERS, CKPT_F32, 17, 20);
        /* several chunks, and a number after the layer's own */
        put(l, "weights/model.layers.%d.mlp.experts.1.weight", k, k % LAYERS, CKPT_F32, 3, 700001);
    }
    put(l, "weights/model.norm.weight", 0, 0, CKPT_F32, 1, 20);
    put(l, "weights/model.mtp.layers.0.eh_proj.weight", 0, 0, CKPT_F32, 20, 40);
    for (int k = 0; k < layers; k++) {
        put(l, "weights/model.layers.%d.bias", k, k % LAYERS, CKPT_F32, 1, 12);
        put(l, "controller_e1/model.layers.%d.bias", k, k % LAYERS, CKPT_F64, 1, 8);
        put(l, "controller_waiting/model.layers.%d.bias", k, k % LAYERS, CKPT_I64, 1, 8);
    }
    return l;
}

static void list_free(list *l) {
    for (int64_t i = 0; i < l->n; i++) mem_free(l->slice[i].data);
    mem_free(l);
}

static void save_list(fixture *f, const list *l, const char *directory, int64_t step, int64_t shards,
                      const char *about) {
    error e = {0};
    json_t *state = json_pack("{ss}", "about", about);
    if (ckpt_save(f->world, directory, step, shards, l->tensor, l->n, l->slice, l->n, state, &e))
        fail_msg("%s", e.text);
    json_decref(state);
}

static int stack(fixture *f, const char *from, const char *to, int64_t times, int64_t shards, error *e) {
    ckpt *k = NULL;
    json_t *state = json_pack("{ss}", "about", "grown");
    if (ckpt_open(f->world, from, &k, e)) fail_msg("%s", e->text);
    assert_int_equal(ckpt_layers(k), LAYERS);
    int code = ckpt_stack(k, to, times, shards, state, e);
    ckpt_close(k);
    json_decref(state);
    return code;
}

static void test_stacked(void **state) {
    fixture *f = *state;
    list *small = model(LAYERS);
    save_list(f, small, f->path, 40, 2, "small");
    for (int times = 2; times <= 4; times++) {
        list *large = model(LAYERS * times);
        char wanted[128], grown[128], a[256], b[256];
        error e = {0};
        snprintf(wanted, sizeof wanted, "%s/wanted-%d", f->root, times);
        snprintf(grown, sizeof grown, "%s/grown-%d", f->root, times);
        save_list(f, large, wanted, 40, 3, "grown");
        if (stack(f, step_file(f, 40, ""), grown, times, 3, &e)) fail_msg("%s", e.text);
        static const char *const file[] = {"shard-00000.h5", "shard-00001.h5", "shard-00002.h5",
                                           "manifest.json"};
        for (int i = 0; i < 4; i++) {
            snprintf(a, sizeof a, "%s/step-00000040/%s", wanted, file[i]);
            snprintf(b, sizeof b, "%s/step-00000040/%s", grown, file[i]);
            assert_same_file(a, b);
        }
        list_free(large);
    }
    list_free(small);
}

static void test_refusals(void **state) {
    fixture *f = *state;
    list *small = model(LAYERS);
    content none = few_new(1);
    char to[128], path[256];
    error e = {0};
    size_t bytes, after;
    ckpt *k = NULL;
    save_list(f, small, f->path, 40, 2, "small");
    save_well(f, &none, 50, 1);
    snprintf(to, sizeof to, "%s/grown", f->root);
    snprintf(path, sizeof path, "%s/step-00000040/manifest.json", to);
    assert_int_equal(stack(f, step_file(f, 40, ""), to, 2, 1, &e), 0);

    char *before = slurp(path, &bytes); /* nothing is replaced */
    assert_int_equal(stack(f, step_file(f, 40, ""), to, 3, 1, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "step-00000040 is there already"));
    char *still = slurp(path, &after);
    assert_int_equal(bytes, after);
    assert_memory_equal(before, still, bytes);
    mem_free(before);
    mem_free(still);

    assert_int_equal(ckpt_open(f->world, step_file(f, 50, ""), &k, &e), 0);
    assert_int_equal(ckpt_stack(k, to, 2, 1, ckpt_state(k), &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "no layers"));
    ckpt_close(k);

    /* a file that cannot be read halfway: nothing new is there, and nothing is left */
    assert_int_equal(ckpt_open(f->world, step_file(f, 40, ""), &k, &e), 0);
    assert_int_equal(truncate(step_file(f, 40, "shard-00001.h5"), 3000), 0);
    snprintf(to, sizeof to, "%s/again", f->root);
    assert_int_not_equal(ckpt_stack(k, to, 2, 2, ckpt_state(k), &e), 0);
    assert_non_null(strstr(e.text, "shard-00001.h5"));
    assert_int_equal(rmdir(to), 0);
    ckpt_close(k);
    list_free(small);
    content_free(&none);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(stacked), TEST(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
