/* The tokenizer: pieces, learning, encoding and decoding of any bytes, and what is refused in tokenizer.json.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data/bpe_train.h"
#include "data/pretokenize.h"
#include "data/tokenizer.h"
#include "data/tokenizer_json.h"
#include "data/tokenizer_train.h"
#include "data/utf8.h"
#include "launch/memory.h"
#include "launch/random.h"
#include "tests/scratch.h"

#define GOLDEN "tests/golden/tokenizer/"

/* ---- pieces ---- */

/* `expected` is the pieces with '|' between them. */
static void check_pieces(pretokenizer *p, const char *text, size_t bytes, const char *expected) {
    char got[512] = "";
    size_t used = 0, n;
    piece_walk walk = {.text = text, .bytes = bytes};
    for (const char *piece; pretokenize_next(p, &walk, &piece, &n); used += n) {
        if (used) got[used++] = '|';
        memcpy(got + used, piece, n);
    }
    got[used] = 0;
    assert_string_equal(got, expected);
}

static void test_pieces(void **state) {
    (void)state;
    static const char *const expected[] = {
        "Hello|,| world|!",
        "it|'s| they|'LL| don|'t| '|ve",
        "x|=|1|2|3|.|4|;",                             /* every digit alone */
        "v|2|0|2|4|年三月| a",                         /* no letter joins a CJK character ... */
        "see|中文|and|ひらがなカタカナー|then|한국어", /* ... and CJK runs stay whole */
        "，|你好|。\n",
        "a|  | b|\n\n|   | c|  ", /* the last space leads the word after it */
        "if| (|x|)| {\n|   | return|;\n|}",
        "\t\r\n|x|  \n|y", /* line ends take the space before them */
        "naïve| Ελλάδα| привет",
        "\u180Ea|\u00A0|\u00A0x", /* U+180E is no space, U+00A0 is one */
    };
    pretokenizer *p;
    error e;
    assert_int_equal(pretokenizer_open(&p, pretokenize_pattern, &e), 0);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        char text[256];
        size_t n = 0;
        for (const char *c = expected[i]; *c; c++)
            if (*c != '|') text[n++] = *c;
        check_pieces(p, text, n, expected[i]);
    }
    check_pieces(p,
                 "ab\xFF\xFE"
                 "cd \xE4\xB8",
                 9, "ab|\xFF|\xFE|cd| |\xE4|\xB8"); /* bytes that are no UTF-8 */
    enum { MANY = 12 << 20 };                       /* more steps than PCRE2 takes unless it is told */
    piece_walk spaces = {.text = memset(mem_alloc(MANY, "text"), ' ', MANY), .bytes = MANY};
    const char *piece;
    size_t n;
    assert_int_equal(pretokenize_next(p, &spaces, &piece, &n), 1);
    assert_int_equal(n, MANY);
    mem_free((char *)spaces.text);
    pretokenizer_close(p);

    assert_int_equal(pretokenizer_open(&p, "a(", &e), EXIT_CORRUPT);
    assert_non_null(strstr(e.text, "character 2"));
}

static void test_utf8(void **state) {
    (void)state;
    char all[4 * 128];
    for (uint32_t c = 0; c < 0x110000; c += 61) { /* code points come back; surrogates are no characters */
        int n = utf8_put(all, c), m;
        assert_int_equal(utf8_get(all, &m), c);
        assert_int_equal(n, m);
        assert_int_equal(utf8_valid_prefix(all, (size_t)n), c >= 0xD800 && c < 0xE000 ? 0 : n);
        if (n > 1) assert_int_equal(utf8_valid_prefix(all, (size_t)n - 1), 0);
    }
    static const char *const bad[] = {
        "\x80",         "\xC0\x80",         "\xC1\xBF",         "\xE0\x9F\xBF",
        "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[32] = "twelve bytes";
        strcat(text, bad[i]);
        assert_int_equal(utf8_valid_prefix(text, strlen(text)), 12);
    }
}

/* ---- learning ---- */

static bpe learn(const char *const *word, const int64_t *count, int words, int reversed, int64_t vocab_size) {
    piece_table pieces = {0};
    int64_t sorted[16];
    for (int i = 0; i < words; i++) {
        int w = reversed ? words - 1 - i : i;
        sorted[piece_table_number(&pieces, word[w], strlen(word[w]))] = count[w];
    }
    bpe b;
    error e;
    assert_int_equal(bpe_train(&b, &pieces, sorted, vocab_size, &e), 0);
    piece_table_free(&pieces);
    return b;
}

