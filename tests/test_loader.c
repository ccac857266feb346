/* Token files and the loader: each sample once per epoch, any position found directly, the mixture's counts,
 * and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/wait.h>

#include "data/indexed.h"
#include "data/mixture.h"
#include "launch/memory.h"
#include "launch/random.h"
#include "tests/scratch.h"

enum { SEQ_LEN = 8, VOCAB = 70000 };

/* Token i of every file here is i (mod the vocabulary), so that a sample says where it was cut. */
static char *write_tokens(scratch *s, const char *name, int64_t tokens, int64_t vocab_size) {
    char *prefix = scratch_path(s, name);
    indexed_writer w;
    error e = {0};
    assert_int_equal(indexed_create(&w, prefix, "", vocab_size, &e), 0);
    int32_t ids[100];
    for (int64_t at = 0; at < tokens;) { /* documents of 1, 2, ... 100 tokens */
        int64_t n = 1 + w.documents % 100;
        if (n > tokens - at) n = tokens - at;
        for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)((at + i) % vocab_size);
        indexed_add(&w, ids, n);
        at += n;
    }
    if (indexed_finish(&w, &e) || indexed_commit(&w, &e)) fail_msg("%s", e.text);
    return prefix;
}

static data_config config_of(int sources, char *const *prefix, const double *weight) {
    static char *const names[] = {"a", "b", "c"};
    data_config c = {.sources = sources};
    for (int i = 0; i < sources; i++)
        c.source[i] =
            (data_source){.name = names[i], .train = prefix[i], .valid = prefix[i], .weight = weight[i]};
    return c;
}

static loader *open_loader(const data_config *c, int validation, uint64_t seed) {
    loader *l;
    error e = {0};
    if (loader_open(&l, c, validation, SEQ_LEN, VOCAB, seed, &e)) fail_msg("%s", e.text);
    return l;
}

/* The sample's number in its source, from its first token; its tokens must follow one another. */
static int64_t number_of(const int32_t *tokens) {
    for (int i = 1; i < SEQ_LEN + 2; i++) assert_int_equal(tokens[i], tokens[0] + i);
    assert_int_equal(tokens[0] % SEQ_LEN, 0);
    return tokens[0] / SEQ_LEN;
}

static void test_each_sample_once_per_epoch(void **state) {
    scratch *s = *state;
    char *prefix[] = {write_tokens(s, "a", 1000, 60000), write_tokens(s, "b", 5003, 66000)};
    data_config c = config_of(2, prefix, (const double[]){3, 1});
    loader *l = open_loader(&c, 0, 7);
    assert_int_equal(loader_source_samples(l, 0, 0), 124); /* (1000 - 2) / 8 */
    assert_int_equal(loader_source_samples(l, 0, 1), 625);

    int32_t tokens[SEQ_LEN + 2];
    int64_t seen[2][625] = {{0}}, drawn[2] = {0};
    for (int64_t i = 0; i < 20 * LOADER_BLOCK; i++) {
        int64_t source = loader_sample(l, 0, i, tokens), n = number_of(tokens), samples = source ? 625 : 124;
        assert_true(n < samples);
        seen[source][n]++;
        drawn[source]++;
        if (i % LOADER_BLOCK == LOADER_BLOCK - 1) { /* after every block: shares exact, epochs even */
            int64_t blocks = i / LOADER_BLOCK + 1;
            assert_int_equal(drawn[0], 768 * blocks);
            assert_int_equal(drawn[1], 256 * blocks);
            for (int k = 0; k < 2; k++)
                for (int64_t j = 0; j < (k ? 625 : 124); j++) {
                    int64_t epochs = drawn[k] / (k ? 625 : 124);
                    assert_in_range(seen[k][j], epochs, epochs + 1);
                }
        }
    }
    loader_close(l);
}

