/* `caracal diff`: distances, the first element that differs, sets and shapes, runs' metrics, and refusals. */
#include "tests/ckpt_fixture.h"

#include <float.h>
#include <math.h>

#include "ckpt/compare.h"
#include "train/diff.h"

/* ---- distances ---- */

static uint64_t f32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static uint64_t f64(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static uint64_t apart(int type, uint64_t a, uint64_t b) {
    uint64_t bits[2] = {a, b}, back[2] = {b, a}, d = 77, d_back = 78;
    assert_true(element_distance(type, bits, &d));
    assert_true(element_distance(type, back, &d_back));
    assert_int_equal(d, d_back);
    return d;
}

static void test_distance_counts_steps(void **state) {
    (void)state;
    const float starts[] = {-1.0f, -3 * FLT_MIN, -2e-45f, 0.0f, 1e-45f, FLT_MIN, 0.9999999f, 123456.0f};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        float x = starts[i];
        for (uint64_t k = 0; k < 1000; k++, x = nextafterf(x, INFINITY))
            assert_int_equal(apart(CKPT_F32, f32(starts[i]), f32(x)), k);
    }
    double y = -5e-324;
    for (uint64_t k = 0; k < 5; k++, y = nextafter(y, 1))
        assert_int_equal(apart(CKPT_F64, f64(-5e-324), f64(y)), k);
    assert_int_equal(apart(CKPT_F32, f32(0.0f), f32(-0.0f)), 0);
    assert_int_equal(apart(CKPT_F32, f32(FLT_MAX), f32(INFINITY)), 1);
    assert_int_equal(apart(CKPT_F32, f32(-INFINITY), f32(INFINITY)), 2 * (uint64_t)0x7f800000);
    assert_int_equal(apart(CKPT_F64, f64(-INFINITY), f64(INFINITY)), 2 * (uint64_t)0x7ff0000000000000);
    assert_int_equal(apart(CKPT_I64, (uint64_t)INT64_MIN, (uint64_t)INT64_MAX), UINT64_MAX);
    assert_int_equal(apart(CKPT_I64, (uint64_t)-3, 4), 7);
    uint64_t bits[2] = {f32(NAN), f32(1)}, d;
    assert_false(element_distance(CKPT_F32, bits, &d));
    assert_true(element_is_nan(CKPT_F64, f64(NAN)));
    assert_false(element_is_nan(CKPT_I64, f64(NAN)));
}

static void test_texts_are_exact(void **state) {
    (void)state;
    char text[ELEMENT_TEXT];
    element_text(CKPT_F32, f32(0.1f), text);
    assert_string_equal(text, "0.100000001 = 0x1.99999ap-4 (bits 3dcccccd)");
    element_text(CKPT_F64, f64(-0.1), text);
    assert_string_equal(text, "-0.10000000000000001 = -0x1.999999999999ap-4 (bits bfb999999999999a)");
    element_text(CKPT_I64, (uint64_t)-12, text);
    assert_string_equal(text, "-12");
}

/* ---- the command ---- */

static int diff(fixture *f, const char *a, const char *b) {
    char left[256], right[256], name[] = "diff", *argv[] = {name, left, right, NULL};
    snprintf(left, sizeof left, "%s/%s", f->root, a);
    snprintf(right, sizeof right, "%s/%s", f->root, b);
    divert(f);
    int code = diff_command(3, argv);
    restore(f);
    return code;
}

static void expect(fixture *f, const char *a, const char *b, int code, const char *const *words) {
    int got = diff(f, a, b);
    for (; *words; words++)
        if (got != code || !strstr(f->captured, *words))
            fail_msg("%s %s: exit code %d, wanted %d and \"%s\":\n%s", a, b, got, code, *words, f->captured);
}
#define EXPECT(a, b, code, ...) expect(f, a, b, code, (const char *const[]){__VA_ARGS__, NULL})

