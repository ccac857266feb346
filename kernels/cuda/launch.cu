/* What does not fit a launch, of any kernel. */
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/device.cuh"

dim3 grid_within(const char *kernel, launch_grid grid) {
    const int64_t MOST_X = INT32_MAX, MOST = 65535; /* of every GPU */
    if (grid.x > MOST_X || grid.y > MOST || grid.z > MOST)
        FAULT(EXIT_USAGE,
              "cuda: %s: %lld x %lld x %lld blocks; a launch has at most %lld x %lld x %lld: a smaller "
              "train.micro_batch_size or train.seq_len needs fewer",
              kernel, (long long)grid.x, (long long)grid.y, (long long)grid.z, (long long)MOST_X,
              (long long)MOST, (long long)MOST);
    return dim3((unsigned)grid.x, (unsigned)grid.y, (unsigned)grid.z);
}

void shared_within(const char *kernel, int64_t shared_bytes, bool given) {
    if (given) return;
    FAULT(EXIT_USAGE,
          "cuda: %s: a block needs %lld KiB of shared memory, and this GPU gives it less: use smaller heads, "
          "or "
          "device: cpu",
          kernel, (long long)(shared_bytes + 1023) >> 10);
}
