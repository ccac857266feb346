/* The marks that counting sets: entropies that are known, probabilities that sum to one, and the model
 * against a plain one over dense tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "data/indexed.h"
#include "data/ngram.h"
#include "launch/random.h"
#include "tests/scratch.h"

static char *write_tokens(scratch *s, const char *name, const int32_t *ids, int64_t count) {
    char *prefix = scratch_path(s, name);
    indexed_writer w;
    error e = {0};
    assert_int_equal(indexed_create(&w, prefix, "", 1000, &e), 0);
    indexed_add(&w, ids, count);
    if (indexed_finish(&w, &e) || indexed_commit(&w, &e)) fail_msg("%s", e.text);
    return prefix;
}

static ngram_loss measure(const char *train, const char *valid, ngram_loss *total) {
    ngram_loss loss, all;
    error e = {0};
    ngram_files files = {train, valid};
    if (ngram_measure(&loss, total ? total : &all, &files, 1, &e)) fail_msg("%s", e.text);
    return loss;
}

static void check_close(double value, double wanted, double tolerance) {
    if (!isfinite(value) || fabs(value - wanted) > tolerance)
        fail_msg("%.9g, and %.9g is wanted", value, wanted);
}

/* A chain over 12 tokens in which some follow one another often and one, 11, comes once. */
static void fill(int32_t *ids, int count, uint64_t seed) {
    int32_t now = 0;
    for (int i = 0; i < count; i++) {
        ids[i] = now;
        uint64_t bits = random_bits(seed, 1, (uint64_t)i);
        now = bits % 3 ? (now * 5 + 1) % 11 : (int32_t)(bits / 3 % 8);
    }
}

static void test_known_entropies(void **state) {
    scratch *s = *state;
    static int32_t cycle[4000], random[40000];
    for (int i = 0; i < 4000; i++) cycle[i] = i % 10;
    for (int i = 0; i < 40000; i++) random[i] = (int32_t)(random_bits(1, 1, (uint64_t)i) % 16);
    char *a = write_tokens(s, "a", cycle, 4000), *b = write_tokens(s, "b", random, 20000);
    char *c = write_tokens(s, "c", random + 20000, 16000);
    ngram_loss total, loss = measure(a, a, &total);
    check_close(loss.unigram, log(10), 1e-9);
    check_close(loss.bigram, 0, 0.01); /* the next token is certain */
    check_close(total.unigram, loss.unigram, 0);
    check_close(total.bigram, loss.bigram, 0);
    loss = measure(b, c, NULL);
    check_close(loss.unigram, log(16), 0.002);
    check_close(loss.bigram, log(16), 0.02); /* nothing to be learnt */
    assert_true(loss.bigram > loss.unigram);
    assert_int_equal(loss.train_tokens, 20000);
    assert_int_equal(loss.valid_tokens, 16000);
}

static void test_probabilities_sum_to_one(void **state) {
    scratch *s = *state;
    int32_t ids[300];
    fill(ids, 300, 2);
    ids[150] = 11;
    char *train = write_tokens(s, "t", ids, 300);
    for (int32_t h = 1; h < 12; h += 5) { /* two that are common, and the rare one */
        double sum = 0;
        for (int32_t w = 0; w < 12; w++) {
            double p = exp(-measure(train, write_tokens(s, "v", (const int32_t[]){h, w}, 2), NULL).bigram);
            assert_true(p > 0);
            sum += p;
        }
        check_close(sum, 1, 1e-9);
    }
}

