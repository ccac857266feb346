/* What OpenBLAS and oneDNN (weights packed beforehand) reach on the shapes of `make bench`, with all cores:
 * one JSON object a line.  Built by `make peers` alone, for the project needs neither. */
#include <cblas.h>
#include <dnnl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MOST = 1000, NT = 0, NN = 1, TN = 2 };

static const int64_t shape[][3] = {
    {1024, 1024, 1024}, {4096, 768, 768}, {4096, 32768, 256}, {64, 512, 256}, {8, 512, 256}};

static void require(dnnl_status_t status, const char *what) {
    if (status == dnnl_success) return;
    fprintf(stderr, "oneDNN: %s: status %d\n", what, (int)status);
    exit(1);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(void (*run)(void *), void *what) {
    double sample[MOST];
    int n = 0, repeat = 1;
    run(what);
    double begin = seconds();
    run(what);
    const double once = seconds() - begin, budget = 0.2;
    if (once < budget / MOST) repeat = 1 + (int)(budget / MOST / once);
    begin = seconds();
    while (n < 3 || (n < MOST && seconds() - begin < budget)) {
        const double start = seconds();
        for (int r = 0; r < repeat; r++) run(what);
        sample[n++] = (seconds() - start) / repeat;
    }
    qsort(sample, (size_t)n, sizeof *sample, by_value);
    return sample[n / 2];
}

typedef struct product {
    int form;
    int64_t m, n, k;
    float *a, *b, *c;
    dnnl_stream_t stream;
    dnnl_primitive_t matmul;
    dnnl_exec_arg_t argument[3];
} product;

static void openblas(void *what) {
    const product *p = what;
    const int m = (int)p->m, n = (int)p->n, k = (int)p->k;
    cblas_sgemm(CblasRowMajor, p->form == TN ? CblasTrans : CblasNoTrans,
                p->form == NT ? CblasTrans : CblasNoTrans, m, n, k, 1, p->a, p->form == TN ? m : k, p->b,
                p->form == NT ? k : n, 0, p->c, n);
}

static void onednn(void *what) {
    const product *p = what;
    require(dnnl_primitive_execute(p->matmul, p->stream, 3, p->argument), "execute");
    require(dnnl_stream_wait(p->stream), "wait");
}

static dnnl_memory_t memory(const dnnl_memory_desc_t *d, dnnl_engine_t engine, void *at) {
    dnnl_memory_t m;
    require(dnnl_memory_create(&m, d, engine, at), "memory");
    return m;
}

static void onednn_open(product *p, dnnl_engine_t engine) {
    const dnnl_dims_t a = {p->m, p->k}, b = {p->k, p->n}, c = {p->m, p->n};
    dnnl_memory_desc_t a_d, b_plain, b_any, c_d;
    require(dnnl_memory_desc_init_by_tag(&a_d, 2, a, dnnl_f32, p->form == TN ? dnnl_ba : dnnl_ab), "A");
    require(dnnl_memory_desc_init_by_tag(&b_plain, 2, b, dnnl_f32, p->form == NT ? dnnl_ba : dnnl_ab), "B");
    require(dnnl_memory_desc_init_by_tag(&b_any, 2, b, dnnl_f32, dnnl_format_tag_any), "B");
    require(dnnl_memory_desc_init_by_tag(&c_d, 2, c, dnnl_f32, dnnl_ab), "C");
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t chosen;
    require(dnnl_matmul_desc_init(&desc, &a_d, &b_any, NULL, &c_d), "matmul");
    require(dnnl_primitive_desc_create(&chosen, &desc, NULL, engine, NULL), "matmul");
    require(dnnl_primitive_create(&p->matmul, chosen), "matmul");
    const dnnl_memory_desc_t *packed = dnnl_primitive_desc_query_md(chosen, dnnl_query_weights_md, 0);
    dnnl_memory_t from = memory(&b_plain, engine, p->b), to = memory(packed, engine, DNNL_MEMORY_ALLOCATE);
    dnnl_primitive_desc_t reorder_desc;
    dnnl_primitive_t reorder;
    require(dnnl_reorder_primitive_desc_create(&reorder_desc, &b_plain, engine, packed, engine, NULL),
            "packing");
    require(dnnl_primitive_create(&reorder, reorder_desc), "packing");
    const dnnl_exec_arg_t pack[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    require(dnnl_primitive_execute(reorder, p->stream, 2, pack), "packing");
    require(dnnl_stream_wait(p->stream), "packing");
    p->argument[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, memory(&a_d, engine, p->a)};
    p->argument[1] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, to};
    p->argument[2] = (dnnl_exec_arg_t){DNNL_ARG_DST, memory(&c_d, engine, p->c)};
    dnnl_memory_destroy(from);
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(reorder_desc);
    dnnl_primitive_desc_destroy(chosen);
}

static void onednn_close(product *p) {
    dnnl_primitive_destroy(p->matmul);
    for (int i = 0; i < 3; i++) dnnl_memory_destroy(p->argument[i].memory);
}

static float *numbers(int64_t n) {
    float *x = aligned_alloc(64, ((size_t)n * sizeof *x + 63) / 64 * 64);
    if (!x) exit(1);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(i % 997) * 1e-3f - 0.5f;
    return x;
}

static void line(const char *peer, const product *p, double time) {
    static const char *op[] = {"nt", "nn", "tn"};
    printf("{\"peer\": \"%s\", \"op\": \"%s\", \"m\": %ld, \"n\": %ld, \"k\": %ld, \"gflops\": %.1f}\n", peer,
           op[p->form], (long)p->m, (long)p->n, (long)p->k,
           2e-9 * (double)p->m * (double)p->n * (double)p->k / time);
}

int main(void) {
    dnnl_engine_t engine;
    product p = {0};
    require(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine");
    require(dnnl_stream_create(&p.stream, engine, dnnl_stream_default_flags), "stream");
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        p.m = shape[i][0], p.n = shape[i][1], p.k = shape[i][2];
        p.a = numbers(p.m * p.k), p.b = numbers(p.n * p.k), p.c = numbers(p.m * p.n);
        for (p.form = NT; p.form <= TN; p.form++) {
            line("OpenBLAS", &p, median(openblas, &p));
            onednn_open(&p, engine);
            line("oneDNN, packed", &p, median(onednn, &p));
            onednn_close(&p);
        }
        free(p.a), free(p.b), free(p.c);
    }
    dnnl_stream_destroy(p.stream);
    dnnl_engine_destroy(engine);
    return 0;
}