/* Saves under ROOT/run/checkpoints. */
static void save_at(fixture *f, const char *run, const content *c, int64_t step, int64_t shards) {
    snprintf(f->path, sizeof f->path, "%s/%s/checkpoints", f->root, run);
    save_well(f, c, step, shards);
}

static void test_first_element(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 3);
    save_at(f, "a", &c, 7, 2);
    save_at(f, "same", &c, 7, 5);
    EXPECT("a/checkpoints/step-00000007", "same/checkpoints/step-00000007", 0,
           "\nlayout          2 files in A, 5 in B\n", "identical in step 7\n", "\nidentical\n");

    /* weights/stack [3][5][300001]: in a late chunk; then further elements behind it, one much farther off */
    uint32_t *stack = c.whole[3].data;
    int64_t at = (2 * 5 + 3) * 300001 + 299000;
    stack[at] ^= 1 << 9;
    save_at(f, "b", &c, 7, 2);
    EXPECT("a/checkpoints/step-00000007", "b/checkpoints/step-00000007", EXIT_DIFFERENT,
           "first tensor    weights/stack, float32 [3, 5, 300001]\n",
           "first element   [2][3][299000] (flat 4199013)\n",
           "    512 ULPs apart; one bit is flipped, number 9\n", "1 of 6 ", "1 of 9011645 ",
           " 512 ULPs, stack [2][3][299000]\n", "adam_m                     0 of 2 ", "\ndifferent\n");
    assert_null(strstr(f->captured, "layout"));

    stack[at + 1] ^= 0x80000000u;
    *(uint32_t *)c.whole[4].data ^= 1;         /* weights/rows: the group's next, and not so far */
    ((double *)c.whole[7].data)[699999] = NAN; /* adam_m/long */
    ((int64_t *)c.whole[11].data)[2] += 5;     /* top, a group of its own */
    save_at(f, "c", &c, 7, 2);
    EXPECT("a/checkpoints", "c/checkpoints", EXIT_DIFFERENT, "(flat 4199013)\n", "3 of 9011645 ",
           " ULPs, stack [2][3][299001]\n", "1 of 700007       1 with NaN\n",
           "1 of 3            5, top [2]\n");
    content_free(&c);
}

/* Everything that two small checkpoints with one element of one tensor can be. */
static void test_odd_values(void **state) {
    fixture *f = *state;
    static const struct {
        uint32_t a, b;
        int code;
        const char *word;
    } cases[] = {
        {0x7fc00000, 0x7fc00000, 0, "identical"}, /* NaN equals itself when the bits do */
        {0x7fc00000, 0x7fc00001, EXIT_DIFFERENT, "NaNs with different bits; one bit is flipped, number 0\n"},
        {0x7fc00000, 0x3f800000, EXIT_DIFFERENT,
         "    A  nan = nan (bits 7fc00000)\n    B  1 = 0x1p+0 (bits 3f800000)\n"
         "    no distance: one is NaN\n"},
        {0x00000000, 0x80000000, EXIT_DIFFERENT,
         "0 ULPs apart: zeros of different sign; one bit is flipped, number 31\n"},
        {0x3f800000, 0x3f800001, EXIT_DIFFERENT, " 1 ULP apart; one bit is flipped, number 0\n"},
        {0x7f7fffff, 0x7f800000, EXIT_DIFFERENT, "    1 ULP apart\n"},
    };
    ckpt_tensor t = {"weights/one", CKPT_F32, 1, {1}};
    content c = content_new(&t, 1, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(c.whole[0].data, &cases[i].a, 4);
        save_at(f, "a", &c, 1, 1);
        memcpy(c.whole[0].data, &cases[i].b, 4);
        save_at(f, "b", &c, 1, 1);
        EXPECT("a/checkpoints", "b/checkpoints", cases[i].code, cases[i].word);
    }
    content_free(&c);
}

