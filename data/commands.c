#include "data/commands.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/build.h"
#include "data/ngram.h"
#include "data/tokenizer.h"
#include "data/tokenizer_train.h"
#include "launch/memory.h"
#include "launch/options.h"

static const char tokenizer_usage[] =
    "usage: caracal tokenizer train --vocab-size=N --out=tokenizer.json FILE...\n"
    "       caracal tokenizer encode --tokenizer=tokenizer.json   text on stdin, ids on stdout\n"
    "       caracal tokenizer decode --tokenizer=tokenizer.json   ids on stdin, text on stdout\n"
    "Files are .jsonl with a \"text\" key on every line, or plain text.\n";
static const char build_usage[] =
    "usage: caracal data build --tokenizer=tokenizer.json --out=PREFIX [--valid-fraction=0.05] [--seed=0] "
    "FILE...\n"
    "Writes PREFIX.train.bin/.idx and PREFIX.valid.bin/.idx.  Files are .jsonl with a \"text\" key on every "
    "line,\n"
    "or plain text; plain files over 64 KiB are cut at blank lines into documents of about 4 KiB.\n"
    "Near-duplicate documents all stay, on one side of the split into training and held-out text.\n";
static const char ngram_usage[] = "usage: caracal data ngram PREFIX...\n"
                                  "Entropy and bigram loss of PREFIX.valid, in nats per token.  The bigram "
                                  "model is fitted on every PREFIX.train\n"
                                  "together, the own bigram model on that PREFIX.train alone.\n";

static int finish_stdout(void) {
    if (!ferror(stdout) && !fflush(stdout)) return EXIT_DONE;
    notice("cannot write to standard output: %s", strerror(errno));
    return EXIT_IO;
}

/* A list of documents that is taken as text, brackets, keys and all, is seldom what is meant. */
static void tell_json(const options *o) {
    int found = 0;
    const char *first = NULL;
    for (int i = o->words - 1; i >= 0; i--) {
        size_t n = strlen(o->word[i]);
        if (n > 5 && !strcmp(o->word[i] + n - 5, ".json")) first = o->word[i], found++;
    }
    if (!found) return;
    char more[32] = "";
    if (found > 1) snprintf(more, sizeof more, " (and %d more)", found - 1);
    notice("warning: %s%s: read as plain text, brackets and keys too; documents belong into a .jsonl, one "
           "{\"text\": ...} a line",
           first, more);
}

static int train(int argc, char **argv) {
    const char *out = NULL;
    int64_t vocab_size = 0;
    const option known[] = {
        {"out", .text = &out}, {"vocab-size", .integer = &vocab_size, .min = 1, .max = INT32_MAX}, {0}};
    options o = {.usage = tokenizer_usage, .known = known, .min_words = 1, .max_words = INT_MAX};
    if (!options_read(&o, argc, argv)) return o.code;
    if (!out || !vocab_size) return options_refuse(&o, "tokenizer train: --vocab-size and --out are needed");
    tokenizer_report r;
    error e = {0};
    tell_json(&o);
    if (tokenizer_train(out, vocab_size, (const char *const *)o.word, o.words, &r, &e))
        return error_print(&e);
    printf("%s: %lld tokens, learnt from %lld documents, %lld bytes, %lld pieces (%lld distinct)\n", out,
           (long long)vocab_size, (long long)r.documents, (long long)r.bytes, (long long)r.pieces,
           (long long)r.distinct_pieces);
    return finish_stdout();
}

/* All of standard input and a final 0, to be released with mem_free; NULL if reading fails. */
static char *read_stdin(size_t *bytes) {
    char *text = NULL;
    size_t room = 0, got;
    *bytes = 0;
    do {
        if (*bytes + 65536 + 1 > room) text = mem_grow(text, room = 2 * room + 65536 + 1, "standard input");
        got = fread(text + *bytes, 1, room - *bytes - 1, stdin);
        *bytes += got;
    } while (got);
    text[*bytes] = 0;
    if (!ferror(stdin)) return text;
    notice("cannot read standard input: %s", strerror(errno));
    mem_free(text);
    return NULL;
}

static int encode(tokenizer *t, const char *text, size_t bytes) {
    id_list ids = {0};
    tokenizer_encode(t, text, bytes, &ids);
    for (int64_t i = 0; i < ids.count; i++) printf("%d%c", ids.id[i], i + 1 < ids.count ? ' ' : '\n');
    mem_free(ids.id);
    return finish_stdout();
}

static int decode(const tokenizer *t, const char *text) {
    id_list ids = {0};
    error e = {0};
    char *decoded = NULL, *end;
    size_t bytes;
    for (text += strspn(text, " \t\r\n"); *text; text = end + strspn(end, " \t\r\n")) {
        long long id = strtoll(text, &end, 10);
        if (end == text || !strchr(" \t\r\n", *end)) {
            size_t word = strcspn(text, " \t\r\n");
            notice("standard input: \"%.*s\" is not a token id", word < 20 ? (int)word : 20, text);
            mem_free(ids.id);
            return EXIT_CORRUPT;
        }
        id_list_add(&ids, id < 0 || id > INT32_MAX ? -1 : (int32_t)id);
    }
    int code = tokenizer_decode(t, ids.id, ids.count, &decoded, &bytes, &e);
    if (code) error_print(&e);
    else {
        fwrite(decoded, 1, bytes, stdout);
        code = finish_stdout();
    }
    mem_free(decoded);
    mem_free(ids.id);
    return code;
}

