/* From text to token files: the split keeps near duplicates together, faults in the text are named by file
 * and line, and a failed build leaves nothing under a final name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "data/build.h"
#include "data/commands.h"
#include "data/documents.h"
#include "data/indexed.h"
#include "data/near_duplicates.h"
#include "data/tokenizer.h"
#include "launch/memory.h"
#include "launch/random.h"
#include "tests/scratch.h"
#include "tests/synced.h"

#define TOKENIZER "tests/golden/tokenizer/tokenizer.json"

/* text [800] = 100 words that depend on the seed alone. */
static void write_words(char *text, uint64_t seed) {
    for (uint64_t i = 0; i < 100; i++) {
        uint64_t bits = random_bits(seed, 1, i);
        for (int k = 0; k < 7; k++, bits /= 26) *text++ = (char)('a' + bits % 26);
        *text++ = i % 12 == 11 ? '\n' : ' ';
    }
}

static int build(scratch *s, const char *file, double valid_fraction, build_report *r, error *e) {
    build_config c = {.tokenizer = TOKENIZER,
                      .out = scratch_path(s, "out"),
                      .valid_fraction = valid_fraction,
                      .seed = 1,
                      .file = &file,
                      .files = 1};
    *e = (error){0};
    return data_build(&c, r, e);
}

static void check_refused(scratch *s, const char *file, double valid_fraction, int code,
                          const char *message) {
    build_report r;
    error e;
    int before = scratch_files(s), is = build(s, file, valid_fraction, &r, &e);
    if (is != code || !strstr(e.text, message))
        fail_msg("\"%s\" is not in \"%s\" (exit code %d)", message, e.text, is);
    assert_int_equal(scratch_files(s), before);
}

/* ---- documents ---- */

static void test_tokens_are_the_documents(void **state) {
    scratch *s = *state;
    const char *file =
        scratch_write(s, "a.jsonl",
                      "\xEF\xBB\xBF{\"text\": \"one \\u4e2d\\n\", \"id\": 36893488147419103232}\n"
                      "\n"
                      "{\"text\": \"\"}\r\n"
                      "{\"url\": \"x\", \"text\": \"nul \\u0000 and <|endoftext|>\"}");
    build_report r;
    error e;
    if (build(s, file, 0, &r, &e)) fail_msg("%s", e.text);
    assert_int_equal(r.documents, 2);
    assert_int_equal(r.bytes, 8 + 23);
    assert_int_equal(r.valid_documents, 0);
    assert_int_equal(scratch_files(s), 3); /* no files for a held-out part that is not wanted */

    indexed_reader f;
    assert_int_equal(indexed_open(&f, scratch_path(s, "out.train"), &e), 0);
    assert_int_equal(f.sequences, 2);
    assert_int_equal(f.tokens, r.train_tokens);
    int32_t *ids = mem_alloc((size_t)f.tokens * sizeof *ids, "tokens");
    indexed_copy(&f, 0, f.tokens, ids);
    int eos = 0;
    for (int64_t i = 0; i < f.tokens; i++) eos += ids[i] == 0;
    assert_int_equal(eos, 2); /* one a document; the one spelt in the text is text */
    assert_int_equal(ids[f.tokens - 1], 0);

    tokenizer *t;
    char *text;
    size_t bytes;
    assert_int_equal(tokenizer_open(&t, TOKENIZER, &e), 0);
    assert_int_equal(tokenizer_decode(t, ids, f.tokens, &text, &bytes, &e), 0);
    assert_int_equal(bytes, 31);
    assert_memory_equal(text, "one \xE4\xB8\xAD\nnul \0 and <|endoftext|>", 31);
    mem_free(text);
    mem_free(ids);
    tokenizer_close(t);
    indexed_close(&f);
}