static void test_sets_shapes_and_state(void **state) {
    fixture *f = *state;
    ckpt_tensor left[] = {{"weights/x", CKPT_F32, 2, {2, 3}},
                          {"weights/y", CKPT_F32, 1, {4}},
                          {"only/a", CKPT_F32, 1, {1}}},
                right[] = {{"weights/x", CKPT_F32, 2, {3, 2}},
                           {"weights/y", CKPT_F64, 1, {4}},
                           {"only/b", CKPT_F32, 1, {1}}};
    content a = content_new(left, 3, 1), b = content_new(right, 3, 1);
    save_at(f, "a", &a, 1, 1);
    save_at(f, "b", &b, 1, 1);
    EXPECT("a/checkpoints", "b/checkpoints", EXIT_DIFFERENT, "only A has      only/a\n",
           "only B has      only/b\n", "other shape     weights/x: A float32 [2, 3], B float32 [3, 2]\n",
           "other shape     weights/y: A float32 [4], B float64 [4]\n");

    /* a shape alone is a difference, and so is a tensor that one side lacks */
    for (int64_t from = 0; from < 3; from++) {
        content alone = content_new(from < 2 ? &right[from] : left, from < 2 ? 1 : 2, 1),
                whole = content_new(&left[from < 2 ? from : 0], from < 2 ? 1 : 3, 1);
        save_at(f, "x", &alone, 1, 1);
        save_at(f, "y", &whole, 1, 1);
        EXPECT("x/checkpoints", "y/checkpoints", EXIT_DIFFERENT, "\ndifferent\n");
        EXPECT("y/checkpoints", "x/checkpoints", EXIT_DIFFERENT, "\ndifferent\n");
        content_free(&alone);
        content_free(&whole);
    }

    json_t *first =
        json_pack("{s{ssss}ss}", "config", "optim.lr", "1", "train.seed", "2", "tokenizer_digest", "00");
    json_t *second =
        json_pack("{s{ssss}ss}", "config", "optim.lr", "3", "train.seed", "2", "tokenizer_digest", "11");
    error e = {0};
    const char *run[] = {"c", "d"};
    const json_t *about[] = {first, second};
    for (int i = 0; i < 2; i++) {
        snprintf(f->path, sizeof f->path, "%s/%s/checkpoints", f->root, run[i]);
        assert_int_equal(ckpt_save(f->world, f->path, 1, 1, left, 3, a.whole, 3, about[i], &e), 0);
    }
    EXPECT("c/checkpoints", "d/checkpoints", EXIT_DIFFERENT,
           "config          keys that decide numbers differ\n  optim.lr\n    A  1\n    B  3\ncheckpoints ",
           "different in step 1\n  tokenizer_digest\n    A  00\n    B  11\n  all tensors     identical\n");
    json_decref(first);
    json_decref(second);
    content_free(&a);
    content_free(&b);
}

static void test_directories(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    for (int64_t step = 1; step <= 3; step++) save_at(f, "a", &c, step, 2);
    save_at(f, "b", &c, 2, 2);
    save_at(f, "far", &c, 9, 2);
    ((float *)c.whole[0].data)[0] += 1;
    save_at(f, "b", &c, 3, 2);
    EXPECT("a/checkpoints", "b/checkpoints", EXIT_DIFFERENT, "identical in step 2, different in step 3\n");
    EXPECT("a/checkpoints", "b/checkpoints/step-00000002/", 0, "identical in step 2\n");
    EXPECT("a/checkpoints/step-00000001", "a/checkpoints/step-00000002", EXIT_DIFFERENT,
           "A of step 1 and B of step 2 are different\n"); /* nothing else is, in these checkpoints */
    EXPECT("a/checkpoints", "far/checkpoints", EXIT_USAGE, "no checkpoint of the same step",
           "A has           3 checkpoints, of steps 1 to 3\n");
    EXPECT("a", "nowhere", EXIT_USAGE, "nowhere: there is no such directory");
    EXPECT("a/checkpoints", ".", EXIT_USAGE, "is neither a run directory nor a checkpoint");

    snprintf(f->path, sizeof f->path, "%s/b/checkpoints", f->root);
    flip(step_file(f, 2, "shard-00001.h5"), 3000);
    EXPECT("a/checkpoints", "b/checkpoints", EXIT_CORRUPT,
           "b/checkpoints/step-00000002/shard-00001.h5: is damaged");
    assert_null(strstr(f->captured, "identical"));
    assert_int_equal(unlink(step_file(f, 2, "manifest.json")), 0);
    EXPECT("a/checkpoints/step-00000002", "b/checkpoints/step-00000002", EXIT_CORRUPT,
           "it has no manifest.json");
    content_free(&c);
}