static void test_positions_are_found_directly(void **state) {
    scratch *s = *state;
    char *prefix[] = {write_tokens(s, "a", 1000, 60000), write_tokens(s, "b", 5003, 60000)};
    data_config c = config_of(2, prefix, (const double[]){1, 2});
    loader *l = open_loader(&c, 0, 7), *again = open_loader(&c, 0, 7), *other = open_loader(&c, 0, 8);
    int32_t x[SEQ_LEN + 2], y[SEQ_LEN + 2];
    int differ = 0;
    for (int64_t i = 0; i < 3000; i++) {
        int64_t position = i * 7919 % 3001 * 1000003; /* far apart, in no order */
        int64_t source = loader_sample(l, 0, position, x);
        loader_sample(again, 0, position + 1, y);
        assert_int_equal(loader_sample(again, 0, position, y), source);
        assert_memory_equal(x, y, sizeof x);
        differ += loader_sample(other, 0, position, y) != source || memcmp(x, y, sizeof x);
    }
    assert_true(differ > 2900); /* another seed, another order */
    loader_close(l);
    loader_close(again);
    loader_close(other);
}

/* Which source comes where, and which samples come early in an epoch, is drawn anew each time. */
static void test_blocks_and_epochs_differ(void **state) {
    scratch *s = *state;
    char *prefix[] = {write_tokens(s, "a", 2 * LOADER_BLOCK * SEQ_LEN + 2, VOCAB),
                      write_tokens(s, "b", 5003, VOCAB)};
    const double even[] = {1, 1};
    data_config c = config_of(2, prefix, even), alone = config_of(1, prefix, even);
    loader *l = open_loader(&c, 0, 7);
    int32_t tokens[SEQ_LEN + 2];
    int source[2][LOADER_BLOCK], agree = 0;
    for (int64_t i = 0; i < 2 * LOADER_BLOCK; i++)
        source[i / LOADER_BLOCK][i % LOADER_BLOCK] = (int)loader_sample(l, 0, i, tokens);
    for (int i = 0; i < LOADER_BLOCK; i++) agree += source[0][i] == source[1][i];
    assert_in_range(agree, 400, 624);
    loader_close(l);

    l = open_loader(&alone, 0, 7); /* an epoch is two blocks */
    assert_int_equal(loader_source_samples(l, 0, 0), 2 * LOADER_BLOCK);
    int early[2][2 * LOADER_BLOCK] = {{0}}, both = 0;
    for (int64_t i = 0; i < LOADER_BLOCK; i++)
        for (int epoch = 0; epoch < 2; epoch++) {
            loader_sample(l, 0, i + epoch * 2 * LOADER_BLOCK, tokens);
            early[epoch][number_of(tokens)] = 1;
        }
    for (int i = 0; i < 2 * LOADER_BLOCK; i++) both += early[0][i] && early[1][i];
    assert_in_range(both, 400, 624);
    loader_close(l);
}

/* What is drawn is the same in every version, or a run that goes on with a newer one would have samples twice
 * and others never: Philox's own known answers, XXH3's of no text, and the first samples of a run. */
static void test_every_version_draws_alike(void **state) {
    scratch *s = *state;
    assert_true(random_bits(0, 0, 0) == 0x6627e8d5e169c58d);
    assert_true(random_bits(UINT64_MAX, UINT64_MAX, UINT64_MAX) == 0x408f276d41c83b0e);
    assert_true(random_bits(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88) ==
                0xd16cfe0994fdcceb);
    assert_true(random_stream("") == 0x2d06800538d394c2);
    assert_true(random_uniform(0, 0, 0) == ((double)(0x6627e8d5e169c58d >> 12) + 0.5) / 0x1p52);
    static const int64_t wanted[][2] = {{1, 128}, {0, 11},  {0, 31},  {0, 66},
                                        {0, 45},  {0, 120}, {1, 416}, {1, 242}};
    char *prefix[] = {write_tokens(s, "a", 1000, VOCAB), write_tokens(s, "b", 5003, VOCAB)};
    data_config c = config_of(2, prefix, (const double[]){3, 1});
    loader *l = open_loader(&c, 0, 7);
    for (int64_t i = 0; i < 8; i++) { /* of two blocks; the second has other epochs of source 0 */
        sample_place p = loader_place(l, 0, i / 4 * LOADER_BLOCK + i % 4);
        assert_int_equal(p.source, wanted[i][0]);
        assert_int_equal(p.sample, wanted[i][1]);
    }
    loader_close(l);
}

