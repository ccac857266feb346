/* Checkpoints on one rank: what is read is what was written, and files are functions of their content alone.
 * Damage: test_ckpt_damage.c; failures on the way: test_ckpt_commit.c; several ranks: mpi_ckpt.sh. */
#include "tests/ckpt_fixture.h"

#include <hdf5.h>

#include "ckpt/chunk.h"

static void test_grid(void **state) {
    (void)state;
    static const int64_t size[] = {1, 2, 3, 5, 13, 1000, 1023, 4097, 1048576, 1048577, 3000000};
    for (int i = 0; i < 300; i++) {
        ckpt_tensor t = {"t", i % 3, 1 + i % 4, {1, 1, 1, 1}};
        for (int k = 0; k < t.rank; k++) {
            int64_t want = size[random_bits(1, (uint64_t)i, (uint64_t)k) % 11];
            t.shape[k] = ckpt_elements(&t) > ((int64_t)1 << 40) / want ? 1 : want;
        }
        chunk_grid g = chunk_grid_of(&t);
        int64_t bytes = g.full * (int64_t)ckpt_type_size(t.type), total = ckpt_elements(&t);
        assert_true(bytes <= CHUNK_BYTES);
        assert_true(g.chunks == 1 || bytes >= CHUNK_BYTES / 4);
        /* first, last and some chunks: neighbours meet, and their elements are found in them */
        for (int64_t k = 0; k < g.chunks; k += 1 + g.chunks / 17) {
            chunk_span s = chunk_at(&t, &g, k);
            assert_int_equal(chunk_holding(&g, s.offset), k);
            assert_int_equal(chunk_holding(&g, s.offset + s.count - 1), k);
            int64_t end = k + 1 < g.chunks ? chunk_at(&t, &g, k + 1).offset : total;
            assert_int_equal(s.offset + s.count, end);
            int64_t corner = 0;
            for (int d = 0; d < t.rank; d++) {
                assert_int_equal(s.corner[d] % g.chunk[d], 0);
                corner = corner * t.shape[d] + s.corner[d];
            }
            assert_int_equal(corner, s.offset);
        }
    }
}

static void test_assign(void **state) {
    (void)state;
    ckpt_tensor t[100];
    int64_t first[9], total = 0;
    for (int i = 0; i < 100; i++) {
        t[i] = (ckpt_tensor){"t", CKPT_F32, 1, {1 + (int64_t)(random_bits(2, 0, (uint64_t)i) % 1000)}};
        total += t[i].shape[0];
    }
    ckpt_assign(t, 100, 8, first);
    assert_int_equal(first[0], 0);
    assert_int_equal(first[8], 100);
    for (int f = 0; f < 8; f++) {
        int64_t n = 0;
        assert_true(first[f] <= first[f + 1]);
        for (int64_t i = first[f]; i < first[f + 1]; i++) n += t[i].shape[0];
        assert_true(llabs(n - total / 8) <= 1001);
    }
    ckpt_assign(t, 1, 3, first); /* more files than tensors */
    assert_true(first[3] == 1);
}

static void test_round_trip(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 1);
    save_well(f, &c, 200, 3);
    assert_holds(f, 200, &c);
    assert_true(exists(step_file(f, 200, "shard-00002.h5")));
    assert_false(exists(step_file(f, 200, "shard-00003.h5")));
    assert_false(exists(step_file(f, 200, ".tmp")));

    /* slices of all kinds, across chunks and runs */
    ckpt *k = NULL;
    error e = {0};
    assert_int_equal(ckpt_open(f->world, step_file(f, 200, ""), &k, &e), 0);
    for (uint64_t i = 0; i < 60; i++) {
        int64_t tensor = (int64_t)(i % MANY), n = ckpt_elements(&many[tensor]);
        size_t size = ckpt_type_size(many[tensor].type);
        int64_t low = (int64_t)(random_bits(3, 0, i) % (uint64_t)n), count = 1;
        count += (int64_t)(random_bits(3, 1, i) % (uint64_t)(n - low));
        ckpt_slice s = {tensor, low, count, mem_alloc((size_t)count * size, "a slice")};
        assert_int_equal(ckpt_read(k, &s, 1, &e), 0);
        assert_memory_equal(s.data, (char *)c.whole[tensor].data + (size_t)low * size, (size_t)count * size);
        mem_free(s.data);
    }
    assert_int_equal(ckpt_find(k, "weights/none"), -1);
    ckpt_close(k);
    content_free(&c);
}