static const char *token_text(const bpe *b, int32_t id) {
    static char text[64];
    snprintf(text, sizeof text, "%.*s", (int)(b->start[id + 1] - b->start[id]), b->text + b->start[id]);
    return text;
}

/* The counts of the classic example: low 5, lower 2, newest 6, widest 3. */
static void test_known_merges(void **state) {
    (void)state;
    static const char *const word[] = {"low", "lower", "newest", "widest"};
    static const int64_t count[] = {5, 2, 6, 3};
    /* es and st occur 9 times, es has the lower ids; then est 9; lo 7 before ow 7; low 7; ne 6 before ew and
     * we; new 6 before west; newest 6; then 3 times: id before wi; wid, widest */
    static const char *const learnt[] = {"es",  "est",    "lo",   "low",   "ew",
                                         "new", "newest", "dest", "idest", "widest"};
    for (int reversed = 0; reversed < 2; reversed++) {
        bpe b = learn(word, count, 4, reversed, BPE_FIRST_MERGED_ID + 10);
        for (int i = 0; i < 10; i++) assert_string_equal(token_text(&b, BPE_FIRST_MERGED_ID + i), learnt[i]);
        assert_int_equal(b.vocab_size, BPE_FIRST_MERGED_ID + 10);
        bpe_scratch s = {0};
        int32_t ids[16];
        assert_int_equal(bpe_encode(&b, &s, "lowest", 6, ids), 2); /* low est */
        bpe_scratch_free(&s);
        bpe_free(&b);
    }
}

/* Counts by hand: the trainer's are kept up to date by differences, here all are taken anew for every merge.
 */
static void naive_merges(const char *const *word, const int64_t *count, int words, bpe_merge *merge,
                         int merges) {
    static int32_t token[16][64];
    static int64_t times[400][400];
    int n[16];
    for (int w = 0; w < words; w++)
        for (n[w] = 0; word[w][n[w]]; n[w]++)
            token[w][n[w]] = BPE_FIRST_BYTE_ID + (unsigned char)word[w][n[w]];
    for (int m = 0; m < merges; m++) {
        memset(times, 0, sizeof times);
        for (int w = 0; w < words; w++)
            for (int i = 0; i + 1 < n[w]; i++) times[token[w][i]][token[w][i + 1]] += count[w];
        int32_t left = 0, right = 0;
        for (int32_t a = 0; a < 400; a++)
            for (int32_t b = 0; b < 400; b++)
                if (times[a][b] > times[left][right]) left = a, right = b;
        merge[m] = (bpe_merge){left, right, BPE_FIRST_MERGED_ID + m};
        for (int w = 0; w < words; w++) {
            int kept = 0;
            for (int i = 0; i < n[w]; i++) {
                int here = i + 1 < n[w] && token[w][i] == left && token[w][i + 1] == right;
                token[w][kept++] = here ? merge[m].into : token[w][i];
                i += here;
            }
            n[w] = kept;
        }
    }
}

static void test_learning_is_as_counted_by_hand(void **state) {
    (void)state;
    static const char *const word[] = {"aaaaaaa",     "abababa", "bananas", "mississippi",  "aabaabaab",
                                       "abracadabra", "xyxxyxy", "nanana",  "banananabana", "cacao"};
    static const int64_t count[] = {3, 5, 7, 11, 4, 6, 9, 8, 2, 10};
    bpe_merge merge[30];
    naive_merges(word, count, 10, merge, 30);
    bpe b = learn(word, count, 10, 0, BPE_FIRST_MERGED_ID + 30);
    for (int m = 0; m < 30; m++) {
        assert_int_equal(b.merge[m].left, merge[m].left);
        assert_int_equal(b.merge[m].right, merge[m].right);
        assert_int_equal(b.merge[m].into, merge[m].into);
    }
    bpe_free(&b);
}