static void test_plain_text_is_cut_at_blank_lines(void **state) {
    scratch *s = *state;
    enum { BYTES = 300000 };
    char *text = mem_alloc(BYTES + 1, "text");
    for (int i = 0; i < BYTES; i++) /* paragraphs of 1000 bytes, then one line of 3-byte characters */
        text[i] = i >= 100000      ? "\xE4\xB8\xAD"[(i - 100000) % 3]
                  : i % 1000 > 997 ? '\n'
                                   : 'a' + (char)(i % 7);
    document_reader *r;
    document d;
    error e = {0};
    size_t total = 0;
    int documents = 0, long_ones = 0;
    assert_int_equal(documents_open(&r, scratch_write_bytes(s, "a.txt", text, BYTES - 2), &e), 0);
    for (int more; (more = documents_next(r, &d, &e)); documents++) {
        if (more < 0) fail_msg("%s", e.text);
        assert_memory_equal(d.text, text + total, d.bytes);
        total += d.bytes;
        if (total <= 100000) assert_int_equal(d.bytes, 5000); /* the first blank line after 4 KiB */
        else assert_in_range(d.bytes, 1, DOCUMENT_CUT_BEFORE);
        long_ones += d.bytes > 60000;
    }
    assert_int_equal(total, BYTES - 2);
    assert_int_equal(long_ones, 3);
    documents_close(r);

    for (int i = 0; i < 100000; i++) /* lines end as elsewhere */
        text[i] = i % 1000 > 995 ? "\r\n"[i % 2] : 'a';
    assert_int_equal(documents_open(&r, scratch_write_bytes(s, "c.txt", text, 100000), &e), 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(documents_next(r, &d, &e), 1);
        assert_int_equal(d.bytes, 5000);
    }
    assert_int_equal(documents_next(r, &d, &e), 0);
    documents_close(r);

    static const size_t lines[] = {4097, 64903, 31000}; /* a blank line right behind 4 KiB, and no other */
    for (int i = 0; i < 100000; i++) text[i] = i == 4095 || i == 4096 || i % 1000 == 999 ? '\n' : 'a';
    assert_int_equal(documents_open(&r, scratch_write_bytes(s, "d.txt", text, 100000), &e), 0);
    for (int i = 0; i < 3; i++) assert_true(documents_next(r, &d, &e) == 1 && d.bytes == lines[i]);
    documents_close(r);

    text[DOCUMENT_CUT_BEFORE] = 0; /* small enough to be one document */
    assert_int_equal(documents_open(&r, scratch_write_bytes(s, "b.txt", text, DOCUMENT_CUT_BEFORE), &e), 0);
    assert_int_equal(documents_next(r, &d, &e), 1);
    assert_int_equal(d.bytes, DOCUMENT_CUT_BEFORE);
    assert_int_equal(documents_next(r, &d, &e), 0);
    documents_close(r);
    mem_free(text);
}

static void test_faults_in_the_text(void **state) {
    scratch *s = *state;
    check_refused(s,
                  scratch_write(s, "u.txt",
                                "one\ntwo\nthr\xFF"
                                "e\n"),
                  0, EXIT_CORRUPT, "u.txt, line 3: the byte 0xFF at offset 11 is not UTF-8");
    check_refused(s, scratch_write(s, "u.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\xC0\x80\"}\n"), 0,
                  EXIT_CORRUPT, "u.jsonl, line 2: the byte 0xC0");
    check_refused(s, scratch_write(s, "j.jsonl", "{\"text\": \"a\"}\n\n{\"text\": \n"), 0, EXIT_CORRUPT,
                  "j.jsonl, line 3: not valid JSON");
    check_refused(s, scratch_write(s, "s.jsonl", "{\"text\": \"\\ud800\"}\n"), 0, EXIT_CORRUPT,
                  "s.jsonl, line 1");
    check_refused(s, scratch_write(s, "k.jsonl", "{\"text\": \"a\"}\n{\"txt\": \"a\"}\n"), 0, EXIT_CORRUPT,
                  "k.jsonl, line 2: not an object with a string \"text\"");
    check_refused(s, scratch_write(s, "n.jsonl", "{\"text\": 5}\n"), 0, EXIT_CORRUPT,
                  "line 1: not an object");
    check_refused(s, scratch_write(s, "l.jsonl", "[1]\n"), 0, EXIT_CORRUPT, "line 1: not an object");
    check_refused(s, scratch_write(s, "e.txt", ""), 0.1, EXIT_CORRUPT, "e.txt: there is no text in it");
    check_refused(s, scratch_write(s, "e.jsonl", "{\"text\": \"\"}\n"), 0.1, EXIT_CORRUPT,
                  "there is no text");
    check_refused(s, scratch_path(s, "nowhere.txt"), 0.1, EXIT_IO, "nowhere.txt: No such file");
    check_refused(s, s->directory, 0.1, EXIT_IO, "Is a directory");
    char *pipe = scratch_path(s, "pipe.jsonl"); /* nobody writes into it */
    assert_int_equal(mkfifo(pipe, 0666), 0);
    check_refused(s, pipe, 0.1, EXIT_IO, "pipe.jsonl: not a regular file");
    check_refused(s, scratch_write(s, "one.txt", "a document alone"), 0.1, EXIT_USAGE,
                  "nothing can be held out");

    char *path = scratch_write(s, "h.jsonl",
                               "{\"text\": \"a\"}\n"); /* a line of 65 MiB of zeros: a hole on the disk */
    assert_int_equal(truncate(path, 65 << 20), 0);
    check_refused(s, path, 0, EXIT_CORRUPT,
                  "h.jsonl, line 2: 68157426 bytes long; the limit is 64 MiB a line");
}

