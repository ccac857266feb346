/* logits CKPT TOKENS OUT: the logits and losses of a checkpoint on given tokens, for comparison with other
 * programs. TOKENS: 32-bit ids, rows of train.seq_len + 2 (of the run's config.yaml).  OUT, a safetensors
 * file: logits [rows, seq_len, vocab_size] and loss [rows, seq_len], of the token that follows each position.
 */
#include <stdio.h>
#include <string.h>

#include "ckpt/safetensors.h"
#include "launch/files.h"
#include "launch/memory.h"
#include "train/checkpoint.h"
#include "train/session.h"

/* Both in the order in which OUT has them: all logits first. */
static void compute(session *x, const int32_t *tokens, int64_t rows, safetensors_writer *w, error *e) {
    int64_t seq = x->c.train.seq_len, vocab = x->c.model.vocab_size;
    real *logits = mem_alloc((size_t)vocab * sizeof *logits, "logits"),
         *loss = mem_alloc((size_t)(rows * seq) * sizeof *loss, "losses");
    for (int64_t i = 0; i < rows; i++) {
        model_forward(&x->s.model, tokens + i * (seq + 2), 1, seq, 1);
        model_evaluate(&x->s.model, loss + i * seq);
        for (int64_t t = 0; t < seq; t++) {
            model_logits(&x->s.model, t, logits);
            if (safetensors_append(w, logits, vocab, e)) FAULT(e->code, "%s", e->text);
        }
    }
    if (safetensors_append(w, loss, rows * seq, e)) FAULT(e->code, "%s", e->text);
    mem_free(logits);
    mem_free(loss);
}

int main(int argc, char **argv) {
    session x;
    error e = {0};
    ckpt *k;
    char *tokens;
    size_t bytes;
    safetensors_writer *w;
    if (argc != 4) FAULT(EXIT_USAGE, "usage: logits CKPT TOKENS OUT");
    if (session_open(&x, argv[1], 0, NULL, 0, &e)) return e.code;
    if (session_checkpoint(&x, argv[1], &k, &e) || checkpoint_init_from(&x.s, k, &e) ||
        read_file(argv[2], &tokens, &bytes, &e))
        FAULT(e.code, "%s", e.text);
    ckpt_close(k);
    int64_t seq = x.c.train.seq_len, row = (seq + 2) * 4, rows = (int64_t)bytes / row;
    if (rows == 0 || (int64_t)bytes % row)
        FAULT(EXIT_USAGE, "%s: no rows of %lld ids", argv[2], (long long)seq + 2);
    const safetensor_spec specs[] = {{"logits", "F32", 3, {rows, seq, x.c.model.vocab_size}},
                                     {"loss", "F32", 2, {rows, seq}}};
    if (safetensors_create(&w, argv[3], specs, 2, &e)) FAULT(e.code, "%s", e.text);
    compute(&x, (const int32_t *)tokens, rows, w, &e);
    if (safetensors_finish(w, 0, &e)) FAULT(e.code, "%s", e.text);
    mem_free(tokens);
    session_close(&x);
    return 0;
}
