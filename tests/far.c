/* The cpu backend in memory that only its kernels can reach: the addresses that it gives out are never open,
 * and its operations work on the same pages at other ones; a pointer that it did not give out is refused.  A
 * program linked with --wrap=kernels_cpu_avx2,--wrap=kernels_cpu_avx512 has it as `device: cpu`; that it
 * trains as the other does proves that nothing above the kernels takes the backend's memory for the host's.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "launch/error.h"
#include "launch/memory.h"
#include "tests/wrap_cpu.h"

enum { PAGE = 4096, FETCHES = 256 };
static const size_t ROOM = (size_t)1 << 36; /* of addresses */

struct kernel_context {
    kernels inner;
    char *far, *near; /* the same pages: as given out, closed, and as kernels see them */
    size_t used;
    struct {
        void *host;
        void *copy;
        size_t bytes;
    } fetched[FETCHES];
    int fetches;
};

static void *far_alloc(kernel_context *x, size_t bytes, const char *what) {
    size_t size = (bytes + 2 * PAGE - 1) / PAGE * PAGE; /* never empty: a pointer past an end stays inside */
    if (size > ROOM - x->used) FAULT(EXIT_NO_MEMORY, "no far memory left for %s", what);
    char *p = x->far + x->used;
    x->used += size;
    return p;
}

/* Where kernels find what lies at a far address. */
static void *near(const kernel_context *x, const char *operation, const void *p) {
    if (!p) return NULL;
    if ((const char *)p < x->far || (const char *)p >= x->far + x->used)
        FAULT(EXIT_BUG, "%s: a buffer is host memory", operation);
    return x->near + ((const char *)p - x->far);
}

static void far_free(kernel_context *x, void *p) {
    near(x, "free", p); /* nothing is used again */
}

/* An operation: its parameters, and the same as arguments of the operation inside; F marks a buffer. */
#define F(p)        ((__typeof__(p))near(x, operation, p))
#define UNPACK(...) __VA_ARGS__
#define FAR(name, parameters, arguments)                                                                     \
    static void far_##name(kernel_context *x, UNPACK parameters) {                                           \
        const char *operation = #name;                                                                       \
        x->inner.name(x->inner.ctx, UNPACK arguments);                                                       \
    }

FAR(zero, (int64_t n, real *y), (n, F(y)))
FAR(copy, (int64_t n, real *y, const real *z), (n, F(y), F(z)))
static void far_add(kernel_context *x, int64_t n, real *y, const real *d, int64_t parts,
                    const real *const *part) {
    const char *operation = "add";
    const real *inside[64];
    REQUIRE(parts <= 64);
    for (int64_t p = 0; p < parts; p++) inside[p] = F(part[p]);
    x->inner.add(x->inner.ctx, n, F(y), F(d), parts, inside);
}
FAR(copy_rows,
    (int64_t n, int64_t cols, real *dst, const int32_t *dst_row, const real *src, const int32_t *src_row),
    (n, cols, F(dst), F(dst_row), F(src), F(src_row)))
FAR(hold, (int64_t n, const real *z), (n, F(z)))
FAR(gemm,
    (gemm_form form, int64_t m, int64_t n, int64_t k, real *c, int64_t ldc, const real *d, const real *a,
     int64_t lda, const real *b, int64_t ldb),
    (form, m, n, k, F(c), ldc, F(d), F(a), lda, F(b), ldb))
FAR(gemm_float32,
    (gemm_form form, int64_t m, int64_t n, int64_t k, real *c, int64_t ldc, const real *d, const real *a,
     int64_t lda, const real *b, int64_t ldb),
    (form, m, n, k, F(c), ldc, F(d), F(a), lda, F(b), ldb))
FAR(grouped_gemm,
    (gemm_form form, int64_t segments, const segment *s, int64_t n, int64_t k, real *c, const real *a,
     const real *w, int64_t w_stride),
    (form, segments, s, n, k, F(c), F(a), F(w), w_stride))
FAR(grouped_gemm_dw,
    (int64_t segments, const segment *s, int64_t m, int64_t n, real *dw, int64_t dw_stride, const real *a,
     const real *b),
    (segments, s, m, n, F(dw), dw_stride, F(a), F(b)))