/* ---- near duplicates ---- */

/* 200 texts, of which every fifth has three near copies: a word changed, white space and case, a tail. */
static void write_corpus(char (*text)[1000], int *original, int *documents) {
    *documents = 0;
    for (int i = 0; i < 200; i++) {
        for (int copy = 0; copy < (i % 5 ? 1 : 4); copy++) {
            char *t = text[*documents];
            original[(*documents)++] = i;
            write_words(t, (uint64_t)i);
            if (copy == 1) memset(t + 400, 'z', 7);
            if (copy == 2)
                for (char *c = t; *c; c++)
                    *c = *c == ' ' && (c - t) % 3 ? '\n' : *c >= 'a' && *c < 'h' ? *c - 32 : *c;
            if (copy == 3) strcat(t, "and a tail that the first one does not have\n");
        }
    }
}

static void test_near_duplicates_stay_together(void **state) {
    (void)state;
    static char text[400][1000];
    static uint8_t held_out[400], reversed[400];
    int original[400], documents;
    write_corpus(text, original, &documents);
    assert_int_equal(documents, 320);
    for (uint64_t seed = 0; seed < 5; seed++) {
        near_duplicates *n = near_duplicates_open(), *m = near_duplicates_open();
        for (int d = 0; d < documents; d++) {
            near_duplicates_add(n, text[d], strlen(text[d]));
            near_duplicates_add(m, text[documents - 1 - d], strlen(text[documents - 1 - d]));
        }
        near_duplicates_split split = near_duplicates_hold_out(n, 0.2, seed, held_out);
        assert_int_equal(split.groups, 40);
        assert_int_equal(split.grouped, 160);
        assert_int_equal(split.documents, 320);
        int64_t bytes = 0;
        for (int d = 0; d < documents; d++) bytes += held_out[d] ? (int64_t)strlen(text[d]) : 0;
        assert_in_range(bytes, 0.19 * (double)split.bytes, 0.2 * (double)split.bytes);
        for (int d = 1; d < documents; d++)
            if (original[d] == original[d - 1]) assert_int_equal(held_out[d], held_out[d - 1]);
        near_duplicates_hold_out(m, 0.2, seed, reversed); /* the order of the documents does not matter */
        for (int d = 0; d < documents; d++) assert_int_equal(held_out[d], reversed[documents - 1 - d]);
        near_duplicates_close(n);
        near_duplicates_close(m);
    }
}

static void test_the_seed_chooses_what_is_held_out(void **state) {
    (void)state;
    static uint8_t a[100], b[100];
    near_duplicates *n = near_duplicates_open();
    for (uint64_t d = 0; d < 100; d++) {
        char text[1000] = "";
        write_words(text, d);
        near_duplicates_add(n, text, strlen(text));
    }
    near_duplicates_split split = near_duplicates_hold_out(n, 0.3, 1, a);
    near_duplicates_hold_out(n, 0.3, 2, b);
    assert_int_equal(split.held_out, 30);
    assert_memory_not_equal(a, b, sizeof a);
    split = near_duplicates_hold_out(n, 0, 1, a);
    assert_int_equal(split.held_out, 0);
    split = near_duplicates_hold_out(n, 1e-9, 1, a); /* too little for any: the smallest, not nothing */
    assert_int_equal(split.held_out, 1);
    near_duplicates_close(n);
}

