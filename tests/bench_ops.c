/* Everything beside the matrix products: attention as a fraction of the multiply-add peak, counting only the
 * lower triangle; the rest as a fraction of the bandwidth for the bytes that the operation cannot avoid to
 * move.  Buffers are larger than the caches. */
#include <string.h>

#include "launch/memory.h"
#include "tests/bench.h"

enum { BUFFERS = 8, ELEMENTS = 12 << 20, EXPERTS = 16, CHOSEN = 4 };

/* One call to time.  The meaning of size and buffer is the operation's own. */
typedef struct call {
    const kernels *k;
    int64_t size[3];
    attention_shape attention;
    float *x[BUFFERS];
    int32_t *ids, *more_ids;
} call;

static void run_copy(void *what) {
    const call *c = what;
    c->k->copy(c->k->ctx, c->size[0], c->x[0], c->x[1]);
}
static void run_add(void *what) {
    const call *c = what;
    c->k->add(c->k->ctx, c->size[0], c->x[0], c->x[0], 1, (const float *const[]){c->x[1]});
}
static void run_copy_rows(void *what) {
    const call *c = what;
    c->k->copy_rows(c->k->ctx, c->size[0], c->size[1], c->x[0], NULL, c->x[1], c->ids);
}
static void run_norm_forward(void *what) {
    const call *c = what;
    const int64_t cols = c->size[1];
    c->k->rms_norm_forward(c->k->ctx, c->size[0], cols, 1e-5, 1, c->x[0], cols, c->x[1], c->x[2], cols,
                           c->x[3]);
}
static void run_norm_backward(void *what) {
    const call *c = what;
    const int64_t cols = c->size[1];
    c->k->rms_norm_backward(c->k->ctx, c->size[0], cols, 1, c->x[0], cols, NULL, c->x[1], 0, c->x[2], cols,
                            c->x[3], cols, c->x[4], c->x[5]);
}
static void run_swiglu_forward(void *what) {
    const call *c = what;
    c->k->swiglu_forward(c->k->ctx, EVERY_ROW(c->size[0]), c->size[1], c->x[0], c->x[1]);
}
static void run_swiglu_backward(void *what) {
    const call *c = what;
    c->k->swiglu_backward(c->k->ctx, EVERY_ROW(c->size[0]), c->size[1], c->x[0], c->x[1], c->x[2], c->x[3],
                          c->x[4], c->x[5]);
}
static void run_rope(void *what) {
    const call *c = what;
    const int64_t heads = c->size[1], pairs = c->size[2];
    c->k->rope(c->k->ctx, c->size[0], 4096, heads, pairs, 0, c->x[0], heads * 2 * pairs, 2 * pairs, c->x[1],
               c->x[2]);
}
static void run_router_forward(void *what) {
    const call *c = what;
    const router_shape s = {c->size[0], c->size[1] * 2 / 3, c->size[1] / 3, c->size[2], 2.5};
    c->k->router_forward(c->k->ctx, s, c->x[0], c->ids, c->x[1], (int64_t *)c->x[2], c->x[3], c->x[4],
                         c->x[5]);
}
static void run_combine_forward(void *what) {
    const call *c = what;
    c->k->combine_forward(c->k->ctx, c->size[0], c->size[1], c->size[2], c->x[0], c->x[1], c->more_ids,
                          c->x[2], c->x[3]);
}
static void run_cross_entropy(void *what) {
    const call *c = what;
    c->k->cross_entropy(c->k->ctx, c->size[0], c->size[1], 1e-3, c->x[0], NULL, c->x[1], c->ids);
}
static void run_hidden_z(void *what) {
    const call *c = what;
    c->k->hidden_z(c->k->ctx, c->size[0], c->size[1], 1e-3, c->x[0], c->x[1], c->x[2], c->x[3], c->x[4]);
}
static void run_adamw(void *what) {
    const call *c = what;
    const adamw_step s = {1e-4, 0.9, 0.95, 1e-16, 0.1, 1, 0.5, 0.5};
    c->k->adamw(c->k->ctx, c->size[0], s, c->x[0], c->x[1], c->x[2], c->x[3]);
}
static void run_sum_squares(void *what) {
    const call *c = what;
    c->k->sum_squares(c->k->ctx, c->size[0], (double *)c->x[0], c->x[1]);
}
static void run_digest(void *what) {
    const call *c = what;
    c->k->digest(c->k->ctx, c->size[0], (uint64_t *)c->x[0], c->x[1]);
}
static void run_attention_forward(void *what) {
    const call *c = what;
    c->k->attention_forward(c->k->ctx, c->attention, c->x[0], c->x[1], c->x[2], c->x[3], c->x[4],
                            c->attention.rope, NULL);
}
static void run_attention_backward(void *what) {
    const call *c = what;
    c->k->attention_backward(c->k->ctx, c->attention, c->x[5], c->x[6], c->x[7], c->attention.rope, c->x[0],
                             c->x[0], c->x[1], c->x[2], c->x[3], c->x[4], c->attention.rope, NULL);
}