FAR(rms_norm_forward,
    (int64_t rows, int64_t cols, double eps, double scale, real *y, int64_t ldy, real *rstd, const real *z,
     int64_t ldz, const real *w),
    (rows, cols, eps, scale, F(y), ldy, F(rstd), F(z), ldz, F(w)))
FAR(rms_norm_backward,
    (int64_t rows, int64_t cols, double scale, real *dx, int64_t lddx, const real *d, real *dw, int adds,
     const real *dy, int64_t lddy, const real *z, int64_t ldz, const real *rstd, const real *w),
    (rows, cols, scale, F(dx), lddx, F(d), F(dw), adds, F(dy), lddy, F(z), ldz, F(rstd), F(w)))
FAR(rope,
    (int64_t rows, int64_t seq, int64_t heads, int64_t pairs, int backward, real *z, int64_t ld,
     int64_t head_stride, const real *cosine, const real *sine),
    (rows, seq, heads, pairs, backward, F(z), ld, head_stride, F(cosine), F(sine)))
FAR(attention_forward,
    (attention_shape s, real *o, real *lse, const real *q, const real *kv, const real *k_rope,
     int64_t ld_k_rope, const int32_t *first_key),
    (s, F(o), F(lse), F(q), F(kv), F(k_rope), ld_k_rope, F(first_key)))
FAR(attention_backward,
    (attention_shape s, real *dq, real *dkv, real *dk_rope, int64_t ld_dk_rope, const real *d_o,
     const real *o, const real *lse, const real *q, const real *kv, const real *k_rope, int64_t ld_k_rope,
     const int32_t *first_key),
    (s, F(dq), F(dkv), F(dk_rope), ld_dk_rope, F(d_o), F(o), F(lse), F(q), F(kv), F(k_rope), ld_k_rope,
     F(first_key)))
FAR(swiglu_forward, (int64_t segments, const segment *s, int64_t f, real *h, const real *gu),
    (segments, s, f, F(h), F(gu)))
FAR(swiglu_backward,
    (int64_t segments, const segment *s, int64_t f, real *dgu, real *h, real *dweight, const real *dh,
     const real *gu, const real *weight),
    (segments, s, f, F(dgu), F(h), F(dweight), F(dh), F(gu), F(weight)))
FAR(embedding_forward, (int64_t rows, int64_t h, real *y, const real *w, const int32_t *ids),
    (rows, h, F(y), F(w), F(ids)))
FAR(embedding_backward, (int64_t rows, int64_t h, real *dw, const real *dx, const int32_t *ids),
    (rows, h, F(dw), F(dx), F(ids)))
FAR(router_forward,
    (router_shape s, real *prob, int32_t *index, real *weight, int64_t *count, real *prob_sum,
     const real *logits, const real *bias),
    (s, F(prob), F(index), F(weight), F(count), F(prob_sum), F(logits), F(bias)))
FAR(router_backward,
    (router_shape s, real *dlogits, real *dprob_sum, const real *dweight, const real *prob,
     const int32_t *index, const real *lb_grad),
    (s, F(dlogits), F(dprob_sum), F(dweight), F(prob), F(index), F(lb_grad)))
FAR(combine_forward,
    (int64_t tokens, int64_t h, int64_t topk, real *out, const real *rows, const int32_t *row_of,
     const real *weight, const real *y),
    (tokens, h, topk, F(out), F(rows), F(row_of), F(weight), F(y)))
FAR(combine_backward,
    (int64_t tokens, int64_t h, int64_t topk, real *dy, real *dweight, const real *dout, const real *drows,
     const real *dw_rows, const int32_t *row_of, const real *weight, const real *y),
    (tokens, h, topk, F(dy), F(dweight), F(dout), F(drows), F(dw_rows), F(row_of), F(weight), F(y)))
FAR(cross_entropy,
    (int64_t rows, int64_t vocab, double scale, real *loss, int32_t *best, real *logits,
     const int32_t *targets),
    (rows, vocab, scale, F(loss), F(best), F(logits), F(targets)))