/* Of 60 pairs of documents with so many pieces in common, and so many more each, those that are found. */
static int64_t pairs_found(uint64_t common, uint64_t own) {
    static char text[20 * 800 + 1];
    static uint8_t held_out[120];
    near_duplicates *n = near_duplicates_open();
    for (uint64_t d = 0; d < 120; d++) {
        for (uint64_t i = 0; i < common + own; i++)
            write_words(text + 800 * i, i < common ? 1000 * (d / 2) + i : 100000 + 1000 * d + i);
        near_duplicates_add(n, text, 800 * (common + own));
    }
    near_duplicates_split split = near_duplicates_hold_out(n, 0.5, 1, held_out);
    near_duplicates_close(n);
    return split.groups;
}

/* Seven tenths of what either has are enough, a fifth is not. */
static void test_how_much_is_near(void **state) {
    (void)state;
    assert_in_range(pairs_found(14, 3), 56, 60);
    assert_in_range(pairs_found(4, 8), 0, 5);
}

/* Short documents have few shingles; equal ones must still meet, and different ones must not. */
static void test_short_documents(void **state) {
    (void)state;
    static const char *const text[] = {"a",   "b",      "A", "the same words, thirty-two bytes",
                                       "x y", "x\n\ny", ""};
    uint8_t held_out[7];
    near_duplicates *n = near_duplicates_open();
    for (int d = 0; d < 7; d++) near_duplicates_add(n, text[d], strlen(text[d]));
    near_duplicates_split split = near_duplicates_hold_out(n, 0.5, 1, held_out);
    assert_int_equal(split.groups, 2); /* a and A, x y and x y */
    assert_int_equal(split.grouped, 4);
    near_duplicates_close(n);
}

/* ---- files ---- */

static const char *write_jsonl(scratch *s, int documents) {
    char *path = scratch_path(s, "c.jsonl"), text[1000] = "";
    FILE *f = fopen(path, "w");
    for (int d = 0; d < documents; d++) {
        write_words(text, (uint64_t)d);
        for (char *c = text; *c; c++) *c = *c == '\n' ? ' ' : *c;
        fprintf(f, "{\"text\": \"%s\"}\n", text);
    }
    fclose(f);
    return path;
}

static void test_both_sides_and_their_replacement(void **state) {
    scratch *s = *state;
    const char *file = write_jsonl(s, 100);
    build_report r;
    error e;
    synced_forget();
    if (build(s, file, 0.1, &r, &e)) fail_msg("%s", e.text);
    assert_int_equal(r.documents, 100);
    assert_int_equal(r.valid_documents, 10);
    assert_int_equal(r.train_documents, 90);
    assert_int_equal(scratch_files(s), 5);
    static const char *const made[] = {"out.train.bin", "out.train.idx", "out.valid.bin", "out.valid.idx"};
    for (int i = 0; i < 4; i++) assert_true(synced(scratch_path(s, made[i])));
    assert_int_equal(synced(s->directory), 4); /* after each new name */
    synced_forget();
    indexed_reader f;
    assert_int_equal(indexed_open(&f, scratch_path(s, "out.valid"), &e), 0);
    assert_int_equal(f.tokens, r.valid_tokens);
    indexed_close(&f);
    /* all of it for training: the held-out files of before, whose text is now trained on, go */
    if (build(s, file, 0, &r, &e)) fail_msg("%s", e.text);
    assert_int_equal(r.train_documents, 100);
    assert_int_equal(scratch_files(s), 3);
    assert_int_equal(synced(s->directory), 3); /* the old index is gone before there are other tokens */
}

/* A limit on the size of files stands in for a full disk: at every size the build either is whole or leaves
 * what was there before. */
static void test_full_disk(void **state) {
    scratch *s = *state;
    const char *file = write_jsonl(s, 60);
    build_report r;
    error e;
    if (build(s, file, 0.1, &r, &e)) fail_msg("%s", e.text);
    size_t n;
    char *before = scratch_read(scratch_path(s, "out.train.bin"), &n), *after;
    struct rlimit old, limit;
    getrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_IGN);
    file = write_jsonl(s, 100);
    for (rlim_t size = 0; size < n; size += 4000) {
        limit = (struct rlimit){size, old.rlim_max};
        setrlimit(RLIMIT_FSIZE, &limit);
        int code = build(s, file, 0.1, &r, &e);
        setrlimit(RLIMIT_FSIZE, &old);
        if (code != EXIT_IO || !strstr(e.text, "out.") || !strstr(e.text, "File too large"))
            fail_msg("exit code %d at %zu bytes: %s", code, (size_t)size, e.text);
        assert_int_equal(scratch_files(s), 5); /* nothing temporary is left */
        after = scratch_read(scratch_path(s, "out.train.bin"), NULL);
        assert_memory_equal(before, after, n);
        free(after);
    }
    signal(SIGXFSZ, SIG_DFL);
    if (build(s, file, 0.1, &r, &e)) fail_msg("%s", e.text);
    free(before);
}

