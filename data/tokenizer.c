#include "data/tokenizer.h"

#include <string.h>
#include <xxhash.h>

#include "data/bpe.h"
#include "data/input.h"
#include "data/piece_table.h"
#include "data/pretokenize.h"
#include "data/tokenizer_json.h"
#include "launch/files.h"
#include "launch/memory.h"

/* The cache of encoded pieces is emptied when it holds this many; longer pieces are not kept: they rarely
 * come twice. */
enum { CACHE_PIECES = 1 << 20, CACHE_PIECE_BYTES = 64 };

struct tokenizer {
    bpe bpe;
    pretokenizer *pretokenizer;
    bpe_scratch scratch;
    piece_table seen;   /* cached pieces ... */
    id_list seen_ids;   /* ... their ids, one piece after the other ... */
    int64_t *seen_from; /* [CACHE_PIECES + 1] ... and where each piece's begin */
    char digest[33];
};

int tokenizer_open(tokenizer **out, const char *path, error *e) {
    input file;
    if (input_open(&file, path, e)) return e->code;
    tokenizer *t = mem_alloc(sizeof *t, "a tokenizer");
    char *pattern = NULL;
    int code = tokenizer_json_read(&t->bpe, &pattern, path, file.data, file.bytes, e);
    if (!code && (code = pretokenizer_open(&t->pretokenizer, pattern, e))) error_within(e, "%s", path);
    mem_free(pattern);
    if (!code) {
        digest_text(XXH3_128bits(file.data, file.bytes), t->digest);
        t->seen_from = mem_alloc((CACHE_PIECES + 1) * sizeof *t->seen_from, "the cache of a tokenizer");
        *out = t;
    } else tokenizer_close(t);
    input_close(&file);
    return code;
}

void tokenizer_close(tokenizer *t) {
    if (!t) return;
    bpe_free(&t->bpe);
    pretokenizer_close(t->pretokenizer);
    bpe_scratch_free(&t->scratch);
    piece_table_free(&t->seen);
    mem_free(t->seen_ids.id);
    mem_free(t->seen_from);
    mem_free(t);
}

static int32_t *room_for(id_list *l, size_t more) {
    if (l->count + (int64_t)more > l->room) {
        l->room = 2 * (l->count + (int64_t)more) + 256;
        l->id = mem_grow(l->id, (size_t)l->room * sizeof *l->id, "token ids");
    }
    return l->id + l->count;
}

void id_list_add(id_list *l, int32_t id) {
    *room_for(l, 1) = id;
    l->count++;
}

static void encode_piece(tokenizer *t, const char *piece, size_t bytes, id_list *ids) {
    if (bytes > CACHE_PIECE_BYTES) {
        ids->count += (int64_t)bpe_encode(&t->bpe, &t->scratch, piece, bytes, room_for(ids, bytes));
        return;
    }
    if (t->seen.count == CACHE_PIECES) {
        piece_table_clear(&t->seen);
        t->seen_ids.count = 0;
    }
    int64_t before = t->seen.count, number = piece_table_number(&t->seen, piece, bytes);
    if (number == before) {
        id_list *l = &t->seen_ids;
        l->count += (int64_t)bpe_encode(&t->bpe, &t->scratch, piece, bytes, room_for(l, bytes));
        t->seen_from[number + 1] = l->count;
    }
    size_t count = (size_t)(t->seen_from[number + 1] - t->seen_from[number]);
    memcpy(room_for(ids, count), t->seen_ids.id + t->seen_from[number], count * sizeof *ids->id);
    ids->count += (int64_t)count;
}

void tokenizer_encode(tokenizer *t, const char *text, size_t bytes, id_list *ids) {
    piece_walk walk = {.text = text, .bytes = bytes};
    const char *piece;
    size_t n;
    while (pretokenize_next(t->pretokenizer, &walk, &piece, &n)) encode_piece(t, piece, n, ids);
}

const char *tokenizer_token(const tokenizer *t, int32_t id, size_t *bytes) {
    if (id < 0 || id >= t->bpe.vocab_size) return NULL;
    *bytes = (size_t)(t->bpe.start[id + 1] - t->bpe.start[id]);
    return t->bpe.text + t->bpe.start[id];
}

int tokenizer_decode(const tokenizer *t, const int32_t *ids, int64_t count, char **text, size_t *bytes,
                     error *e) {
    size_t total = 0, n;
    for (int64_t i = 0; i < count; i++) {
        if (!tokenizer_token(t, ids[i], &n))
            return error_set(e, EXIT_CORRUPT, "token %lld is %d, and the vocabulary has %d tokens",
                             (long long)i, ids[i], t->bpe.vocab_size);
        total += n;
    }
    char *to = *text = mem_alloc(total + 1, "decoded text");
    for (int64_t i = 0; i < count; i++) {
        const char *token = tokenizer_token(t, ids[i], &n);
        memcpy(to, token, n);
        to += n;
    }
    *bytes = total;
    return 0;
}

int64_t tokenizer_vocab_size(const tokenizer *t) {
    return t->bpe.vocab_size;
}
int32_t tokenizer_eos(const tokenizer *t) {
    return t->bpe.eos;
}
const char *tokenizer_digest(const tokenizer *t) {
    return t->digest;
}