/* ---- runs ---- */

static void write_metrics(fixture *f, const char *run, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", f->root, run);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", f->root, run);
    spill(path, text, strlen(text));
}

#define LINE(step, rest) "{\"step\":" #step "," rest "}\n"

static void test_metrics(void **state) {
    fixture *f = *state;
    const char *same = "\"loss\":2.5,\"digests\":{\"weights\":\"ab\",\"adam_m\":\"cd\"}";
    char text[2048];
    snprintf(text, sizeof text, "{\"step\":1,%s}\n{\"step\":2,%s}\n{\"step\":3,\"loss\":1}\n", same, same);
    write_metrics(f, "a", text);
    write_metrics(f, "b", text);
    EXPECT("a", "b", 0, "metrics.jsonl   identical in 3 steps, up to step 3\n",
           "digests of all parameters are equal up to step 2\n", "no step has one in both", "\nidentical\n");

    snprintf(text, sizeof text, "{\"step\":1,\"loss\":2.5}\n{\"step\":2,%s}\n",
             same); /* fewer digests, fewer steps */
    write_metrics(f, "b", text);
    EXPECT("a", "b", EXIT_DIFFERENT, "metrics.jsonl   identical in 2 steps, up to step 2\n",
           "  then only A goes on, to step 3\n", "\ndifferent\n");
    EXPECT("b", "a", EXIT_DIFFERENT, "  then only B goes on, to step 3\n");
    assert_null(strstr(f->captured, "again"));

    /* causes before effects, the lowest layer of the forward pass first, whatever the file's order */
    write_metrics(f, "a",
                  LINE(1, "\"x\":1") LINE(2, "\"loss_hex\":\"0x1p+1\",\"router_similarity\":[1,2,3,4],"
                                             "\"ffn_experts_mean\":[1,2,3,4],\"tokens\":5,\"x\":1"));
    write_metrics(f, "b",
                  LINE(1, "\"x\":1") LINE(2, "\"loss_hex\":\"0x1p+2\",\"router_similarity\":[1,2,3,5],"
                                             "\"ffn_experts_mean\":[1,2.5,3,4],\"tokens\":5,\"y\":1"));
    EXPECT("a", "b", EXIT_DIFFERENT, "identical up to step 1, different in step 2\n",
           "first quantity  ffn_experts_mean, layer 1\n    A  2\n    B  2.5\n",
           "    also loss_hex, router_similarity, x, y\n", "To see every tensor of steps 1 to 2",
           "--resume=none --train.steps=2 ");

    write_metrics(f, "a", LINE(1, "\"router_grad_ratio\":[1,2,3,4],\"loss_hex\":\"0x1p+1\",\"grad_norm\":1"));
    write_metrics(f, "b", LINE(1, "\"router_grad_ratio\":[5,2,6,4],\"loss_hex\":\"0x1p+1\",\"grad_norm\":2"));
    EXPECT("a", "b", EXIT_DIFFERENT, "different in the first step, 1\n",
           "first quantity  router_grad_ratio, layer 2\n");

    write_metrics(f, "a", LINE(1, "\"x\":1,\"loss_hex\":\"0x1p+1\""));
    write_metrics(f, "b", LINE(1, "\"x\":2,\"loss_hex\":\"0x1.8p+1\""));
    EXPECT("a", "b", EXIT_DIFFERENT,
           "first quantity  loss_hex\n    A  0x1p+1 = 2\n    B  0x1.8p+1 = 3\n    also x\n");

    write_metrics(f, "a", LINE(1, "\"new\":1"));
    write_metrics(f, "b", LINE(1, "\"loss\":null"));
    EXPECT("a", "b", EXIT_DIFFERENT, "first quantity  loss\n    A  not there\n    B  null\n    also new\n");

    /* numbers that agree while the parameters do not; a digest that one side lacks says nothing */
    write_metrics(f, "a",
                  LINE(1, "\"digests\":{\"weights\":\"00\",\"adam_m\":\"1\",\"weights_of\":{\"head\":\"00\","
                          "\"layer 0\":\"02\"}}") LINE(2, "\"loss\":1"));
    write_metrics(f, "b",
                  LINE(1, "\"digests\":{\"weights\":\"01\",\"adam_m\":\"1\",\"weights_of\":{\"head\":\"00\","
                          "\"layer 0\":\"03\"}}") LINE(2, "\"loss\":1"));
    write_metrics(f, "c", LINE(1, "\"digests\":{\"weights\":\"01\"}") LINE(2, "\"loss\":1"));
    EXPECT("b", "c", 0, "digests of all parameters are equal up to step 1\n");
    EXPECT("a", "b", EXIT_DIFFERENT, "first quantity  digests\n",
           "digests of all parameters differ in step 1: weights, weights_of layer 0\n");

    write_metrics(f, "a", LINE(1, "\"loss\":1") "{\"step\":2,\"lo\n" LINE(3, "\"loss\":1") "{\"st");
    write_metrics(f, "b",
                  LINE(1, "\"loss\":1") LINE(2, "\"loss\":1") LINE(3, "\"loss\":1") LINE(4, "\"loss\":1"));
    EXPECT("a", "b", EXIT_DIFFERENT, "identical in 2 steps, up to step 3\n",
           "A has           1 lines that cannot be read\n", "only B has      2 steps, the first is 2\n");

    write_metrics(f, "a", "");
    write_metrics(f, "b", "");
    EXPECT("a", "b", EXIT_USAGE, "have no step and no checkpoint to compare");
}