/* One line for each number of threads; work in FLOP or bytes. */
static void line(bench *b, const char *section, json_t *entry, void (*run)(void *), call c, double work) {
    if (bench_wants(b, section) || bench_wants(b, json_string_value(json_object_get(entry, "op")))) {
        for (int v = 0; v < b->variants; v++) {
            bench_limits(b);
            c.k = &b->kernel[v];
            bench_add(b, section, json_deep_copy(entry), v, work, bench_median(b, v, run, &c));
        }
    }
    json_decref(entry);
}

/* An operation on `rows` rows of cols elements that cannot avoid to move `bytes` an element. */
static void rows_line(bench *b, const char *op, void (*run)(void *), call c, int64_t rows, int64_t cols,
                      double bytes) {
    c.size[0] = rows;
    if (!c.size[1]) c.size[1] = cols;
    line(b, "memory_bound",
         json_pack("{ss sI sI}", "op", op, "rows", (json_int_t)rows, "cols", (json_int_t)cols), run, c,
         bytes * (double)(rows * cols));
}

static void buffers(arena *a, call *c) {
    *a = arena_create("of the benchmark",
                      (size_t)BUFFERS * (ELEMENTS + 1024) * sizeof(float)); /* as training has */
    for (int i = 0; i < BUFFERS; i++) c->x[i] = bench_buffer(a, ELEMENTS);
}

/* row_of [tokens,topk] as the exchange of a rank alone has it (model/exchange.h): a token has CHOSEN of
 * EXPERTS experts, by chance, and rows lie by expert and then by token. */
static void route(int64_t tokens, int64_t topk, int32_t *row_of) {
    int32_t next[EXPERTS + 1] = {0};
    uint64_t random = 1;
    for (int64_t t = 0; t < tokens; t++) {
        int slots = 0;
        for (int e = 0; e < EXPERTS; e++) {
            random = random * 6364136223846793005 + 1442695040888963407;
            if ((random >> 33) % (uint64_t)(EXPERTS - e) >= (uint64_t)(CHOSEN - slots)) continue;
            row_of[t * topk + slots++] = e;
            next[e + 1]++;
        }
        for (int64_t k = slots; k < topk; k++) row_of[t * topk + k] = -1;
    }
    for (int e = 0; e < EXPERTS; e++) next[e + 1] += next[e];
    for (int64_t i = 0; i < tokens * topk; i++)
        if (row_of[i] >= 0) row_of[i] = next[row_of[i]]++;
}

