#include "train/generate.h"

#include <stdio.h>
#include <string.h>

#include "launch/memory.h"
#include "launch/options.h"
#include "train/checkpoint.h"
#include "train/console.h"
#include "train/sampling.h"
#include "train/session.h"

enum { MAX_PROMPTS = 64 };

typedef struct generation {
    session x;
    sampling how;
    int64_t count; /* tokens to add */
    real *logits;
    sampling_token *candidates;
    double seconds;
    int64_t made; /* tokens, by all prompts */
    int outgrown; /* a text was longer than seq_len */
    int terminal; /* a person reads along */
} generation;

static void show(const generation *g, const char *text, size_t bytes) {
    if (comm_rank(g->x.world) != 0) return;
    fwrite(text, 1, bytes, stdout);
    if (g->terminal) fflush(stdout);
}

/* Continues a prompt, the text-th, by g->count tokens or to the end of the document.  The model sees at most
 * seq_len tokens: when they are full it goes on from the later half of them. */
static void continue_prompt(generation *g, id_list *ids, uint64_t text) {
    session *x = &g->x;
    int64_t seq = x->s.c.train.seq_len, vocab = tokenizer_vocab_size(x->tokenizer), seen = 0, room = 0;
    for (int64_t i = 0; i < g->count; i++) {
        if (room < ids->count - seen) {
            int64_t keep = ids->count < seq ? ids->count : (seq + 1) / 2;
            model_continue(&x->s.model);
            seen = ids->count - keep;
            if (seen) g->outgrown = 1;
            room = seq;
        }
        int64_t more = ids->count - seen;
        model_extend(&x->s.model, ids->id + seen, more);
        seen += more;
        room -= more;
        model_logits(&x->s.model, more - 1, g->logits);
        int32_t next = sampling_choose(&g->how, g->logits, vocab, text, (uint64_t)i, g->candidates);
        g->made++;
        if (next == tokenizer_eos(x->tokenizer)) return;
        ids->id[ids->count++] = next;
        size_t bytes;
        const char *token = tokenizer_token(x->tokenizer, next, &bytes);
        show(g, token, bytes);
    }
}

static int answer(generation *g, const char *prompt, uint64_t text, error *e) {
    id_list ids = {0};
    tokenizer_encode(g->x.tokenizer, prompt, strlen(prompt), &ids);
    if (!ids.count) return error_set(e, EXIT_USAGE, "--prompt=: a text is wanted");
    ids.id = mem_grow(ids.id, (size_t)(ids.count + g->count) * sizeof *ids.id, "tokens");
    show(g, prompt, strlen(prompt));
    if (g->terminal) show(g, "\342\226\270", 3); /* where the model takes over */
    const double began = comm_clock();
    continue_prompt(g, &ids, text);
    g->seconds += comm_clock() - began;
    show(g, "\n\n", 2);
    mem_free(ids.id);
    return 0;
}

static int run(generation *g, const char *path, int prompts, const char *const *prompt, error *e) {
    session *x = &g->x;
    ckpt *k;
    if (session_checkpoint(x, path, &k, e)) return e->code;
    int code = checkpoint_init_from(&x->s, k, e);
    int64_t step = ckpt_step(k);
    ckpt_close(k);
    if (code) return code;
    state_enter(&x->s, step > 0 ? step - 1 : 0);
    x->s.k.hold(x->s.k.ctx, x->s.model.p.weights, x->s.model.weights); /* for good */
    g->logits = mem_alloc((size_t)x->c.model.vocab_size * sizeof *g->logits, "logits");
    g->candidates = mem_alloc((size_t)x->c.model.vocab_size * sizeof *g->candidates, "candidates");
    for (int i = 0; i < prompts && !code; i++) code = answer(g, prompt[i], (uint64_t)i, e);
    if (!code && comm_rank(x->world) == 0) {
        fflush(stdout);
        fprintf(stderr, "%lld tokens, %.0f tokens/s\n", (long long)g->made, (double)g->made / g->seconds);
        if (g->outgrown)
            fprintf(stderr,
                    "a text outgrew train.seq_len %lld: from there on the model saw half of it or more\n",
                    (long long)x->s.c.train.seq_len);
    }
    mem_free(g->logits);
    mem_free(g->candidates);
    return code;
}

int generate_command(int argc, char **argv) {
    const char *prompt[MAX_PROMPTS];
    int prompts = 0;
    int64_t seed = 1;
    generation g = {.how = {.temperature = 0, .top_p = 1}, .count = 64, .terminal = console_on_terminal()};
    const option known[] = {{"tokens", .integer = &g.count, .min = 1, .max = 1 << 20},
                            {"prompt", .text = prompt, .most = MAX_PROMPTS, .given = &prompts},
                            {"temperature", .real = &g.how.temperature, .min = 0, .max = 1e6},
                            {"top-p", .real = &g.how.top_p, .min = 0, .max = 1},
                            {"seed", .integer = &seed, .min = 0, .max = INT32_MAX},
                            {0}};
    options o = {.usage = "usage: caracal generate CKPT --prompt=TEXT [--prompt=TEXT ...] [--tokens=64] "
                          "[--temperature=0] [--top-p=1] [--seed=1] [--section.key=value ...]\n"
                          "On a terminal a mark stands where the model takes over from the prompt.\n",
                 .known = known,
                 .min_words = 1,
                 .max_words = 1,
                 .config = 1};
    if (!options_read(&o, argc, argv)) return o.code;
    if (!prompts) return options_refuse(&o, "generate: --prompt=TEXT is missing");
    g.how.seed = (uint64_t)seed;
    error e;
    int code = session_open(&g.x, o.word[0], o.overrides, o.override, 0, &e);
    if (code) return code;
    code = run(&g, o.word[0], prompts, prompt, &e);
    session_report(&g.x, &e);
    session_close(&g.x);
    return code;
}