int data_tokenizer_command(int argc, char **argv) {
    const char *path = NULL, *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "train")) return train(argc - 1, argv + 1);
    int encoding = !strcmp(what, "encode");
    const option known[] = {{"tokenizer", .text = &path}, {0}};
    options o = {.usage = tokenizer_usage, .known = known, .min_words = 1, .max_words = 1};
    if (!options_read(&o, argc, argv)) return o.code;
    if (!encoding && strcmp(what, "decode")) return options_refuse(&o, "tokenizer %s: no such command", what);
    if (!path) return options_refuse(&o, "tokenizer %s: --tokenizer=FILE is needed", what);

    error e = {0};
    tokenizer *t;
    if (tokenizer_open(&t, path, &e)) return error_print(&e);
    size_t bytes;
    char *text = read_stdin(&bytes);
    int code = !text ? EXIT_IO : encoding ? encode(t, text, bytes) : decode(t, text);
    mem_free(text);
    tokenizer_close(t);
    return code;
}

int data_build_command(int argc, char **argv) {
    build_config c = {.valid_fraction = 0.05};
    int64_t seed = 0;
    const option known[] = {{"tokenizer", .text = &c.tokenizer},
                            {"out", .text = &c.out},
                            {"seed", .integer = &seed, .min = 0, .max = INT64_MAX},
                            {"valid-fraction", .real = &c.valid_fraction, .min = 0, .max = 1},
                            {0}};
    options o = {.usage = build_usage, .known = known, .min_words = 1, .max_words = INT_MAX};
    if (!options_read(&o, argc, argv)) return o.code;
    if (!c.tokenizer || !c.out) return options_refuse(&o, "data build: --tokenizer and --out are needed");
    if (c.valid_fraction == 1) return options_refuse(&o, "--valid-fraction=1 leaves nothing to train on");
    size_t n = strlen(c.out);
    if (!n || c.out[n - 1] == '/')
        return options_refuse(&o, "--out=%s: how the files' names begin is wanted, as in --out=%smine", c.out,
                              c.out);
    c.seed = (uint64_t)seed;
    c.file = (const char *const *)o.word;
    c.files = o.words;
    build_report r;
    error e = {0};
    tell_json(&o);
    if (data_build(&c, &r, &e)) return error_print(&e);
    int64_t tokens = r.train_tokens + r.valid_tokens;
    printf("%s: %lld documents, %lld bytes, %lld tokens, %.2f bytes a token\n", c.out, (long long)r.documents,
           (long long)r.bytes, (long long)tokens, (double)r.bytes / (double)tokens);
    printf("  train %lld documents, %lld tokens; held out %lld documents, %lld tokens\n",
           (long long)r.train_documents, (long long)r.train_tokens, (long long)r.valid_documents,
           (long long)r.valid_tokens);
    printf("  near-duplicate groups %lld, of %lld documents\n", (long long)r.near_duplicate_groups,
           (long long)r.near_duplicates);
    return finish_stdout();
}

static void print_row(const char *name, const ngram_loss *l) {
    printf("%-32s %12lld %12lld %10.4f %10.4f %10.4f\n", name, (long long)l->train_tokens,
           (long long)l->valid_tokens, l->unigram, l->bigram, l->bigram_own);
}

int data_ngram_command(int argc, char **argv) {
    options o = {.usage = ngram_usage, .min_words = 1, .max_words = INT_MAX};
    if (!options_read(&o, argc, argv)) return o.code;
    int sources = o.words;
    ngram_files *files = mem_alloc((size_t)sources * sizeof *files, "file names");
    ngram_loss *loss = mem_alloc((size_t)sources * sizeof *loss, "losses"), total;
    char **name = mem_alloc(2 * (size_t)sources * sizeof *name, "file names");
    for (int s = 0; s < sources; s++) {
        size_t n = strlen(o.word[s]) + sizeof ".train";
        for (int k = 0; k < 2; k++) {
            name[2 * s + k] = mem_alloc(n, "a file name");
            snprintf(name[2 * s + k], n, "%s.%s", o.word[s], k ? "valid" : "train");
        }
        files[s] = (ngram_files){name[2 * s], name[2 * s + 1]};
    }
    error e = {0};
    int code = ngram_measure(loss, &total, files, sources, &e);
    if (code) error_print(&e);
    else {
        printf("%-32s %12s %12s %10s %10s %10s\n", "nats per held-out token", "train", "held out", "unigram",
               "bigram", "own bigram");
        for (int s = 0; s < sources; s++) print_row(o.word[s], &loss[s]);
        print_row("total", &total);
        puts("bigram: fitted on the train text of all; own bigram: on that of the line alone");
        code = finish_stdout();
    }
    for (int i = 0; i < 2 * sources; i++) mem_free(name[i]);
    mem_free(name);
    mem_free(files);
    mem_free(loss);
    return code;
}
