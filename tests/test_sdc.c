/* Which layer of which micro-batch is computed twice (train/sdc.h): in turn all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/state.h"

static void every_layer_of_every_turn(void **unused) {
    enum { INTERVAL = 3, LAYERS = 5, TURNS = 4, ROUND = INTERVAL * LAYERS * TURNS };
    int seen[TURNS][LAYERS] = {0};
    (void)unused;
    for (int64_t step = 0; step < 2 * ROUND; step++) {
        const state s = {
            .step = step, .c.sdc.interval = INTERVAL, .c.model.num_layers = LAYERS, .mesh.turns = TURNS};
        int checks = 0;
        for (int64_t turn = 0; turn < TURNS; turn++) {
            int64_t layer = sdc_layer(&s, turn);
            if (layer < 0) continue;
            assert_true(layer < LAYERS);
            seen[turn][layer]++;
            checks++;
        }
        assert_int_equal(checks, (step + 1) % INTERVAL == 0); /* one, in checked steps alone */
    }
    for (int turn = 0; turn < TURNS; turn++)
        for (int layer = 0; layer < LAYERS; layer++) assert_int_equal(seen[turn][layer], 2);
    const state off = {.step = INTERVAL - 1, .c.model.num_layers = LAYERS, .mesh.turns = TURNS};
    assert_int_equal(sdc_layer(&off, 0), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer_of_every_turn),
    };
    return cmocka_run_group_tests_name("sdc", tests, NULL, NULL);
}