static void test_directory_that_cannot_be_written(void **state) {
    scratch *s = *state;
    const char *file = write_jsonl(s, 10);
    build_config c = {
        .tokenizer = TOKENIZER, .out = scratch_path(s, "not/yet/out"), .file = &file, .files = 1};
    build_report r;
    error e = {0};
    assert_int_equal(data_build(&c, &r, &e), 0); /* directories that are missing are made */
    c.out = scratch_path(s, "not/yet/out.train.idx/out");
    assert_int_equal(data_build(&c, &r, &e), EXIT_IO);
    assert_non_null(strstr(e.text, "out.train.idx: Not a directory; remove"));
}

/* ---- the command line ---- */

static int run(int (*command)(int, char **), char **argv) {
    int argc = 0;
    while (argv[argc]) argc++;
    fflush(stdout);
    fflush(stderr);
    int out = dup(1), err = dup(2);
    if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)) abort();
    int code = command(argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    return code;
}

static void test_commands(void **state) {
    scratch *s = *state;
    static char tokenizer_option[] = "--tokenizer=" TOKENIZER;
    char out[160], json[160], *file = (char *)write_jsonl(s, 60);
    snprintf(out, sizeof out, "--out=%s", scratch_path(s, "p"));
    snprintf(json, sizeof json, "--out=%s", scratch_path(s, "t.json"));
    char *train[] = {"tokenizer", "train", "--vocab-size=300", json, file, NULL};
    assert_int_equal(run(data_tokenizer_command, train), 0);
    char *ok[] = {"build", tokenizer_option, out, "--valid-fraction=0.2", "--seed=3", file, NULL};
    assert_int_equal(run(data_build_command, ok), 0);
    char *ngram[] = {"ngram", scratch_path(s, "p"), NULL};
    assert_int_equal(run(data_ngram_command, ngram), 0);
    char *nowhere[] = {"ngram", scratch_path(s, "q"), NULL};
    assert_int_equal(run(data_ngram_command, nowhere), EXIT_IO);
    char *help[] = {"build", "--help", NULL};
    assert_int_equal(run(data_build_command, help), 0);

    char *wrong[][8] = {
        {"build", NULL},
        {"build", tokenizer_option, out, NULL},
        {"build", tokenizer_option, out, "--valid-fraction=1", file, NULL},
        {"build", tokenizer_option, "--out=", file, NULL},
        {"build", tokenizer_option, "--out=/tmp/", file, NULL},
        {"build", tokenizer_option, out, "--valid-fraction=nan", file, NULL},
        {"build", tokenizer_option, out, "--seed=x", file, NULL},
        {"build", tokenizer_option, out, "--unknown=1", file, NULL},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(run(data_build_command, wrong[i]), EXIT_USAGE);
    char *wrong_words[][8] = {
        {"tokenizer", NULL},
        {"tokenizer", "learn", NULL},
        {"tokenizer", "encode", NULL},
        {"tokenizer", "train", "--vocab-size=3e2", json, file, NULL},
        {"tokenizer", "train", "--vocab-size=300", file, NULL},
    };
    for (size_t i = 0; i < sizeof wrong_words / sizeof *wrong_words; i++)
        assert_int_equal(run(data_tokenizer_command, wrong_words[i]), EXIT_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tokens_are_the_documents, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_plain_text_is_cut_at_blank_lines, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test_setup_teardown(test_faults_in_the_text, scratch_setup, scratch_teardown),
        cmocka_unit_test(test_near_duplicates_stay_together),
        cmocka_unit_test(test_the_seed_chooses_what_is_held_out),
        cmocka_unit_test(test_how_much_is_near),
        cmocka_unit_test(test_short_documents),
        cmocka_unit_test_setup_teardown(test_both_sides_and_their_replacement, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test_setup_teardown(test_full_disk, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_directory_that_cannot_be_written, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test_setup_teardown(test_commands, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
