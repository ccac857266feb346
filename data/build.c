#include "data/build.h"

#include "data/indexed.h"
#include "data/near_duplicates.h"
#include "data/texts.h"
#include "data/tokenizer.h"
#include "launch/files.h"
#include "launch/memory.h"

/* First pass: which document is like which.  Documents are not kept: the files are read twice. */
static int find_near_duplicates(const build_config *c, near_duplicates *n, error *e) {
    texts t = texts_open("comparing documents", c->file, c->files);
    document d;
    int more;
    while ((more = texts_next(&t, &d, e)) > 0) near_duplicates_add(n, d.text, d.bytes);
    texts_close(&t);
    return more < 0 ? e->code : 0;
}

/* Second pass: tokens, to one side or the other. */
static int write_tokens(const build_config *c, tokenizer *t, const uint8_t *held_out, int64_t documents,
                        indexed_writer *train, indexed_writer *valid, error *e) {
    id_list ids = {0};
    int64_t number = 0;
    texts all = texts_open("writing tokens", c->file, c->files);
    document d;
    int more;
    while ((more = texts_next(&all, &d, e)) > 0 && number++ < documents) {
        ids.count = 0;
        tokenizer_encode(t, d.text, d.bytes, &ids);
        id_list_add(&ids, tokenizer_eos(t));
        indexed_add(held_out[number - 1] ? valid : train, ids.id, ids.count);
    }
    texts_close(&all);
    mem_free(ids.id);
    if (more < 0) return e->code;
    return number == documents ? 0
                               : error_set(e, EXIT_CORRUPT, "the text files changed while they were read");
}

static int write_files(const build_config *c, tokenizer *t, const uint8_t *held_out,
                       const near_duplicates_split *split, build_report *report, error *e) {
    char *train_prefix = text_of("%s.train", c->out), *valid_prefix = text_of("%s.valid", c->out);
    int64_t vocab_size = tokenizer_vocab_size(t);
    indexed_writer train = {0}, valid = {0};

    int code = indexed_create(&train, train_prefix, tokenizer_digest(t), vocab_size, e);
    if (!code && split->held_out)
        code = indexed_create(&valid, valid_prefix, tokenizer_digest(t), vocab_size, e);
    if (!code) code = write_tokens(c, t, held_out, split->documents, &train, &valid, e);
    *report = (build_report){.documents = split->documents,
                             .bytes = split->bytes,
                             .train_documents = train.documents,
                             .train_tokens = train.tokens,
                             .valid_documents = valid.documents,
                             .valid_tokens = valid.tokens,
                             .near_duplicate_groups = split->groups,
                             .near_duplicates = split->grouped};
    if (!code) code = indexed_finish(&train, e);
    if (!code && split->held_out) code = indexed_finish(&valid, e);
    if (!code) { /* files held out earlier must not stand beside new training files that may hold their text
                  */
        indexed_remove(valid_prefix);
        code = indexed_commit(&train, e);
    }
    if (!code && split->held_out) code = indexed_commit(&valid, e);
    indexed_discard(&train);
    indexed_discard(&valid);
    mem_free(train_prefix);
    mem_free(valid_prefix);
    return code;
}

int data_build(const build_config *c, build_report *report, error *e) {
    tokenizer *t;
    if (tokenizer_open(&t, c->tokenizer, e)) return e->code;
    near_duplicates *n = near_duplicates_open();
    uint8_t *held_out = NULL;
    int code = find_near_duplicates(c, n, e);
    if (!code) {
        held_out = mem_alloc((size_t)near_duplicates_count(n), "the split of the documents");
        near_duplicates_split split = near_duplicates_hold_out(n, c->valid_fraction, c->seed, held_out);
        if (!split.documents)
            code = error_set(e, EXIT_CORRUPT, "%s%s: there is no text in it", c->file[0],
                             c->files > 1 ? " and the other files" : "");
        else if (!split.held_out && c->valid_fraction > 0)
            code = error_set(
                e, EXIT_USAGE,
                "nothing can be held out of %s: all of it is one document, or near duplicates of one "
                "another; give more text, or --valid-fraction=0",
                c->file[0]);
        else code = write_files(c, t, held_out, &split, report, e);
    }
    near_duplicates_close(n);
    mem_free(held_out);
    tokenizer_close(t);
    return code;
}