static void test_learning_is_deterministic(void **state) {
    scratch *s = *state;
    char *a = scratch_path(s, "a.json"), *b = scratch_path(s, "b.json");
    const char *forth[] = {GOLDEN "text.txt", "tests/test_tokenizer.c"};
    const char *back[] = {forth[1], forth[0]};
    tokenizer_report r;
    error e;
    assert_int_equal(tokenizer_train(a, 600, forth, 2, &r, &e), 0);
    assert_int_equal(r.documents, 2);
    assert_int_equal(tokenizer_train(b, 600, back, 2, &r, &e), 0);
    size_t n, m;
    char *x = scratch_read(a, &n), *y = scratch_read(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static void test_too_little_text(void **state) {
    scratch *s = *state;
    const char *file = scratch_write(s, "a.txt", "abab");
    char *out = scratch_path(s, "t.json");
    tokenizer_report r;
    error e;
    assert_int_equal(tokenizer_train(out, 300, &file, 1, &r, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "at 258"));
    assert_int_equal(tokenizer_train(out, 256, &file, 1, &r, &e), EXIT_USAGE);
    file = scratch_write(s, "b.txt", "abc ab ab bc"); /* once ab is a token, bc is there once only */
    assert_int_equal(tokenizer_train(out, 300, &file, 1, &r, &e), EXIT_USAGE);
    assert_non_null(strstr(e.text, "at 259"));
    assert_int_equal(scratch_files(s), 2);
}

/* ---- encoding ---- */

static tokenizer *open_golden(void) {
    tokenizer *t;
    error e = {0};
    if (tokenizer_open(&t, GOLDEN "tokenizer.json", &e)) fail_msg("%s", e.text);
    return t;
}

static void test_ids_of_the_tokenizers_library(void **state) {
    (void)state;
    tokenizer *t = open_golden();
    size_t bytes;
    char *text = scratch_read(GOLDEN "text.txt", &bytes), *ids = scratch_read(GOLDEN "ids.txt", NULL),
         *at = ids;
    id_list l = {0};
    tokenizer_encode(t, text, bytes, &l);
    assert_true(l.count > 5000);
    for (int64_t i = 0; i < l.count; i++) assert_int_equal(l.id[i], strtol(at, &at, 10));
    assert_int_equal(strspn(at, " \n"), strlen(at));
    assert_int_equal(tokenizer_vocab_size(t), 640);
    assert_int_equal(tokenizer_eos(t), 0);
    assert_int_equal(strlen(tokenizer_digest(t)), 32);
    mem_free(l.id);
    free(text);
    free(ids);
    tokenizer_close(t);
}

static void check_round_trip(tokenizer *t, const char *text, size_t bytes) {
    id_list ids = {0};
    tokenizer_encode(t, text, bytes, &ids);
    char *back;
    size_t n;
    error e;
    assert_int_equal(tokenizer_decode(t, ids.id, ids.count, &back, &n, &e), 0);
    assert_int_equal(n, bytes);
    assert_memory_equal(back, text, n);
    for (int64_t i = 0; i < ids.count; i++) assert_int_not_equal(ids.id[i], tokenizer_eos(t));
    mem_free(back);
    mem_free(ids.id);
}

static void test_round_trips(void **state) {
    (void)state;
    tokenizer *t = open_golden();
    char *text = mem_alloc(4 * 0x10000 + 64, "text");
    for (uint32_t plane = 0; plane < 17; plane++) { /* every code point */
        size_t n = 0;
        for (uint32_t c = plane << 16; c < (plane + 1) << 16; c++)
            if (c < 0xD800 || c >= 0xE000) n += (size_t)utf8_put(text + n, c);
        check_round_trip(t, text, n);
    }
    for (uint64_t i = 0; i < 50000; i++) text[i] = (char)random_bits(1, 2, i);
    check_round_trip(t, text, 50000);
    for (uint64_t i = 0; i < 50000; i++)
        text[i] = (char)(random_bits(3, 4, i) % 3 ? 0xE4 + i % 3 : ' '); /* torn */
    check_round_trip(t, text, 50000);
    check_round_trip(t, "", 0);
    check_round_trip(t, "a <|endoftext|> b", 17); /* text stays text */
    memset(text, 'a', 200000);                    /* one long piece */
    check_round_trip(t, text, 200000);
    mem_free(text);
    tokenizer_close(t);
}

/* The encoder's heap against the rule itself: the lowest rank anywhere, leftmost first. */
static void test_encoding_follows_the_ranks(void **state) {
    (void)state;
    size_t bytes;
    char *json = scratch_read(GOLDEN "tokenizer.json", &bytes), *pattern;
    error e;
    bpe b;
    assert_int_equal(tokenizer_json_read(&b, &pattern, "tokenizer.json", json, bytes, &e), 0);
    bpe_scratch s = {0};
    for (uint64_t round = 0; round < 2000; round++) {
        char piece[24];
        int32_t ids[24], token[24];
        int n = 1 + (int)(random_bits(5, round, 99) % 24), left = n;
        for (int i = 0; i < n; i++)
            piece[i] = " etahsnoi\xE4\xB8\xAD"[random_bits(5, round, (uint64_t)i) % 12];
        for (int i = 0; i < n; i++) token[i] = b.byte_id[(unsigned char)piece[i]];
        for (;;) {
            int best = -1;
            int64_t rank = INT64_MAX;
            for (int i = 0; i + 1 < left; i++) {
                const int64_t *r = pair_table_find(&b.rank, token[i], token[i + 1]);
                if (r && *r < rank) rank = *r, best = i;
            }
            if (best < 0) break;
            token[best] = b.merge[rank].into;
            memmove(token + best + 1, token + best + 2, (size_t)(--left - best - 1) * sizeof *token);
        }
        assert_int_equal(bpe_encode(&b, &s, piece, (size_t)n, ids), left);
        assert_memory_equal(ids, token, (size_t)left * sizeof *ids);
    }
    bpe_scratch_free(&s);
    bpe_free(&b);
    mem_free(pattern);
    free(json);
}

static void test_decoding_refuses_unknown_ids(void **state) {
    (void)state;
    tokenizer *t = open_golden();
    char *text;
    size_t n;
    error e;
    static const int32_t bad[] = {5, 640}, negative[] = {-1};
    assert_int_equal(tokenizer_decode(t, bad, 2, &text, &n, &e), EXIT_CORRUPT);
    assert_non_null(strstr(e.text, "token 1 is 640"));
    assert_int_equal(tokenizer_decode(t, negative, 1, &text, &n, &e), EXIT_CORRUPT);
    tokenizer_close(t);
}

/* ---- tokenizer.json ---- */

/* The golden file with one place changed must be refused with this message. */
static void check_refused(scratch *s, const char *from, const char *to, const char *message) {
    char *json = scratch_read(GOLDEN "tokenizer.json", NULL);
    char *at = strstr(json, from);
    assert_non_null(at);
    char *changed = calloc(1, strlen(json) + strlen(to) + 1);
    sprintf(changed, "%.*s%s%s", (int)(at - json), json, to, at + strlen(from));
    char *path = scratch_write(s, "changed.json", changed);
    tokenizer *t;
    error e = {0};
    assert_int_equal(tokenizer_open(&t, path, &e), EXIT_CORRUPT);
    if (!strstr(e.text, message) || !strstr(e.text, path))
        fail_msg("\"%s\" is not in \"%s\"", message, e.text);
    free(changed);
    free(json);
}

static void test_refused_files(void **state) {
    scratch *s = *state;
    check_refused(s, "\"!\": 34", "\"!\": 35", "id 35 stands twice");
    check_refused(s, "\"!\": 34", "\"!\": 34,\n\"!\": 34", "duplicate");
    check_refused(s, "\"!\": 34", "\"!\": 640", "is not one of 0 to 639");
    check_refused(s, "\"!\": 34", "\"!\": 34.5", "is not one of 0 to 639");
    check_refused(s, "\"!\": 34", "\"!中\": 34", "stands for no byte");
    check_refused(s, "\"!\": 34", "\"!!!!!!!\": 34", "no piece for the byte 0x21");
    check_refused(s, "\"merges\": [", "\"merges\": [\"Ġ zzz\",",
                  "merges[0]: \"zzz\" is not in the vocabulary");
    check_refused(s, "\"merges\": [", "\"merges\": [\"q q\",", "makes \"qq\", which is not");
    check_refused(s, "\"merges\": [", "\"merges\": [[\"q\"],", "merges[0] is not a pair");
    check_refused(s, "\"merges\": [", "\"merges\": [\"Ġ a\",\"Ġ a\",",
                  "merges[1] stands twice: it is also merge 0");
    check_refused(s, "\"id\": 0", "\"id\": 1", "added_tokens gives <|endoftext|> the id 1");
    check_refused(s, "\"id\": 0", "\"id\": \"0\"", "the id of <|endoftext|> is not an integer");
    check_refused(s, "\"merges\": [", "\"merges\": {}, \"others\": [", "model.merges is not a list");
    check_refused(s, "\"vocab\": {", "\"vocab\": [], \"others\": {", "model.vocab is missing or empty");
    check_refused(s, "\"!\": 34", "\"!\": \"34\"", "is not one of 0 to 639");
    check_refused(s, "\"merges\": [", "\"merges\": [[\"q\", 5],", "merges[0] is not a pair");
    check_refused(s, "\"truncation\": null", "\"truncation\": {\"max_length\": 9}",
                  "tokenizer.truncation is");
    check_refused(s, "\"padding\": null", "\"padding\": {}", "tokenizer.padding is");
    check_refused(s, "\"post_processor\": null", "\"post_processor\": {\"type\": \"TemplateProcessing\"}",
                  "post_processor.type is");
    check_refused(s, "\"special\": true", "\"special\": false", "added_tokens");
    check_refused(s, "\"type\": \"BPE\"", "\"type\": \"WordPiece\"", "only \"BPE\" is supported");
    check_refused(s, "\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}",
                  "tokenizer.normalizer is");
    check_refused(s, "\"use_regex\": false", "\"use_regex\": true", "use_regex is true; only false");
    check_refused(s, "\"behavior\": \"Isolated\"", "\"behavior\": \"Removed\"", "only \"Isolated\"");
    check_refused(s, "\"ignore_merges\": false", "\"ignore_merges\": true", "ignore_merges");
    check_refused(s, "\"Regex\": \"", "\"Regex\": \"(", "PCRE2 refuses");
    check_refused(s, "\"Regex\": \"", "\"Regex\": \"\\\\C|", "at character 2: using \\C is disabled");
    check_refused(s, "\"version\"", "version", "line 2: not a valid tokenizer.json");

    tokenizer *t;
    error e;
    assert_int_equal(tokenizer_open(&t, scratch_path(s, "nowhere.json"), &e), EXIT_IO);
    assert_non_null(strstr(e.text, "nowhere.json"));
}

/* Newer versions of the library write merges as pairs. */
static void test_merges_as_pairs(void **state) {
    scratch *s = *state;
    char *json = scratch_read(GOLDEN "tokenizer.json", NULL), *changed = calloc(1, 2 * strlen(json));
    char *merges = strstr(json, "\"merges\": [") + 11, *to = changed;
    to += sprintf(to, "%.*s", (int)(merges - json), json);
    char *end = strchr(merges, ']');
    for (char *quote = strchr(merges, '"'); quote && quote < end;) { /* "a b" -> ["a","b"] */
        char *space = strchr(quote, ' '), *close = strchr(space, '"');
        to += sprintf(to, "[%.*s\",\"%.*s],\n", (int)(space - quote), quote, (int)(close - space), space + 1);
        quote = strchr(close + 1, '"');
    }
    sprintf(to - 2, "%s", end);
    tokenizer *a = open_golden(), *b;
    error e = {0};
    if (tokenizer_open(&b, scratch_write(s, "pairs.json", changed), &e)) fail_msg("%s", e.text);
    size_t bytes;
    char *text = scratch_read(GOLDEN "text.txt", &bytes);
    id_list x = {0}, y = {0};
    tokenizer_encode(a, text, bytes, &x);
    tokenizer_encode(b, text, bytes, &y);
    assert_int_equal(x.count, y.count);
    assert_memory_equal(x.id, y.id, (size_t)x.count * sizeof *x.id);
    assert_string_not_equal(tokenizer_digest(a), tokenizer_digest(b));
    mem_free(x.id);
    mem_free(y.id);
    tokenizer_close(a);
    tokenizer_close(b);
    free(text);
    free(json);
    free(changed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_known_merges),
        cmocka_unit_test(test_learning_is_as_counted_by_hand),
        cmocka_unit_test_setup_teardown(test_learning_is_deterministic, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_too_little_text, scratch_setup, scratch_teardown),
        cmocka_unit_test(test_ids_of_the_tokenizers_library),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_encoding_follows_the_ranks),
        cmocka_unit_test(test_decoding_refuses_unknown_ids),
        cmocka_unit_test_setup_teardown(test_refused_files, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_merges_as_pairs, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
