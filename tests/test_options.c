/* Command lines: what a command knows, what belongs to the config, what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "launch/error.h"
#include "launch/options.h"

typedef struct line {
    options o;
    const char *text, *many[2];
    int64_t number;
    int given, result;
    char copy[256], *argv[16];
    char said[1024]; /* on stderr or stdout */
} line;

/* Reads one command line, split at spaces. */
static line read_line(int config, const char *words) {
    static line l; /* option values point into it */
    l = (line){.number = -1};
    const option known[] = {{"number", .integer = &l.number, .min = 1, .max = 20},
                            {"text", .text = &l.text},
                            {"many", .text = l.many, .most = 2, .given = &l.given},
                            {0}};
    l.o = (options){.usage = "usage: it\n", .known = known, .min_words = 1, .max_words = 2, .config = config};
    int argc = 0, kept[2] = {dup(1), dup(2)};
    snprintf(l.copy, sizeof l.copy, "%s", words);
    for (char *w = strtok(l.copy, " "); w; w = strtok(NULL, " ")) l.argv[argc++] = w;
    FILE *f = tmpfile();
    assert_non_null(f);
    fflush(NULL);
    dup2(fileno(f), 1);
    dup2(fileno(f), 2);
    l.result = options_read(&l.o, argc, l.argv);
    fflush(NULL);
    dup2(kept[0], 1);
    dup2(kept[1], 2);
    close(kept[0]);
    close(kept[1]);
    rewind(f);
    l.said[fread(l.said, 1, sizeof l.said - 1, f)] = 0;
    fclose(f);
    l.o.known = NULL;
    return l;
}

static void test_reads(void **state) {
    (void)state;
    line l = read_line(1, "it --a.b=1 A --number=7 --text=x --many=m --wait=2 --text=y=z B --many=n --c.d=3");
    assert_int_equal(l.result, 1);
    assert_int_equal(l.o.words, 2);
    assert_string_equal(l.o.word[0], "A");
    assert_string_equal(l.o.word[1], "B");
    assert_int_equal(l.o.overrides, 3);
    assert_string_equal(l.o.override[0], "--a.b=1");
    assert_string_equal(l.o.override[1], "--wait=2");
    assert_string_equal(l.o.override[2], "--c.d=3");
    assert_int_equal(l.number, 7);
    assert_string_equal(l.text, "y=z"); /* the last */
    assert_int_equal(l.given, 2);
    assert_string_equal(l.many[0], "m");
    assert_string_equal(l.many[1], "n");
    assert_string_equal(l.said, "");
    l = read_line(0, "it A");
    assert_int_equal(l.result, 1);
    assert_int_equal(l.o.words, 1);
    assert_int_equal(l.o.overrides, 0);
    assert_int_equal(l.number, -1);
    assert_null(l.text);
}

static void refuses(int config, const char *words, const char *why) {
    line l = read_line(config, words);
    if (l.result || l.o.code != EXIT_USAGE || !strstr(l.said, why) || !strstr(l.said, "\nusage: it\n"))
        fail_msg("%s: result %d, code %d, said \"%s\"", words, l.result, l.o.code, l.said);
}

static void test_refuses(void **state) {
    (void)state;
    refuses(1, "it", "it: an argument is missing");
    refuses(1, "it --number=3", "it: an argument is missing");
    refuses(1, "it one --optim.lr 1e-3", "--optim.lr needs a value: --optim.lr=1e-3");
    refuses(1, "it --optim.lr one", "--optim.lr needs a value: --optim.lr=one");
    refuses(1, "it A B C", "C: one argument too many");
    refuses(1, "it A --number=0", "--number=0: a whole number from 1 to 20");
    refuses(1, "it A --number=21", "--number=21");
    refuses(1, "it A --number=", "--number=");
    refuses(1, "it A --number=3x", "--number=3x");
    refuses(1, "it A --number=99999999999999999999", "--number=9");
    refuses(1, "it A --many=1 --many=2 --many=3", "--many: may be given 2 times");
    refuses(1, "it A --text", "--text needs a value");
    refuses(1, "it A --txet=1", "there is no option --txet; did you mean --text?");
    refuses(0, "it A --nubmer=1", "there is no option --nubmer; did you mean --number?");
    refuses(0, "it A --section.key=1", "there is no option --section.key");
    refuses(1, "it A -n", "there is no option -n");
}

static void test_help(void **state) {
    (void)state;
    line l = read_line(1, "it --number=x --help");
    assert_int_equal(l.result, 0);
    assert_int_equal(l.o.code, 0);
    assert_string_equal(l.said, "usage: it\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
