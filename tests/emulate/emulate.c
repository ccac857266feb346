#include "tests/emulate/emulate.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "launch/error.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES (512 << 10)
#else
#define STACK_BYTES (128 << 10)
#endif

enum {
    THREADS = 1024, /* of a block at most, as on the device */
    WARP = 32,
    SHARED_ARRAYS = 32,
    UNASKED_BYTES = 48 << 10, /* and what every kernel has */
    COPIES = 256,             /* of one thread under way */
    PRODUCTS = 4,             /* likewise */
    FIGURES = 200,
};

typedef enum { RUNS, AT_BARRIER, IN_COLLECTIVE, RETURNED } fiber_state;

typedef struct async_copy {
    void *dst;
    const void *src;
    size_t size, bytes;
    int group;
} async_copy;

typedef struct late_product {
    void (*body)(const void *);
    _Alignas(16) unsigned char argument[64];
} late_product;

typedef struct fiber {
    void *stack_pointer, *stack;
    fiber_state state;
    int begun;        /* has waited for the kernels before this one */
    const char *file; /* where it waits */
    int line;
    async_copy copy[COPIES];
    int copies, groups; /* under way; groups committed so far */
    late_product product[PRODUCTS];
    int products;     /* under way */
    void *fake_stack; /* AddressSanitizer's */
} fiber;

typedef struct warp {
    unsigned char slot[2][WARP * EMULATE_SLOT];
    int turn; /* which of the two the next collective uses: the other may still be read */
} warp;

typedef struct shared_array {
    const char *file;
    int line;
    size_t bytes;
    void *data;
} shared_array;

emulate_index threadIdx, blockIdx, blockDim, gridDim;

static struct {
    const char *kernel;
    void (*body)(void *);
    void *argument;
    int threads, current;
    fiber *fiber;
    warp warp[THREADS / WARP];
    void *scheduler; /* its stack pointer */
    shared_array shared[SHARED_ARRAYS];
    int shared_arrays;
    size_t shared_bytes, shared_most;
    void *dynamic;
    emulate_order order;
    uint64_t seed;
    void *fake_stack;
    const void *main_stack;
    size_t main_stack_bytes;
    emulate_figure figure[FIGURES + 1];
    size_t given; /* bytes that emulate_malloc gave and emulate_free did not get back */
} machine;

#define BAD(format, ...)                                                                                     \
    FAULT(70, "emulated kernel %s, block (%u, %u, %u) of (%u, %u, %u): " format, machine.kernel, blockIdx.x, \
          blockIdx.y, blockIdx.z, gridDim.x, gridDim.y, gridDim.z, __VA_ARGS__)

/* ---- fibers ---- */

/* Saves what a call must keep on the stack that it leaves, and goes on where the other stack was left. */
void emulate_switch(void **save, void *go_on);
__asm__(".text\n"
        ".globl emulate_switch\n"
        ".type emulate_switch, @function\n"
        "emulate_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size emulate_switch, .-emulate_switch\n"
        ".section .note.GNU-stack,\"\",@progbits\n"
        ".text\n");

static void enter_fiber(fiber *f) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&machine.fake_stack, f->stack, STACK_BYTES);
#endif
    emulate_switch(&machine.scheduler, f->stack_pointer);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(machine.fake_stack, NULL, NULL);
#endif
}

static void leave_fiber(fiber *f) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&f->fake_stack, machine.main_stack, machine.main_stack_bytes);
#endif
    emulate_switch(&f->stack_pointer, machine.scheduler);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(f->fake_stack, &machine.main_stack, &machine.main_stack_bytes);
#endif
}

/* A fiber never ends: it waits for the next block. */
__attribute__((no_sanitize_address)) static void fiber_main(void) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(NULL, &machine.main_stack, &machine.main_stack_bytes);
#endif
    for (;;) {
        fiber *f = &machine.fiber[machine.current];
        f->begun = 0;
        machine.body(machine.argument);
        if (!f->begun) BAD("thread %d does not wait for the kernels before this one", machine.current);
        if (f->copies) BAD("thread %d returns with %d copies under way", machine.current, f->copies);
        if (f->products) BAD("thread %d returns with %d products under way", machine.current, f->products);
        f->state = RETURNED;
        leave_fiber(f);
    }
}

static void make_fibers(void) {
    machine.fiber = calloc(THREADS, sizeof *machine.fiber);
    REQUIRE(machine.fiber);
    for (int i = 0; i < THREADS; i++) {
        fiber *f = &machine.fiber[i];
        char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        REQUIRE(stack != MAP_FAILED &&
                !mprotect(stack, 4096, PROT_NONE)); /* a stack that overflows is seen */
        f->stack = stack;
        /* stacks start at different lines of the cache */
        void **top = (void **)(stack + STACK_BYTES - 4096 * (i % 2) - 64 * (i % 60));
        *--top = NULL;
        *--top = (void *)fiber_main;
        for (int r = 0; r < 6; r++) *--top = NULL;
        f->stack_pointer = top;
    }
}

/* ---- order ---- */

void emulate_set_order(emulate_order order, uint64_t seed) {
    machine.order = order;
    machine.seed = seed;
}

