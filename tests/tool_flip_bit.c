/* flip_bit CKPT DIRECTORY TENSOR INDEX BIT: writes the checkpoint again under DIRECTORY, with one bit of one
 * element flipped: whole, verified, and wrong. */
#include <stdio.h>
#include <stdlib.h>

#include "ckpt/ckpt.h"
#include "ckpt/layout.h"
#include "launch/memory.h"

int main(int argc, char **argv) {
    comm *world;
    ckpt *k;
    error e = {0};
    if (argc != 6) FAULT(EXIT_USAGE, "usage: flip_bit CKPT DIRECTORY TENSOR INDEX BIT");
    if (comm_open(&world, 60, &e) || ckpt_open(world, argv[1], &k, &e)) FAULT(e.code, "%s", e.text);
    const ckpt_tensor *t;
    int64_t n = ckpt_tensors(k, &t), flipped = ckpt_find(k, argv[3]), index = atoll(argv[4]),
            bit = atoll(argv[5]);
    if (flipped < 0 || index >= ckpt_elements(&t[flipped])) FAULT(EXIT_USAGE, "%s: no such element", argv[3]);
    ckpt_slice *s = mem_alloc((size_t)n * sizeof *s, "slices");
    for (int64_t i = 0; i < n; i++)
        s[i] = (ckpt_slice){i, 0, ckpt_elements(&t[i]), mem_alloc(ckpt_bytes(&t[i]), "a tensor")};
    if (ckpt_read(k, s, n, &e)) FAULT(e.code, "%s", e.text);
    unsigned char *element =
        (unsigned char *)s[flipped].data + (size_t)index * ckpt_type_size(t[flipped].type);
    element[bit / 8] ^= (unsigned char)(1 << bit % 8);
    if (ckpt_save(world, argv[2], ckpt_step(k), ckpt_files(k), t, n, s, n, ckpt_state(k), &e))
        FAULT(e.code, "%s", e.text);
    for (int64_t i = 0; i < n; i++) mem_free(s[i].data);
    mem_free(s);
    ckpt_close(k);
    comm_close(world);
    return 0;
}
