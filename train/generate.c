#include "train/generate.h"

#include <stdio.h>
#include <string.h>

#include "launch/memory.h"
#include "launch/options.h"
#include "train/checkpoint.h"
#include "train/session.h"

enum { MAX_PROMPTS = 64 };

static int32_t most_likely(const real *logits, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

/* Continues a prompt greedily by `count` tokens or to the end of the document, seeing the last seq_len
 * tokens. */
static void continue_prompt(session *x, id_list *ids, int64_t count, int32_t *window, real *logits) {
    int64_t seq = x->c.train.seq_len, vocab = tokenizer_vocab_size(x->tokenizer);
    for (int64_t i = 0; i < count; i++) {
        int64_t n = ids->count < seq ? ids->count : seq;
        memcpy(window, ids->id + ids->count - n, (size_t)n * sizeof *window);
        window[n] = window[n + 1] = 0; /* targets, which nobody asks for */
        model_forward(&x->s.model, window, 1, n, 1);
        model_logits(&x->s.model, n - 1, logits);
        int32_t next = most_likely(logits, vocab);
        if (next == tokenizer_eos(x->tokenizer)) return;
        ids->id[ids->count++] = next;
    }
}

static int run(session *x, const char *path, int prompts, const char *const *prompt, int64_t count,
               error *e) {
    ckpt *k;
    if (session_checkpoint(x, path, &k, e)) return e->code;
    int code = checkpoint_init_from(&x->s, k, e);
    ckpt_close(k);
    if (code) return code;
    int32_t *window = mem_alloc((size_t)(x->c.train.seq_len + 2) * sizeof *window, "tokens");
    real *logits = mem_alloc((size_t)x->c.model.vocab_size * sizeof *logits, "logits");
    for (int i = 0; i < prompts && !code; i++) {
        id_list ids = {0};
        char *text = NULL;
        size_t bytes;
        tokenizer_encode(x->tokenizer, prompt[i], strlen(prompt[i]), &ids);
        int64_t given = ids.count;
        ids.id = mem_grow(ids.id, (size_t)(given + count) * sizeof *ids.id, "tokens");
        if (given) continue_prompt(x, &ids, count, window, logits);
        code = tokenizer_decode(x->tokenizer, ids.id + given, ids.count - given, &text, &bytes, e);
        if (!code && comm_rank(x->world) == 0) {
            printf("%s\342\226\270", prompt[i]); /* a mark where the model takes over */
            fwrite(text, 1, bytes, stdout);
            printf("\n\n");
        }
        mem_free(text);
        mem_free(ids.id);
    }
    mem_free(window);
    mem_free(logits);
    return code;
}

int generate_command(int argc, char **argv) {
    const char *prompt[MAX_PROMPTS];
    int64_t count = 64;
    int prompts = 0;
    const option known[] = {{"tokens", .integer = &count, .min = 1, .max = 1 << 20},
                            {"prompt", .text = prompt, .most = MAX_PROMPTS, .given = &prompts},
                            {0}};
    options o = {.usage = "usage: caracal generate CKPT --prompt=TEXT [--prompt=TEXT ...] [--tokens=64] "
                          "[--section.key=value ...]\n",
                 .known = known,
                 .min_words = 1,
                 .max_words = 1,
                 .config = 1};
    if (!options_read(&o, argc, argv)) return o.code;
    if (!prompts) return options_refuse(&o, "generate: --prompt=TEXT is missing");
    char config_path[4096];
    session x;
    error e;
    session_config_of(o.word[0], config_path, sizeof config_path);
    int code = session_open(&x, config_path, o.overrides, o.override, 0, &e);
    if (code) return code;
    code = run(&x, o.word[0], prompts, prompt, count, &e);
    session_report(&x, &e);
    session_close(&x);
    return code;
}
