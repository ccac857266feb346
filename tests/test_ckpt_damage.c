/* Damage to a checkpoint is seen before anything is used, and named: file, dataset and chunk. */
#include "tests/ckpt_fixture.h"

/* HDF5 1.10 loses the memory of an object header that it cannot decode.  Read by LeakSanitizer, of this
 * program alone. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5";
}

#include <hdf5.h>
#include <xxhash.h>

/* Every bit of every file counts, and every file's length. */
static void test_damage(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    static const char *const names[] = {"manifest.json", "shard-00000.h5", "shard-00001.h5"};
    save_well(f, &c, 5, 2);
    for (uint64_t i = 0; i < 330; i++) {
        const char *name = names[i % 3], *path = step_file(f, 5, name);
        size_t bytes;
        char *good = slurp(path, &bytes), *bad = mem_alloc(bytes, "a damaged file");
        size_t at = random_bits(4, 0, i) % bytes, length = bytes;
        memcpy(bad, good, bytes);
        if (i < 300) bad[at] = (char)(bad[at] ^ 1 << (i / 3 % 8));
        else length = i < 303 ? 0 : i < 306 ? bytes - 1 : at; /* truncated */
        spill(path, bad, length);

        error e = {0};
        ckpt *k = NULL;
        assert_int_equal(ckpt_open(f->world, step_file(f, 5, ""), &k, &e), EXIT_CORRUPT);
        assert_null(k);
        if (!strstr(e.text, name)) fail_msg("%s is damaged, and the message is: %s", name, e.text);
        spill(path, good, bytes);
        mem_free(good);
        mem_free(bad);
    }
    assert_int_equal(unlink(step_file(f, 5, "shard-00001.h5")), 0);
    error e = {0};
    ckpt *k = NULL;
    assert_int_equal(ckpt_open(f->world, step_file(f, 5, ""), &k, &e), EXIT_IO);
    assert_non_null(strstr(e.text, "shard-00001.h5"));
    content_free(&c);
}

/* Where chunk `index` of a dataset lies in its file. */
static int64_t chunk_address(const char *path, const ckpt_tensor *t, int64_t index) {
    hsize_t corner[4], size;
    haddr_t address;
    unsigned mask;
    chunk_grid g = chunk_grid_of(t);
    chunk_span s = chunk_at(t, &g, index);
    for (int i = 0; i < 4; i++) corner[i] = (hsize_t)s.corner[i];
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), set = H5Dopen2(file, t->name, H5P_DEFAULT);
    assert_true(H5Dget_chunk_info_by_coord(set, corner, &mask, &address, &size) >= 0);
    H5Dclose(set);
    H5Fclose(file);
    return (int64_t)address + (int64_t)size / 2;
}

/* `caracal verify` names file, dataset and chunk. */
static void test_verify_names_the_chunk(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 3);
    error e = {0};
    char *argv[] = {"verify", step_file(f, 8, ""), NULL}, *path = step_file(f, 8, "shard-00000.h5");
    save_well(f, &c, 8, 2);
    int64_t at = chunk_address(path, &many[3], 4); /* weights/stack */
    flip(path, at);
    divert(f);
    int code = ckpt_verify_command(2, argv);
    restore(f);
    assert_int_equal(code, EXIT_CORRUPT);
    assert_non_null(strstr(f->captured, "damaged  shard-00000.h5"));
    assert_non_null(strstr(f->captured, "ok       shard-00001.h5"));
    assert_non_null(strstr(
        f->captured,
        "shard-00000.h5: is damaged: its digest is not the manifest's: dataset /weights/stack, chunk 4 of"));

    flip(path, at); /* whole again */
    divert(f);
    code = ckpt_verify_command(2, argv);
    code += ckpt_inspect_command(2, argv);
    restore(f);
    assert_int_equal(code, 0);
    assert_non_null(strstr(f->captured, "step 8 verifies: 12 tensors in 2 files"));
    assert_non_null(strstr(f->captured, "weights/model.embed_tokens.weight"));
    assert_non_null(strstr(f->captured, "1152921504606846976")); /* the state */
    assert_null(strstr(f->captured, "caracal:"));

    /* damage that appears after opening is still seen, by the chunk's checksum */
    ckpt *k = NULL;
    assert_int_equal(ckpt_open(f->world, step_file(f, 8, ""), &k, &e), 0);
    flip(path, at = chunk_address(path, &many[3], 2));
    ckpt_slice s = c.whole[3];
    s.data = mem_alloc((size_t)s.count * 4, "a tensor");
    assert_int_equal(ckpt_read(k, &s, 1, &e), EXIT_CORRUPT);
    assert_non_null(strstr(e.text, "shard-00000.h5: dataset /weights/stack, chunk 2 of"));
    ckpt_close(k);

    /* and another checkpoint's file in its place, by the tensor's digest */
    content other = content_new(many, MANY, 4);
    size_t bytes;
    save_well(f, &other, 9, 2);
    flip(path, at); /* whole again */
    char *data = slurp(path, &bytes);
    assert_int_equal(ckpt_open(f->world, step_file(f, 9, ""), &k, &e), 0);
    spill(step_file(f, 9, "shard-00000.h5"), data, bytes);
    assert_int_equal(ckpt_read(k, &s, 1, &e), EXIT_CORRUPT);
    assert_non_null(strstr(e.text, "dataset /weights/stack: its digest is not the manifest's"));
    mem_free(data);
    mem_free(s.data);
    ckpt_close(k);
    content_free(&c);
    content_free(&other);
}

