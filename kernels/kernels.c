/* Opening a backend by name, and the peak of the machine that it runs on. */
#include "kernels/kernels.h"

#include <omp.h>
#include <string.h>

#include "kernels/cpu/peak.h"
#include "launch/error.h"

const char *kernels_missing(const kernels *k) {
#define ENTRY(operation)                                                                                     \
    { offsetof(kernels, operation), #operation }
    static const struct {
        size_t offset;
        const char *name;
    } entries[] = {
        ENTRY(alloc),
        ENTRY(free),
        ENTRY(zero),
        ENTRY(copy),
        ENTRY(add),
        ENTRY(copy_rows),
        ENTRY(hold),
        ENTRY(gemm),
        ENTRY(gemm_float32),
        ENTRY(grouped_gemm),
        ENTRY(grouped_gemm_dw),
        ENTRY(rms_norm_forward),
        ENTRY(rms_norm_backward),
        ENTRY(rope),
        ENTRY(attention_forward),
        ENTRY(attention_backward),
        ENTRY(swiglu_forward),
        ENTRY(swiglu_backward),
        ENTRY(embedding_forward),
        ENTRY(embedding_backward),
        ENTRY(router_forward),
        ENTRY(router_backward),
        ENTRY(combine_forward),
        ENTRY(combine_backward),
        ENTRY(cross_entropy),
        ENTRY(hidden_z),
        ENTRY(adamw),
        ENTRY(sum_squares),
        ENTRY(digest),
        ENTRY(to_host),
        ENTRY(to_device),
        ENTRY(destroy),
    };
#undef ENTRY
    /* the list above must grow with the table */
    enum { LISTED = sizeof entries / sizeof *entries };
    _Static_assert(offsetof(kernels, alloc) + LISTED * sizeof(void (*)(void)) == sizeof(kernels),
                   "kernels_missing lists every operation of the table");
    for (int i = 0; i < LISTED; i++) {
        void (*entry)(void);
        memcpy(&entry, (const char *)k + entries[i].offset, sizeof entry);
        if (!entry) return entries[i].name;
    }
    return NULL;
}

#ifdef CARACAL_F64

static int open_backend(kernels *k, const char *device, const kernels_config *c, error *e) {
    if (strcmp(device, "ref"))
        return error_set(e, EXIT_USAGE, "device \"%s\": this build computes in double, which only ref does",
                         c->device);
    kernels_ref(k, c->threads);
    return 0;
}

#else

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* Everything that -march=x86-64-v4 lets the compiler use. */
static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

static int has_bf16_dots(void) {
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

static int wants_avx512(const kernels_config *c) {
    if (strcmp(c->isa, "auto")) return !strcmp(c->isa, "avx512");
    return c->dtype == DTYPE_BF16 ? has_bf16_dots() : has_avx512();
}

static int open_cpu(kernels *k, const kernels_config *c, error *e) {
    int avx512 = wants_avx512(c);
    if (!avx512 && strcmp(c->isa, "auto") && strcmp(c->isa, "avx2"))
        return error_set(e, EXIT_USAGE, "isa \"%s\": must be auto, avx2 or avx512", c->isa);
    if (avx512 ? !has_avx512() : !has_avx2())
        return error_set(e, EXIT_USAGE, "isa \"%s\": this processor has no %s; use %s", c->isa,
                         avx512 ? "AVX-512 (F, BW, CD, DQ, VL)" : "AVX2 with FMA",
                         avx512 ? "isa auto" : "device ref");
    if (c->dtype == DTYPE_BF16 && avx512 && !has_bf16_dots())
        return error_set(
            e, EXIT_USAGE,
            "dtype: bf16 with isa avx512: this processor has no AVX512-BF16; use isa auto, which "
            "computes the same bits slowly, or dtype float32");
    (avx512 ? kernels_cpu_avx512 : kernels_cpu_avx2)(k, c->threads, (kernels_dtype)c->dtype);
    return 0;
}

static int open_cuda(kernels *k, const kernels_config *c, error *e) {
#ifdef CARACAL_CUDA
    return kernels_cuda(k, c, e);
#else
    (void)k;
    return error_set(e, EXIT_USAGE,
                     "device \"%s\": this program was built without CUDA; build it with make CUDA=1",
                     c->device);
#endif
}

static int open_backend(kernels *k, const char *device, const kernels_config *c, error *e) {
    if (!strcmp(device, "cpu")) return open_cpu(k, c, e);
    if (!strcmp(device, "cuda")) return open_cuda(k, c, e);
    if (strcmp(device, "ref"))
        return error_set(e, EXIT_USAGE, "device \"%s\": must be ref, cpu or cuda, or check: and one of these",
                         c->device);
    kernels_ref(k, c->threads);
    return 0;
}

double kernels_measure_peak(const kernels_config *c) {
    return (wants_avx512(c) ? measure_peak_avx512 : measure_peak_avx2)(c->threads, (kernels_dtype)c->dtype);
}

double kernels_measure_own_peaks(const kernels_config *c) {
    const int processors = omp_get_num_procs(); /* more threads take turns, and each sees a whole one */
    const double peak = (wants_avx512(c) ? measure_own_peaks_avx512
                                         : measure_own_peaks_avx2)(c->threads, (kernels_dtype)c->dtype);
    return c->threads > processors ? peak * processors / c->threads : peak;
}

#endif

int kernels_open(kernels *k, const kernels_config *c, error *e) {
    if (c->threads < 1)
        return error_set(e, EXIT_USAGE, "parallel.threads is %d, must be at least 1", c->threads);
    int checked = !strncmp(c->device, "check:", strlen("check:"));
    const char *device = c->device + (checked ? strlen("check:") : 0);
    if (c->dtype == DTYPE_BF16 && !strcmp(device, "ref"))
        return error_set(e, EXIT_USAGE,
                         "dtype: bf16 is for the devices cpu and cuda; with device \"%s\" it must be float32",
                         c->device);
    int code = open_backend(k, device, c, e);
    if (code) return code;
    const char *missing = kernels_missing(k);
    if (missing)
        return error_set(e, EXIT_USAGE, "device \"%s\": backend %s has no %s", c->device, k->name, missing);
    if (checked) {
        kernels inner = *k;
        kernels_check(k, &inner, c->threads);
        REQUIRE(!kernels_missing(k));
    }
    return 0;
}

void kernels_close(kernels *k) {
    k->destroy(k);
    memset(k, 0, sizeof *k);
}
