#include "train/choices.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "launch/files.h"
#include "launch/memory.h"

typedef struct exam {
    state *s;
    tokenizer *t;
    const char *path;
    int64_t line, questions, right, right_per_byte;
    double chance; /* sum of 1 / choices */
    int32_t *tokens;
    real *loss;
} exam;

/* Log-likelihood of choice after question, in nats. */
static int likelihood(exam *x, const char *question, const char *choice, double *sum, error *e) {
    int64_t seq = x->s->c.train.seq_len;
    id_list ids = {0};
    tokenizer_encode(x->t, question, strlen(question), &ids);
    int64_t given = ids.count;
    tokenizer_encode(x->t, choice, strlen(choice), &ids);
    int64_t n = ids.count - 1, skip = n > seq ? n - seq : 0; /* inputs, and how many do not fit */
    int code = 0;
    *sum = 0;
    if (given == 0 || ids.count == given)
        code = error_set(e, EXIT_CORRUPT, "%s:%lld: a question or a choice has no text", x->path,
                         (long long)x->line);
    else if (ids.count - given > seq)
        code = error_set(e, EXIT_USAGE, "%s:%lld: a choice has %lld tokens, more than train.seq_len = %lld",
                         x->path, (long long)x->line, (long long)(ids.count - given), (long long)seq);
    else {
        n -= skip;
        memcpy(x->tokens, ids.id + skip, (size_t)(n + 1) * sizeof *x->tokens);
        x->tokens[n + 1] = 0;
        model_forward(&x->s->model, x->tokens, 1, n, 1); /* all ranks the same: they share the experts */
        model_evaluate(&x->s->model, x->loss);
        for (int64_t i = given - 1 - skip; i < n; i++) *sum -= (double)x->loss[i];
    }
    mem_free(ids.id);
    return code;
}

static int best_of(int64_t n, const double *score) {
    int best = 0;
    for (int64_t i = 1; i < n; i++)
        if (score[i] > score[best]) best = (int)i;
    return best;
}

enum { MOST_CHOICES = 64 };

static int ask(exam *x, const json_t *row, error *e) {
    double score[MOST_CHOICES], per_byte[MOST_CHOICES];
    const char *question = json_string_value(json_object_get(row, "question"));
    const json_t *choices = json_object_get(row, "choices"), *answer = json_object_get(row, "answer");
    int64_t n = (int64_t)json_array_size(choices), right = json_integer_value(answer);
    if (!question || !json_is_integer(answer) || n < 2 || n > MOST_CHOICES || right < 0 || right >= n)
        return error_set(
            e, EXIT_CORRUPT,
            "%s:%lld: must be {\"question\": text, \"choices\": [2 to %d texts], \"answer\": index from 0}",
            x->path, (long long)x->line, MOST_CHOICES);
    for (int64_t i = 0; i < n; i++) {
        const char *choice = json_string_value(json_array_get(choices, (size_t)i));
        if (!choice)
            return error_set(e, EXIT_CORRUPT, "%s:%lld: choice %lld is no text", x->path, (long long)x->line,
                             (long long)i);
        if (likelihood(x, question, choice, &score[i], e)) return e->code;
        per_byte[i] = score[i] / (double)strlen(choice);
    }
    x->questions++;
    x->chance += 1 / (double)n;
    x->right += best_of(n, score) == right;
    x->right_per_byte += best_of(n, per_byte) == right;
    return 0;
}

static int ask_all(exam *x, FILE *f, error *e) {
    char *line = NULL;
    size_t room = 0;
    int code = 0;
    while (!code && getline(&line, &room, f) > 0) {
        json_error_t why;
        x->line++;
        if (line[strspn(line, " \t\r\n")] == 0) continue;
        json_t *row = json_loads(line, JSON_REJECT_DUPLICATES, &why);
        code =
            row ? ask(x, row, e)
                : error_set(e, EXIT_CORRUPT, "%s:%lld: not JSON: %s", x->path, (long long)x->line, why.text);
        json_decref(row);
    }
    mem_free(line);
    if (!code && ferror(f))
        code = error_set(e, EXIT_USAGE, "--choices=%s: cannot be read: %s", x->path, strerror(errno));
    if (code) return code;
    return x->questions ? 0 : error_set(e, EXIT_USAGE, "%s: has no question", x->path);
}

int choices_evaluate(state *s, tokenizer *t, const char *path, error *e) {
    const char *why;
    FILE *f = open_text(path, &why);
    if (!f) return error_set(e, EXIT_USAGE, "--choices=%s: cannot be read: %s", path, why);
    exam x = {.s = s, .t = t, .path = path};
    x.tokens = mem_alloc((size_t)(s->c.train.seq_len + 2) * sizeof *x.tokens, "tokens");
    x.loss = mem_alloc((size_t)s->c.train.seq_len * sizeof *x.loss, "losses");
    int code = ask_all(&x, f, e);
    double n = (double)x.questions;
    if (!code && s->mesh.rank == 0)
        printf("%lld questions: %.1f%% by likelihood, %.1f%% by likelihood per byte (chance %.1f%%, one "
               "deviation %.1f%%)\n",
               (long long)x.questions, 100 * (double)x.right / n, 100 * (double)x.right_per_byte / n,
               100 * x.chance / n, 100 * sqrt(x.chance / n * (1 - x.chance / n) / n));
    fclose(f);
    mem_free(x.tokens);
    mem_free(x.loss);
    return code;
}