/* The i-th of n in the order that is set: a prime larger than any n makes a permutation. */
static unsigned nth(unsigned i, unsigned n) {
    switch (machine.order) {
    case EMULATE_FORWARD:
        return i;
    case EMULATE_REVERSED:
        return n - 1 - i;
    case EMULATE_SHUFFLED:
        return (unsigned)(((uint64_t)i * 2654435761u + machine.seed % n) % n);
    }
    return i;
}

/* ---- counting ---- */

void emulate_count(const char *what) {
    emulate_figure *f = machine.figure;
    while (f->what && strcmp(f->what, what)) f++;
    REQUIRE(f < machine.figure + FIGURES);
    f->what = what;
    f->times++;
}

const emulate_figure *emulate_figures(void) {
    return machine.figure;
}

int64_t emulate_times(const char *what) {
    for (const emulate_figure *f = machine.figure; f->what; f++)
        if (!strcmp(f->what, what)) return f->times;
    return 0;
}

void emulate_figures_reset(void) {
    memset(machine.figure, 0, sizeof machine.figure);
}

/* ---- one block ---- */

static void resume(int thread) {
    unsigned t = (unsigned)thread;
    machine.current = thread;
    threadIdx = (emulate_index){t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
    enter_fiber(&machine.fiber[thread]);
}

static void wait_for(fiber_state state, const char *file, int line) {
    fiber *f = &machine.fiber[machine.current];
    if (!f->begun)
        BAD("thread %d has not waited for the kernels before this one (%s:%d)", machine.current, file, line);
    f->state = state;
    f->file = file;
    f->line = line;
    leave_fiber(f);
}

/* Lets threads first .. first + n - 1 go on, if all wait for the same. */
static void release(int first, int n, fiber_state state, const char *what) {
    const fiber *f = &machine.fiber[first], *waiting = f;
    for (int i = 0; i < n; i++)
        if (f[i].state == state) waiting = &f[i];
    for (int i = 0; i < n; i++) {
        if (f[i].state == RETURNED)
            BAD("thread %d has returned, thread %d waits at a %s (%s:%d)", first + i,
                (int)(waiting - machine.fiber), what, waiting->file, waiting->line);
        if (f[i].state != state || f[i].line != waiting->line || strcmp(f[i].file, waiting->file))
            BAD("threads diverge: %d waits at %s:%d, %d at a %s, %s:%d", first + i, f[i].file, f[i].line,
                (int)(waiting - machine.fiber), what, waiting->file, waiting->line);
    }
    for (int i = 0; i < n; i++) machine.fiber[first + i].state = RUNS;
}

/* Runs the lanes of a warp until each waits at a barrier or has returned. */
static void run_warp(int w) {
    fiber *lane = machine.fiber + (ptrdiff_t)w * WARP;
    for (;;) {
        int collective = 0;
        for (unsigned i = 0; i < WARP; i++) {
            unsigned l = nth(i, WARP);
            if (lane[l].state == RUNS) resume(w * WARP + (int)l);
        }
        for (int i = 0; i < WARP; i++) collective |= lane[i].state == IN_COLLECTIVE;
        if (!collective) return;
        release(w * WARP, WARP, IN_COLLECTIVE, "collective of its warp");
        machine.warp[w].turn ^= 1;
    }
}

static int returned(void) {
    int n = 0;
    for (int i = 0; i < machine.threads; i++) n += machine.fiber[i].state == RETURNED;
    return n;
}

static void *poisoned(size_t bytes) {
    void *p = aligned_alloc(128, (bytes + 127) / 128 * 128);
    REQUIRE(p);
    memset(p, 0xff, bytes);
    return p;
}

static void run_block(void) {
    int warps = machine.threads / WARP;
    size_t dynamic = machine.shared_bytes;
    machine.dynamic = dynamic ? poisoned(dynamic) : NULL;
    for (int i = 0; i < machine.threads; i++) machine.fiber[i].state = RUNS;
    for (;;) {
        for (unsigned w = 0; w < (unsigned)warps; w++) run_warp((int)nth(w, (unsigned)warps));
        if (returned() == machine.threads) break;
        release(0, machine.threads, AT_BARRIER, "barrier of its block");
    }
    for (int i = 0; i < machine.shared_arrays; i++) free(machine.shared[i].data);
    machine.shared_arrays = 0;
    machine.shared_bytes = dynamic;
    free(machine.dynamic);
}

void emulate_run(const char *kernel, emulate_index grid, emulate_index block, size_t shared_bytes, int asked,
                 void (*body)(void *), void *argument) {
    uint64_t threads = (uint64_t)block.x * block.y * block.z, blocks = (uint64_t)grid.x * grid.y * grid.z;
    if (!machine.fiber) make_fibers();
    emulate_count(kernel);
    machine.kernel = kernel;
    machine.body = body;
    machine.argument = argument;
    machine.threads = (int)threads;
    machine.shared_bytes = shared_bytes;
    machine.shared_most = asked ? EMULATE_BLOCK_SHARED : UNASKED_BYTES;
    gridDim = grid;
    blockDim = block;
    blockIdx = (emulate_index){0, 0, 0};
    if (!blocks || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535)
        BAD("a grid of %zu blocks", (size_t)blocks);
    if (!threads || threads > THREADS || threads % WARP)
        BAD("%zu threads a block; here it is a multiple of %d up to %d", (size_t)threads, WARP, THREADS);
    if (shared_bytes > machine.shared_most) BAD("%zu bytes of shared memory", shared_bytes);
    for (uint64_t i = 0; i < blocks; i++) {
        unsigned b = nth((unsigned)i, (unsigned)blocks);
        blockIdx = (emulate_index){b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
        run_block();
    }
}

/* ---- inside a kernel ---- */

void emulate_bad(const char *what) {
    BAD("thread %d: %s", machine.current, what);
}

void emulate_begin(void) {
    machine.fiber[machine.current].begun = 1;
}

void emulate_barrier(const char *file, int line) {
    wait_for(AT_BARRIER, file, line);
}

const unsigned char *emulate_exchange(unsigned mask, const void *mine, size_t size, const char *file,
                                      int line) {
    if (mask != 0xffffffffu) BAD("%s:%d: a collective of lanes %#x", file, line, mask);
    warp *w = &machine.warp[machine.current / WARP];
    unsigned char *slots = w->slot[w->turn];
    REQUIRE(size <= EMULATE_SLOT);
    if (size) memcpy(slots + (size_t)(machine.current % WARP) * EMULATE_SLOT, mine, size);
    wait_for(IN_COLLECTIVE, file, line);
    return slots;
}

void *emulate_shared(size_t bytes, const char *file, int line) {
    for (int i = 0; i < machine.shared_arrays; i++) {
        shared_array *s = &machine.shared[i];
        if (s->line == line && s->bytes == bytes && !strcmp(s->file, file)) return s->data;
    }
    REQUIRE(machine.shared_arrays < SHARED_ARRAYS);
    machine.shared_bytes += bytes;
    if (machine.shared_bytes > machine.shared_most) BAD("%zu bytes of shared memory", machine.shared_bytes);
    shared_array *s = &machine.shared[machine.shared_arrays++];
    *s = (shared_array){file, line, bytes, poisoned(bytes)};
    return s->data;
}

void *emulate_dynamic_shared(void) {
    if (!machine.dynamic) BAD("%s", "uses dynamic shared memory and was launched with none");
    return machine.dynamic;
}

static void copy_now(const async_copy *c) {
    memcpy(c->dst, c->src, c->bytes);
    memset((char *)c->dst + c->bytes, 0, c->size - c->bytes);
}

void emulate_copy_async(void *dst, const void *src, size_t size, size_t bytes) {
    fiber *f = &machine.fiber[machine.current];
    if ((uintptr_t)dst % size || (bytes && (uintptr_t)src % size) || bytes > size)
        BAD("thread %d: an asynchronous copy of %zu of %zu bytes from %p to %p", machine.current, bytes, size,
            src, dst);
    if (f->copies == COPIES) BAD("thread %d has more than %d copies under way", machine.current, COPIES);
    f->copy[f->copies++] = (async_copy){dst, src, size, bytes, f->groups};
    if (machine.order == EMULATE_SHUFFLED) copy_now(&f->copy[f->copies - 1]);
}

void emulate_copy_commit(void) {
    machine.fiber[machine.current].groups++;
}

void emulate_copy_wait(int groups) {
    fiber *f = &machine.fiber[machine.current];
    int done = 0;
    while (done < f->copies && f->copy[done].group < f->groups - groups) {
        if (machine.order != EMULATE_SHUFFLED) copy_now(&f->copy[done]);
        done++;
    }
    memmove(f->copy, f->copy + done, (size_t)(f->copies - done) * sizeof *f->copy);
    f->copies -= done;
}

void emulate_product(void (*body)(const void *), const void *argument, size_t bytes) {
    fiber *f = &machine.fiber[machine.current];
    late_product *p = &f->product[f->products];
    if (f->products == PRODUCTS)
        BAD("thread %d has more than %d products under way", machine.current, PRODUCTS);
    REQUIRE(bytes <= sizeof p->argument);
    p->body = body;
    memcpy(p->argument, argument, bytes);
    f->products++;
    if (machine.order == EMULATE_SHUFFLED) emulate_products_wait(0);
}

void emulate_products_wait(int left) {
    fiber *f = &machine.fiber[machine.current];
    int done = 0;
    for (; f->products - done > left; done++) f->product[done].body(f->product[done].argument);
    memmove(f->product, f->product + done, (size_t)(f->products - done) * sizeof *f->product);
    f->products -= done;
}

/* ---- device memory ---- */

void *emulate_malloc(size_t bytes) {
    void *p = NULL;
    REQUIRE(!posix_memalign(&p, 256, bytes ? bytes : 1));
    memset(p, 0xff, bytes);
    machine.given += malloc_usable_size(p);
    return p;
}

void emulate_free(void *p) {
    machine.given -= malloc_usable_size(p);
    free(p);
}

size_t emulate_given(void) {
    return machine.given;
}