FAR(hidden_z,
    (int64_t rows, int64_t h, double scale, real *loss, real *sum_sq, real *max_abs, real *dx, const real *z),
    (rows, h, scale, F(loss), F(sum_sq), F(max_abs), F(dx), F(z)))
FAR(adamw, (int64_t n, adamw_step s, real *p, real *m, real *v, const real *g),
    (n, s, F(p), F(m), F(v), F(g)))
FAR(sum_squares, (int64_t n, double *out, const real *z), (n, F(out), F(z)))
FAR(digest, (int64_t n, uint64_t *out, const real *z), (n, F(out), F(z)))
FAR(to_host, (void *host, const void *device, size_t bytes), (host, F(device), bytes))
FAR(to_device, (void *device, const void *host, size_t bytes), (F(device), host, bytes))

/* What is not waited for is not there: it is garbage until then. */
static void far_fetch(kernel_context *x, void *host, const void *device, size_t bytes) {
    if (x->fetches == FETCHES) FAULT(EXIT_BUG, "fetch: more than %d at one time", FETCHES);
    void *copy = mem_alloc(bytes, "what is fetched");
    memcpy(copy, near(x, "fetch", device), bytes);
    memset(host, 0x99, bytes);
    x->fetched[x->fetches].host = host;
    x->fetched[x->fetches].copy = copy;
    x->fetched[x->fetches++].bytes = bytes;
}
static void far_fetched(kernel_context *x) {
    for (int i = 0; i < x->fetches; i++) {
        memcpy(x->fetched[i].host, x->fetched[i].copy, x->fetched[i].bytes);
        mem_free(x->fetched[i].copy);
    }
    x->fetches = 0;
}

static void destroy(kernels *k) {
    kernel_context *x = k->ctx;
    kernels_close(&x->inner);
    munmap(x->far, ROOM);
    munmap(x->near, ROOM);
    mem_free(x);
}

void wrap_cpu(kernels *k) {
    kernel_context *x = mem_alloc(sizeof *x, "the far backend");
    x->inner = *k;
    int pages = memfd_create("far memory", MFD_CLOEXEC);
    if (pages < 0 || ftruncate(pages, (off_t)ROOM)) FAULT(EXIT_NO_MEMORY, "no far memory");
    x->far = mmap(NULL, ROOM, PROT_NONE, MAP_SHARED | MAP_NORESERVE, pages, 0);
    x->near = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, pages, 0);
    if (x->far == MAP_FAILED || x->near == MAP_FAILED) FAULT(EXIT_NO_MEMORY, "no addresses for far memory");
    close(pages);
    *k = (kernels){
        .name = k->name,
        .dtype = k->dtype,
        .head_rows = k->head_rows,
        .ctx = x,
        .alloc = far_alloc,
        .free = far_free,
        .zero = far_zero,
        .copy = far_copy,
        .add = far_add,
        .copy_rows = far_copy_rows,
        .hold = far_hold,
        .gemm = far_gemm,
        .gemm_float32 = far_gemm_float32,
        .grouped_gemm = far_grouped_gemm,
        .grouped_gemm_dw = far_grouped_gemm_dw,
        .rms_norm_forward = far_rms_norm_forward,
        .rms_norm_backward = far_rms_norm_backward,
        .rope = far_rope,
        .attention_forward = far_attention_forward,
        .attention_backward = far_attention_backward,
        .swiglu_forward = far_swiglu_forward,
        .swiglu_backward = far_swiglu_backward,
        .embedding_forward = far_embedding_forward,
        .embedding_backward = far_embedding_backward,
        .router_forward = far_router_forward,
        .router_backward = far_router_backward,
        .combine_forward = far_combine_forward,
        .combine_backward = far_combine_backward,
        .cross_entropy = far_cross_entropy,
        .hidden_z = far_hidden_z,
        .adamw = far_adamw,
        .sum_squares = far_sum_squares,
        .digest = far_digest,
        .to_host = far_to_host,
        .to_device = far_to_device,
        .fetch = far_fetch,
        .fetched = far_fetched,
        .destroy = destroy,
    };
}