/* A frame depends on its values alone, not on what its codec did before; a short chunk ends with zeros. */
static void test_codec(void **state) {
    (void)state;
    error e = {0};
    enum { FULL = 5000 };
    for (size_t size = 4; size <= 8; size += 4) {
        unsigned char values[FULL * 8], first[FULL * 16];
        for (size_t i = 0; i < sizeof values; i++) values[i] = (unsigned char)(random_bits(5, size, i) % 7);
        for (int used = 0; used < 2; used++) {
            const void *frame, *back;
            chunk_codec *k = chunk_codec_new();
            if (used) chunk_encode(k, size, values, FULL - 1, FULL, &frame);
            size_t bytes = chunk_encode(k, size, values, 777, FULL, &frame);
            assert_true(bytes < sizeof first);
            if (used) assert_memory_equal(frame, first, bytes);
            memcpy(first, frame, bytes);
            assert_int_equal(chunk_decode(k, size, first, bytes, FULL, &back, &e), 0);
            assert_memory_equal(back, values, 777 * size);
            for (size_t i = 777 * size; i < FULL * size; i++) assert_int_equal(((const char *)back)[i], 0);
            assert_int_equal(chunk_decode(k, size, first, bytes, FULL - 1, &back, &e), EXIT_CORRUPT);
            assert_int_equal(chunk_decode(k, size, first, bytes, FULL + 1, &back, &e), EXIT_CORRUPT);
            assert_int_equal(chunk_decode(k, size, first, bytes - 1, FULL, &back, &e), EXIT_CORRUPT);
            chunk_codec_free(k);
        }
    }
}

static herr_t check_times(hid_t file, const char *name, const H5O_info_t *info, void *seen) {
    (void)file;
    if (info->atime || info->mtime || info->ctime || info->btime) fail_msg("%s has a time", name);
    ++*(int *)seen;
    return 0;
}

/* No clock in a file, not even one that stood still while two were written. */
static void test_no_times(void **state) {
    fixture *f = *state;
    content c = few_new(1);
    int seen = 0;
    save_well(f, &c, 1, 1);
    hid_t file = H5Fopen(step_file(f, 1, "shard-00000.h5"), H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, check_times, &seen, H5O_INFO_TIME) >= 0);
    H5Fclose(file);
    assert_int_equal(seen, FEW + 3); /* two groups and the root */
    content_free(&c);
}

/* Equal content gives equal bytes, however it lies in memory and wherever it is written. */
static void test_same_bytes(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 2);
    save_well(f, &c, 1, 2);

    ckpt_slice piece[400];
    int64_t n = 0;
    for (int64_t i = 0; i < MANY; i++) {
        int64_t count = ckpt_elements(&many[i]), parts = count < 30 ? count : 30;
        size_t size = ckpt_type_size(many[i].type);
        for (int64_t k = 0; k < parts; k++) { /* unequal pieces, each in memory of its own */
            int64_t low = count * (k * k) / (parts * parts),
                    high = count * ((k + 1) * (k + 1)) / (parts * parts);
            piece[n] = (ckpt_slice){i, low, high - low, mem_alloc((size_t)(high - low) * size, "a piece")};
            memcpy(piece[n++].data, (char *)c.whole[i].data + (size_t)low * size,
                   (size_t)(high - low) * size);
        }
    }
    char other[256];
    error e = {0};
    snprintf(other, sizeof other, "%s/elsewhere", f->root);
    json_t *about = some_state();
    assert_int_equal(ckpt_save(f->world, other, 1, 2, many, MANY, piece, n, about, &e), 0);
    json_decref(about);
    static const char *const names[] = {"manifest.json", "shard-00000.h5", "shard-00001.h5"};
    for (int i = 0; i < 3; i++) {
        snprintf(other, sizeof other, "%s/elsewhere/step-00000001/%s", f->root, names[i]);
        assert_same_file(step_file(f, 1, names[i]), other);
    }
    for (int64_t i = 0; i < n; i++) mem_free(piece[i].data);
    content_free(&c);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(grid), TEST(assign), TEST(round_trip), TEST(codec), TEST(no_times), TEST(same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