static void test_a_place_is_where_the_tokens_are(void **state) {
    char *prefix[] = {write_tokens(*state, "a", 1000, VOCAB)};
    data_config c = config_of(1, prefix, (const double[]){1});
    c.stages = 1;
    c.stage[0] = (data_stage){.after = 1, .position = 10, .seq_len = 3, .weight = {1}};
    loader *l = open_loader(&c, 0, 7);
    for (int64_t i = 0; i < 50; i++) {
        int32_t tokens[SEQ_LEN + 2];
        loader_sample(l, i >= 10, i, tokens);
        assert_int_equal(loader_place(l, i >= 10, i).token, tokens[0]);
    }
    loader_close(l);
}

static void test_shares(void **state) {
    (void)state;
    int64_t count[3];
    mixture_shares(count, (const double[]){1, 1, 1}, 3, 1024);
    assert_int_equal(count[0], 342); /* equal remainders: the earlier source */
    assert_int_equal(count[1], 341);
    assert_int_equal(count[2], 341);
    mixture_shares(count, (const double[]){0.5, 0.3, 0.2}, 3, 1024); /* 512, 307.2, 204.8 */
    assert_int_equal(count[0], 512);
    assert_int_equal(count[1], 307);
    assert_int_equal(count[2], 205);
    mixture_shares(count, (const double[]){7e300, 1e300, 1e300}, 3, 10); /* 7.8, 1.1, 1.1 */
    assert_int_equal(count[0], 8);
    assert_int_equal(count[1], 1);
    assert_int_equal(count[2], 1);
}

static void test_validation_in_file_order(void **state) {
    scratch *s = *state;
    char *prefix[] = {write_tokens(s, "a", 1000, VOCAB), write_tokens(s, "b", 50, VOCAB)};
    data_config c = config_of(2, prefix, (const double[]){1, 1});
    c.source[1].valid = NULL;
    loader *l = open_loader(&c, 1, 7);
    int32_t tokens[SEQ_LEN + 2];
    for (int64_t k = 0; k < loader_source_samples(l, 0, 0); k++) {
        loader_source_sample(l, 0, 0, k, tokens);
        assert_int_equal(number_of(tokens), k);
    }
    assert_int_equal(loader_source_samples(l, 0, 1), 0);
    loader_close(l);
}

/* ---- what is refused ---- */

static void check_refused(const data_config *c, int64_t vocab_size, int code, const char *message) {
    loader *l;
    error e = {0};
    assert_int_equal(loader_open(&l, c, 0, SEQ_LEN, vocab_size, 1, &e), code);
    if (!strstr(e.text, message)) fail_msg("\"%s\" is not in \"%s\"", message, e.text);
}

