/* The ref backend: plain loops that define what every operation means, with sums in double.  It shares no
 * code with the other backends.  Its build with -DCARACAL_F64 is what finite differences test. */
#ifndef CARACAL_KERNELS_REF_REF_H
#define CARACAL_KERNELS_REF_REF_H

#include "kernels/kernels.h"
#include "kernels/ref/choose.h"

struct kernel_context {
    int threads;
    double *scratch; /* grown on first use: ref is a yardstick, not a product */
    size_t scratch_size;
};

/* `each` doubles for every thread; thread i's part starts at i * each. */
double *ref_scratch(kernel_context *x, int64_t each);

/* The table's operations, with the types that kernels.h gives them. */
#define REF_OPERATION(name) extern __typeof__(*((kernels *)0)->name) ref_##name
REF_OPERATION(alloc);
REF_OPERATION(free);
REF_OPERATION(zero);
REF_OPERATION(copy);
REF_OPERATION(add);
REF_OPERATION(copy_rows);
REF_OPERATION(to_host);
REF_OPERATION(to_device);
REF_OPERATION(hold);
REF_OPERATION(gemm);
REF_OPERATION(grouped_gemm);
REF_OPERATION(grouped_gemm_dw);
REF_OPERATION(rms_norm_forward);
REF_OPERATION(rms_norm_backward);
REF_OPERATION(rope);
REF_OPERATION(attention_forward);
REF_OPERATION(attention_backward);
REF_OPERATION(swiglu_forward);
REF_OPERATION(swiglu_backward);
REF_OPERATION(embedding_forward);
REF_OPERATION(embedding_backward);
REF_OPERATION(router_forward);
REF_OPERATION(router_backward);
REF_OPERATION(combine_forward);
REF_OPERATION(combine_backward);
REF_OPERATION(cross_entropy);
REF_OPERATION(hidden_z);
REF_OPERATION(adamw);
REF_OPERATION(sum_squares);
REF_OPERATION(digest);

#endif