static void test_newest(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    error e = {0};
    ckpt *k = (ckpt *)f;
    assert_int_equal(ckpt_newest(f->world, f->path, &k, &e), 0); /* no such directory */
    assert_null(k);
    for (int64_t step = 1; step <= 4; step++) save_well(f, &c, step, 2);
    flip(step_file(f, 4, "shard-00001.h5"), 3000);
    assert_int_equal(unlink(step_file(f, 3, "manifest.json")), 0);
    char *unfinished = step_file(f, 9, ".tmp"); /* whole, but never renamed */
    save_well(f, &c, 9, 2);
    assert_int_equal(rename(step_file(f, 9, ""), unfinished), 0);

    divert(f);
    int code = ckpt_newest(f->world, f->path, &k, &e);
    restore(f);
    assert_int_equal(code, 0);
    assert_non_null(k);
    assert_int_equal(ckpt_step(k), 2);
    assert_non_null(strstr(ckpt_path(k), "step-00000002"));
    assert_non_null(strstr(f->captured, "step-00000004/shard-00001.h5"));
    assert_non_null(strstr(f->captured, "step-00000003"));
    ckpt_close(k);

    flip(step_file(f, 2, "shard-00001.h5"), 3000);
    flip(step_file(f, 1, "manifest.json"), 300);
    divert(f);
    code = ckpt_newest(f->world, f->path, &k, &e);
    restore(f);
    assert_int_equal(code, EXIT_CORRUPT); /* not: start from nothing */
    assert_null(k);
    assert_non_null(strstr(e.text, "the newest: "));
    assert_non_null(strstr(e.text, "step-00000004/shard-00001.h5"));
    content_free(&c);
}

/* Step 2's manifest with one place changed, and a digest that is right. */
static void rewrite(const fixture *f, const char *good, size_t bytes, const char *from, const char *to) {
    char *text = mem_alloc(bytes + 200, "a manifest");
    const char *at = strstr(good, from);
    assert_non_null(at);
    sprintf(text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    char *digest = strstr(text, "\"digest\": \"");
    for (char *next = digest; next; next = strstr(next + 1, "\"digest\": \"")) digest = next; /* the last */
    XXH128_hash_t h = XXH3_128bits(text, (size_t)(digest - text));
    sprintf(digest, "\"digest\": \"%016llx%016llx\"\n}\n", (unsigned long long)h.high64,
            (unsigned long long)h.low64);
    spill(step_file(f, 2, "manifest.json"), text, strlen(text));
    mem_free(text);
}

/* Manifests that are whole, and that no program of this version writes. */
static void test_strange_manifests(void **state) {
    fixture *f = *state;
    static const struct {
        const char *from, *to, *words;
    } strange[] = {
        {"weights/tensor.2\"", "weights/tensor.0\"", "weights/tensor.0 is there twice"},
        {"weights/tensor.2\"", "weights/../tensor.2\"", "entry 2 of tensors (weights/../tensor.2) is not"},
        {"weights/tensor.2\"", "./tensor.2\"", "entry 2 of tensors (./tensor.2) is not valid"},
        {"weights/tensor.2\"", "weights//tensor.2\"", "entry 2 of tensors (weights//tensor.2) is not"},
        {"[3, 13]", "[3, 4611686018427387904]", "entry 2 of tensors (weights/tensor.2) is not valid"},
        {"[3, 13]", "[0, 13]", "entry 2 of tensors (weights/tensor.2) is not valid"},
        {"\"version\": 1", "\"version\": 0", "is not a complete manifest"},
    };
    content c = few_new(1);
    size_t bytes;
    error e = {0};
    ckpt *k = NULL;
    save_well(f, &c, 1, 1);
    save_well(f, &c, 2, 1);
    char *good = slurp(step_file(f, 2, "manifest.json"), &bytes);
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        rewrite(f, good, bytes, strange[i].from, strange[i].to);
        assert_int_equal(ckpt_open(f->world, step_file(f, 2, ""), &k, &e), EXIT_CORRUPT);
        if (!strstr(e.text, strange[i].words)) fail_msg("%s: %s", strange[i].to, e.text);
    }
    rewrite(f, good, bytes, "\"version\": 1", "\"version\": 2"); /* a newer program's is not ours to read */
    assert_int_equal(ckpt_open(f->world, step_file(f, 2, ""), &k, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "newer"));
    assert_non_null(strstr(e.text, "manifest.json"));
    assert_int_equal(ckpt_newest(f->world, f->path, &k, &e), EXIT_USAGE); /* an older one would hide it */
    assert_null(k);
    mem_free(good);
    content_free(&c);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(damage),
        TEST(verify_names_the_chunk),
        TEST(newest),
        TEST(strange_manifests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