static void test_refused_configs(void **state) {
    scratch *s = *state;
    char *prefix[] = {write_tokens(s, "a", 1000, 500), write_tokens(s, "b", 9, 500)};
    data_config c = config_of(2, prefix, (const double[]){1, 1});
    check_refused(&c, 500, EXIT_USAGE, "b.bin has 9 tokens, and one sample of length 8 takes 10");
    c.sources = 1;
    check_refused(&c, 499, EXIT_CORRUPT, "a.bin: token 499 is 499, and the vocabulary has 499");
    c.source[0].weight = -1;
    check_refused(&c, 500, EXIT_USAGE, "its weight is -1");
    c.source[0].weight = 0.0 / 0.0;
    check_refused(&c, 500, EXIT_USAGE, "its weight is ");
    c.source[0].train = scratch_path(s, "nowhere");
    c.source[0].weight = 1;
    check_refused(&c, 500, EXIT_IO, "nowhere.idx: No such file");
    c = config_of(2, (char *[]){prefix[0], prefix[0]}, (const double[]){10000, 1});
    check_refused(&c, 500, EXIT_USAGE, "source b: its weight 1 is less than one sample in 1024");
    c.source[1].name = c.source[0].name;
    check_refused(&c, 500, EXIT_USAGE, "a stands twice");
    c.sources = 0;
    check_refused(&c, 500, EXIT_USAGE, "data.sources: 0 of them");
}

/* The good pair of files with `bytes` of one replaced at an offset, or cut there (bytes < 0). */
static void check_damaged(scratch *s, const char *suffix, long offset, const void *patch, int bytes,
                          const char *message) {
    char *prefix = write_tokens(s, "d", 1000, 500), path[160];
    snprintf(path, sizeof path, "%s%s", prefix, suffix);
    if (bytes < 0) assert_int_equal(truncate(path, offset), 0);
    else {
        FILE *f = fopen(path, "r+b");
        fseek(f, offset, SEEK_SET);
        fwrite(patch, 1, (size_t)bytes, f);
        fclose(f);
    }
    indexed_reader r;
    error e = {0};
    int code = indexed_open(&r, prefix, &e);
    if (!code) {
        code = indexed_check(&r, r.tokens, 500, &e);
        indexed_close(&r);
    }
    if (code != EXIT_CORRUPT) fail_msg("\"%s\" is expected, and the exit code is %d", message, code);
    if (!strstr(e.text, message) || !strstr(e.text, path))
        fail_msg("\"%s\" is not in \"%s\"", message, e.text);
}

static void test_damaged_files(void **state) {
    scratch *s = *state;
    /* 45 documents of 1, 2, ... 44 and 10 tokens; their lengths begin at byte 34 */
    check_damaged(s, ".idx", 0, "PK", 2, "does not start with MMIDIDX");
    check_damaged(s, ".idx", 9, "\2", 1, "version 2");
    check_damaged(s, ".idx", 17, "\6", 1, "type 6");
    check_damaged(s, ".idx", 18, "\x2E", 1, "46 sequences and 45 documents do not make its");
    check_damaged(s, ".idx", 25, "\x7F", 1, "do not make its"); /* a count that would overflow */
    check_damaged(s, ".idx", 26, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 8, "do not make its");
    check_damaged(s, ".idx", 300, NULL, -1, "do not make its");
    check_damaged(s, ".idx", 20, NULL, -1, "does not start with MMIDIDX");
    check_damaged(s, ".idx", 34 + 4 * 3, "\5", 1, "sequence 4");
    check_damaged(s, ".idx", 34 + 4 * 3 + 3, "\x80", 1, "sequence 3");
    check_damaged(s, ".idx", 34 + 12 * 45 + 8 * 45, "\x2C", 1, "document 45 begins at sequence 44 of 45");
    check_damaged(s, ".bin", 1998, NULL, -1, "has 1998 bytes, and its index says 2000");
    check_damaged(s, ".bin", 2000, "more", 4, "has 2004 bytes");
    check_damaged(s, ".bin", 2 * 77, "\xF4\x01", 2, "token 77 is 500, and the vocabulary has 500");
}

/* An id that was not seen when the file was opened, as in what lies behind a large file's first 4 GiB: a
 * sample that would have it, first or last, ends the run. */