void bench_memory(bench *b) {
    enum { TOPK = 6 };
    arena a;
    call c = {0};
    buffers(&a, &c);
    c.ids = mem_alloc(sizeof *c.ids * ELEMENTS, "a benchmark's rows");
    c.more_ids = mem_alloc(sizeof *c.more_ids * ELEMENTS, "a benchmark's rows");

    rows_line(b, "copy", run_copy, c, ELEMENTS, 1, 8);
    rows_line(b, "add", run_add, c, ELEMENTS, 1, 12);
    rows_line(b, "sum_squares", run_sum_squares, c, ELEMENTS, 1, 4);
    rows_line(b, "digest", run_digest, c, ELEMENTS, 1, 4);
    for (int64_t cols = 256; cols <= 768; cols += 512) {
        const int64_t rows = ELEMENTS / cols;
        for (int64_t i = 0; i < rows; i++) c.ids[i] = (int32_t)(i * 7919 % rows);
        rows_line(b, "copy_rows", run_copy_rows, c, rows, cols, 8);
        rows_line(b, "rms_norm_forward", run_norm_forward, c, rows, cols, 8);
        rows_line(b, "rms_norm_backward", run_norm_backward, c, rows, cols, 12);
        call half = c;
        half.size[1] = cols / 2; /* gu has two of them */
        rows_line(b, "swiglu_forward", run_swiglu_forward, half, rows, cols, 6);
        rows_line(b, "swiglu_backward", run_swiglu_backward, half, rows, cols, 12);
        rows_line(b, "hidden_z", run_hidden_z, c, rows, cols, 12);
        /* what K slots need: a row of each FFN expert, and out and y */
        const int64_t tokens = rows / CHOSEN;
        route(tokens, TOPK, c.more_ids);
        call combine = c;
        combine.size[2] = TOPK;
        rows_line(b, "combine_forward", run_combine_forward, combine, tokens, cols, 4 * CHOSEN + 12);
    }
    call rope = c;
    rope.size[1] = 16, rope.size[2] = 16;
    rows_line(b, "rope", run_rope, rope, ELEMENTS / 512, 512, 8);
    call router = c;
    router.size[2] = TOPK;
    rows_line(b, "router_forward", run_router_forward, router, 65536, 24, 8);
    rows_line(b, "router_forward", run_router_forward, router, 16384, 768, 8);
    for (int64_t vocab = 8192; vocab <= 32768; vocab *= 4) {
        for (int64_t i = 0; i < ELEMENTS / vocab; i++) c.ids[i] = (int32_t)i;
        rows_line(b, "cross_entropy", run_cross_entropy, c, ELEMENTS / vocab, vocab, 8);
    }
    rows_line(b, "adamw", run_adamw, c, ELEMENTS, 1, 28);
    for (int64_t i = 0; i < ELEMENTS; i++) { /* last, for it spoils the buffers */
        c.x[1][i] = 1e-21f;
        c.x[2][i] = 1e-42f;
        c.x[3][i] = 1e-21f;
    }
    rows_line(b, "adamw, denormal second moments", run_adamw, c, ELEMENTS, 1, 28);
    mem_free(c.ids);
    mem_free(c.more_ids);
    arena_destroy(&a);
}

void bench_attention(bench *b) {
    static const attention_shape shape[] = {
        {2, 256, 4, 48, 16, 64, 0},  {1, 512, 4, 48, 16, 64, 0},  {1, 1024, 4, 48, 16, 64, 0},
        {1, 2048, 4, 48, 16, 64, 0}, {1, 4096, 4, 48, 16, 64, 0}, {1, 2048, 8, 128, 64, 128, 0},
    };
    arena a;
    call c = {0};
    buffers(&a, &c);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        const attention_shape s = shape[i];
        const double pairs =
            0.5 * (double)(s.batch * s.heads * s.seq) * (double)(s.seq + 1); /* the triangle */
        const double key = (double)(s.nope + s.rope), value = (double)s.v;
        c.attention = s;
        for (int backward = 0; backward < 2; backward++) {
            json_t *entry = json_pack(
                "{ss sI sI sI sI sI sI}", "op", backward ? "attention_backward" : "attention_forward",
                "batch", (json_int_t)s.batch, "seq", (json_int_t)s.seq, "heads", (json_int_t)s.heads, "nope",
                (json_int_t)s.nope, "rope", (json_int_t)s.rope, "v", (json_int_t)s.v);
            line(b, "attention", entry, backward ? run_attention_backward : run_attention_forward, c,
                 2 * pairs * (backward ? 3 * key + 2 * value : key + value));
        }
    }
    arena_destroy(&a);
}
