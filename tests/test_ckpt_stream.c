/* Checkpoints written tensor after tensor: the bytes of ckpt_save, whatever the pieces. */
#include "tests/ckpt_fixture.h"

#include "ckpt/stream.h"

static int is_there(const char *directory, int64_t step, const char *suffix) {
    char path[256];
    snprintf(path, sizeof path, "%s/step-%08lld%s", directory, (long long)step, suffix);
    return exists(path);
}

static void give_all(ckpt_stream *s, const content *c, int64_t piece) {
    error e = {0};
    for (int64_t i = 0; i < c->n; i++) {
        size_t size = ckpt_type_size(c->tensor[i].type);
        int64_t n = ckpt_elements(&c->tensor[i]);
        int zeros = strstr(c->tensor[i].name, "zero") != NULL;
        for (int64_t at = 0; at < n; at += piece) {
            const char *values = (char *)c->whole[i].data + (size_t)at * size;
            assert_int_equal(
                ckpt_stream_append(s, zeros ? NULL : values, n - at < piece ? n - at : piece, &e), 0);
        }
    }
}

static void test_bytes_of_ckpt_save(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 5);
    char other[160];
    snprintf(other, sizeof other, "%s/streamed", f->root);
    static const int64_t files[] = {1, 3, 100}, piece[] = {INT64_MAX, 4099, 1 << 20};
    json_t *about = json_pack("{si}", "step", 7);
    for (int i = 0; i < 3; i++) {
        ckpt_stream *s;
        error e = {0};
        int64_t step = 7 + i;
        assert_int_equal(ckpt_save(f->world, f->path, step, files[i], c.tensor, c.n, c.whole, c.n, about, &e),
                         0);
        assert_int_equal(ckpt_stream_create(&s, other, step, files[i], c.tensor, c.n, &e), 0);
        give_all(s, &c, piece[i]);
        assert_false(is_there(other, step, "")); /* not before it is whole */
        assert_int_equal(ckpt_stream_finish(s, about, 0, &e), 0);
        char command[512];
        snprintf(command, sizeof command, "diff -r %s/step-%08lld %s/step-%08lld", f->path, (long long)step,
                 other, (long long)step);
        assert_int_equal(system(command), 0);
    }
    json_decref(about);
    content_free(&c);
}

static void test_abandoned(void **state) {
    fixture *f = *state;
    content c = content_new(many, MANY, 6);
    ckpt_stream *s;
    error e = {0};
    json_t *about = json_object();
    assert_int_equal(ckpt_stream_create(&s, f->path, 3, 2, c.tensor, c.n, &e), 0);
    assert_int_equal(ckpt_stream_append(s, c.whole[0].data, 1000, &e), 0);
    assert_int_equal(ckpt_stream_finish(s, about, 1, &e), 0);
    assert_false(is_there(f->path, 3, ""));
    assert_false(is_there(f->path, 3, ".tmp"));

    assert_int_equal(ckpt_stream_create(&s, f->path, 3, 2, c.tensor, c.n, &e), 0);
    give_all(s, &c, INT64_MAX);
    assert_int_equal(ckpt_stream_finish(s, about, 0, &e), 0);
    assert_int_equal(ckpt_stream_create(&s, f->path, 3, 2, c.tensor, c.n, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "exists already"));
    json_decref(about);
    content_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bytes_of_ckpt_save, setup, teardown),
        cmocka_unit_test_setup_teardown(test_abandoned, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