static void test_an_id_found_late(void **state) {
    scratch *s = *state;
    for (int64_t at = 0; at < SEQ_LEN + 2; at += SEQ_LEN + 1) {
        char *prefix[] = {write_tokens(s, "late", SEQ_LEN + 2, 500)}, path[160];
        data_config c = config_of(1, prefix, (const double[]){1});
        loader *l;
        error e = {0};
        int32_t tokens[SEQ_LEN + 2];
        int status;
        assert_int_equal(loader_open(&l, &c, 0, SEQ_LEN, 500, 7, &e), 0);
        loader_sample(l, 0, 0, tokens);
        snprintf(path, sizeof path, "%s.bin", prefix[0]);
        FILE *f = fopen(path, "r+b");
        fseek(f, 2 * at, SEEK_SET);
        fwrite("\xF4\x01", 1, 2, f);
        fclose(f);
        pid_t child = fork();
        if (!child) {
            loader_sample(l, 0, 0, tokens);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(WEXITSTATUS(status), EXIT_CORRUPT);
        loader_close(l);
    }
}

/* A digest is that of the tokens and of the documents' lengths, of each source and file for itself. */
static void test_digests(void **state) {
    scratch *s = *state;
    static const int32_t ids[][6] = {
        {1, 2, 3, 4, 5, 6}, {1, 2, 3, 4, 5, 7}, {1, 2, 3, 4, 5, 6}, {1, 2, 3, 4, 5, 6}};
    static const int64_t first[] = {2, 2, 3, 2}, vocab_size[] = {500, 500, 500, 65537};
    char digest[5][33], start[2][33];
    for (int i = 0; i < 5; i++) { /* the last as the first, written again */
        indexed_writer w;
        indexed_reader r;
        error e = {0};
        char *prefix = scratch_path(s, i ? "y" : "x");
        assert_int_equal(indexed_create(&w, prefix, "", vocab_size[i % 4], &e), 0);
        indexed_add(&w, ids[i % 4], first[i % 4]);
        indexed_add(&w, ids[i % 4] + first[i % 4], 6 - first[i % 4]);
        if (indexed_finish(&w, &e) || indexed_commit(&w, &e) || indexed_open(&r, prefix, &e))
            fail_msg("%s", e.text);
        indexed_digest(&r, 100, digest[i]);
        if (i < 2) indexed_digest(&r, 5, start[i]); /* what differs is not looked at */
        indexed_close(&r);
        assert_int_equal(strlen(digest[i]), 32);
        for (int k = 0; k < i && i < 4; k++) assert_string_not_equal(digest[i], digest[k]);
    }
    assert_string_equal(digest[0], digest[4]);
    assert_string_equal(start[0], start[1]);

    char *prefix[] = {write_tokens(s, "a", 1000, VOCAB), write_tokens(s, "b", 1001, VOCAB)};
    data_config c = config_of(2, prefix, (const double[]){1, 1});
    c.source[0].valid = prefix[1];
    c.source[1].valid = NULL;
    loader *l = open_loader(&c, 0, 7), *valid = open_loader(&c, 1, 7);
    assert_string_not_equal(loader_source_digest(l, 0), loader_source_digest(l, 1));
    assert_string_equal(loader_source_digest(valid, 0), loader_source_digest(l, 1));
    assert_string_equal(loader_source_digest(valid, 1), "");
    loader_close(l);
    loader_close(valid);
}

/* The index says which tokenizer made it, behind what others read; nothing else changes. */
static void test_tokenizer_is_told(void **state) {
    scratch *s = *state;
    static const char hex[] = "0123456789abcdef0123456789abcdef";
    char digest[2][33], path[160], *prefix = scratch_path(s, "t");
    int64_t document, within;
    size_t n[2];
    error e = {0};
    indexed_reader r;
    snprintf(path, sizeof path, "%s.idx", prefix);
    for (int told = 0; told < 2; told++) {
        indexed_writer w;
        assert_int_equal(indexed_create(&w, prefix, told ? hex : "", 500, &e), 0);
        for (int i = 1; i < 4; i++) indexed_add(&w, (const int32_t[]){1, 2, 3}, i);
        if (indexed_finish(&w, &e) || indexed_commit(&w, &e) || indexed_open(&r, prefix, &e))
            fail_msg("%s", e.text);
        assert_string_equal(r.tokenizer, told ? hex : "");
        assert_int_equal(r.documents, 3);
        assert_int_equal(r.tokens, 6);
        indexed_digest(&r, 100, digest[told]);
        indexed_close(&r);
        free(scratch_read(path, &n[told]));
        for (int64_t token = 0; token < 6; token++) {
            assert_int_equal(indexed_place(prefix, token, &document, &within, &e), 0);
            assert_int_equal(document, (token > 0) + (token > 2));
            assert_int_equal(within, token - (document == 1) - 3 * (document == 2));
        }
    }
    assert_int_equal(n[1], n[0] + 8 + 32);
    assert_string_equal(digest[0], digest[1]);
    FILE *f = fopen(path, "r+b"); /* something else of that length */
    fseek(f, (long)n[0], SEEK_SET);
    fputc('c', f);
    fclose(f);
    assert_int_equal(indexed_open(&r, prefix, &e), EXIT_CORRUPT);
    assert_non_null(strstr(e.text, "do not make its"));
}

/* The header, byte for byte as Megatron-LM writes it. */
static void test_layout(void **state) {
    scratch *s = *state;
    static const unsigned char header[] = "MMIDIDX\0\0\1\0\0\0\0\0\0\0\10\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0"
                                          "\3\0\0\0\1\0\0\0"                                /* lengths */
                                          "\0\0\0\0\0\0\0\0\6\0\0\0\0\0\0\0"                /* byte offsets */
                                          "\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0"; /* documents */
    for (int wide = 0; wide < 2; wide++) {
        indexed_writer w;
        error e;
        char *prefix = scratch_path(s, "m"), path[160];
        assert_int_equal(indexed_create(&w, prefix, "", wide ? 65537 : 65536, &e), 0);
        indexed_add(&w, (const int32_t[]){1, 65535, 3}, 3);
        indexed_add(&w, (const int32_t[]){4}, 1);
        assert_int_equal(indexed_finish(&w, &e), 0);
        assert_int_equal(scratch_files(s),
                         wide ? 4 : 2); /* temporary names; the second time beside the first */
        assert_int_equal(indexed_commit(&w, &e), 0);
        assert_int_equal(scratch_files(s), 2);
        size_t n;
        snprintf(path, sizeof path, "%s.idx", prefix);
        unsigned char *idx = (unsigned char *)scratch_read(path, &n), expected[sizeof header];
        memcpy(expected, header, sizeof header);
        if (wide) expected[17] = 4, expected[50] = 12;
        assert_int_equal(n, sizeof header);
        assert_memory_equal(idx, expected, n);
        free(idx);
        snprintf(path, sizeof path, "%s.bin", prefix);
        char *bin = scratch_read(path, &n);
        assert_int_equal(n, wide ? 16 : 8);
        assert_memory_equal(bin, wide ? "\1\0\0\0\xFF\xFF\0\0\3\0\0\0\4\0\0\0" : "\1\0\xFF\xFF\3\0\4\0", n);
        free(bin);

        indexed_reader r;
        assert_int_equal(indexed_open(&r, prefix, &e), 0);
        int32_t tokens[4];
        indexed_copy(&r, 0, 4, tokens);
        assert_int_equal(r.tokens, 4);
        assert_int_equal(tokens[1], 65535);
        assert_int_equal(tokens[3], 4);
        indexed_close(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_sample_once_per_epoch, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_positions_are_found_directly, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_blocks_and_epochs_differ, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_every_version_draws_alike, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_a_place_is_where_the_tokens_are, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test(test_shares),
        cmocka_unit_test_setup_teardown(test_validation_in_file_order, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_refused_configs, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_files, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_an_id_found_late, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_digests, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_tokenizer_is_told, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_layout, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