/* A run whose metrics part at one step and whose checkpoints at another. */
static void test_run(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    write_metrics(f, "a", LINE(5, "\"loss\":1") LINE(6, "\"loss\":1") LINE(7, "\"loss\":1"));
    write_metrics(f, "b", LINE(5, "\"loss\":1") LINE(6, "\"loss\":2") LINE(7, "\"loss\":1"));
    save_at(f, "a", &c, 4, 2);
    save_at(f, "b", &c, 4, 2);
    save_at(f, "a", &c, 7, 2);
    ((float *)c.whole[0].data)[0] += 1;
    save_at(f, "b", &c, 7, 2);
    EXPECT("a/", "b", EXIT_DIFFERENT,
           "config          not compared: ", "identical up to step 5, different in step 6\n",
           "identical in step 4, different in step 7\n", "\nTo see every tensor of steps 5 to 6, run",
           "/a/config.yaml --run.dir=", "/a-again --resume=",
           "/a/checkpoints/step-00000004 --train.steps=6 --checkpoint.every=1 --checkpoint.keep=2\n",
           "caracal diff ");
    /* a checkpoint that shows it already needs no rerun */
    save_at(f, "b", &c, 5, 2);
    ((float *)c.whole[0].data)[0] -= 1;
    save_at(f, "a", &c, 5, 2);
    EXPECT("a", "b", EXIT_DIFFERENT, "identical in step 4, different in step 5\n");
    assert_null(strstr(f->captured, "again"));
    content_free(&c);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distance_counts_steps),
        cmocka_unit_test(test_texts_are_exact),
        TEST(first_element),
        TEST(odd_values),
        TEST(sets_shapes_and_state),
        TEST(directories),
        TEST(metrics),
        TEST(run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