/* Modified Kneser-Ney over dense tables, written from the formulas. */
static double plain_loss(const int32_t *train, int n, const int32_t *valid, int m) {
    enum { V = 12 };
    double c[V][V] = {{0}}, follows[V] = {0}, before[V] = {0}, of[5] = {0}, lower_of[5] = {0}, sum = 0,
           types = 0;
    for (int i = 0; i + 1 < n; i++) c[train[i]][train[i + 1]]++;
    for (int h = 0; h < V; h++)
        for (int w = 0; w < V; w++) {
            follows[h] += c[h][w];
            before[w] += c[h][w] > 0;
            if (c[h][w] > 0 && c[h][w] < 5) of[(int)c[h][w]]++;
        }
    for (int w = 0; w < V; w++) {
        types += before[w] > 0;
        sum += before[w];
        if (before[w] > 0 && before[w] < 5) lower_of[(int)before[w]]++;
    }
    double y = of[1] / (of[1] + 2 * of[2]);
    double d[4] = {0, 1 - 2 * y * of[2] / of[1], 2 - 3 * y * of[3] / of[2], 3 - 4 * y * of[4] / of[3]};
    double yl = lower_of[1] / (lower_of[1] + 2 * lower_of[2]);
    double dl = lower_of[1] > 0 ? 1 - 2 * yl * lower_of[2] / lower_of[1] : 0.5;
    for (int i = 1; i < 4; i++) assert_true(d[i] > 0 && d[i] < i); /* the case without fallbacks */
    if (!(dl > 0 && dl < 1)) dl = 0.5;
    double loss = 0;
    for (int i = 0; i + 1 < m; i++) {
        int h = valid[i], w = valid[i + 1];
        double q = ((before[w] > 0 ? before[w] - dl : 0) + dl * types / V) / sum, taken = 0;
        for (int x = 0; x < V; x++) taken += d[c[h][x] > 3 ? 3 : (int)c[h][x]];
        double kept = c[h][w] > 0 ? c[h][w] - d[c[h][w] > 3 ? 3 : (int)c[h][w]] : 0;
        loss -= log(follows[h] > 0 ? (kept + taken * q) / follows[h] : q);
    }
    return loss / (m - 1);
}

static void test_against_dense_tables(void **state) {
    scratch *s = *state;
    int32_t train[400], valid[200];
    for (uint64_t seed = 3; seed < 9; seed++) {
        fill(train, 400, seed);
        fill(valid, 200, seed + 100);
        train[399] = 11; /* seen once, and followed by nothing */
        valid[7] = 11;
        char *t = write_tokens(s, "t", train, 400), *v = write_tokens(s, "v", valid, 200);
        check_close(measure(t, v, NULL).bigram, plain_loss(train, 400, valid, 200), 1e-12);
    }
}

static void test_several_sources(void **state) {
    scratch *s = *state;
    int32_t a[500], b[500];
    fill(a, 500, 1);
    for (int i = 0; i < 500; i++) b[i] = 20 + i % 3;
    char *pa = write_tokens(s, "a", a, 500), *pb = write_tokens(s, "b", b, 500),
         *va = write_tokens(s, "v", a, 101);
    ngram_files files[] = {{pa, va}, {pb, pb}};
    ngram_loss loss[2], total;
    error e = {0};
    assert_int_equal(ngram_measure(loss, &total, files, 2, &e), 0);
    assert_int_equal(total.valid_tokens, 601);
    check_close(total.bigram, (loss[0].bigram * 100 + loss[1].bigram * 499) / 599, 1e-12);
    check_close(total.bigram_own, (loss[0].bigram_own * 100 + loss[1].bigram_own * 499) / 599, 1e-12);
    check_close(loss[1].unigram, log(3), 1e-4);
    assert_true(total.unigram >
                loss[0].unigram * 101 / 601 + loss[1].unigram * 500 / 601); /* sources differ */
    check_close(loss[0].bigram_own, loss[0].bigram, 0.05);                  /* no token in common */
    ngram_loss alone, all;
    assert_int_equal(ngram_measure(&alone, &all, &files[1], 1, &e), 0);
    check_close(loss[1].bigram_own, alone.bigram, 1e-12); /* its own is that of its own text */

    files[1].valid = write_tokens(s, "short", a, 1);
    assert_int_equal(ngram_measure(loss, &total, files, 2, &e), EXIT_CORRUPT);
    assert_non_null(strstr(e.text, "short.bin has 1 tokens"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_known_entropies, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_probabilities_sum_to_one, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_against_dense_tables, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_several_sources, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
