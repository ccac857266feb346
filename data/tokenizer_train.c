#include "data/tokenizer_train.h"

#include "data/bpe_train.h"
#include "data/piece_table.h"
#include "data/pretokenize.h"
#include "data/texts.h"
#include "data/tokenizer_json.h"
#include "launch/memory.h"

typedef struct piece_counts {
    piece_table pieces;
    int64_t *count; /* [pieces.count] */
    int64_t room;
} piece_counts;

static void count_piece(piece_counts *c, const char *piece, size_t bytes) {
    int64_t number = piece_table_number(&c->pieces, piece, bytes);
    if (number >= c->room) {
        int64_t room = 2 * c->room + 4096;
        c->count = mem_grow(c->count, (size_t)room * sizeof *c->count, "the counts of pieces");
        for (int64_t i = c->room; i < room; i++) c->count[i] = 0;
        c->room = room;
    }
    c->count[number]++;
}

static int count_pieces(piece_counts *c, pretokenizer *p, const char *const *file, int files,
                        tokenizer_report *report, error *e) {
    texts t = texts_open("counting pieces", file, files);
    document d;
    int more;
    while ((more = texts_next(&t, &d, e)) > 0) {
        piece_walk walk = {.text = d.text, .bytes = d.bytes};
        const char *piece;
        size_t bytes;
        for (; pretokenize_next(p, &walk, &piece, &bytes); report->pieces++) count_piece(c, piece, bytes);
        report->documents++;
        report->bytes += (int64_t)d.bytes;
    }
    texts_close(&t);
    return more < 0 ? e->code : 0;
}

int tokenizer_train(const char *out, int64_t vocab_size, const char *const *file, int files,
                    tokenizer_report *report, error *e) {
    *report = (tokenizer_report){0};
    pretokenizer *p;
    if (pretokenizer_open(&p, pretokenize_pattern, e)) return e->code;
    piece_counts c = {0};
    bpe learnt = {0};
    int code = count_pieces(&c, p, file, files, report, e);
    report->distinct_pieces = c.pieces.count;
    if (!code && !report->documents) code = error_set(e, EXIT_CORRUPT, "%s: there is no text in it", file[0]);
    if (!code) code = bpe_train(&learnt, &c.pieces, c.count, vocab_size, e);
    if (!code) code = tokenizer_json_write(&learnt, pretokenize_pattern, out, e);
    bpe_free(&learnt);
    piece_table_free(&c.pieces);
    mem_free(c.count);
    pretokenizer_close(p);
    return code;
}
