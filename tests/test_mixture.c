/* The mixture and its stages: each sample once per epoch whatever changes on the way, shares that follow a
 * ramp, positions found directly, and a past that does not depend on what is to come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "data/mixture.h"

enum { LENGTH = 8, SOURCES = 3, MOST = 5000 };

static int64_t samples[(DATA_MAX_STAGES + 1) * SOURCES]; /* in an epoch, by stage */

static data_config sources_of(double a, double b, double c) {
    static char *const names[] = {"a", "b", "c"};
    const double weight[] = {a, b, c};
    data_config d = {.sources = SOURCES};
    for (int s = 0; s < SOURCES; s++) d.source[s] = (data_source){.name = names[s], .weight = weight[s]};
    return d;
}

static data_stage *add_stage(data_config *d, int64_t position, int64_t ramp, int64_t length, double a,
                             double b, double c) {
    data_stage *g = &d->stage[d->stages++];
    *g = (data_stage){.after = position,
                      .position = position,
                      .ramp_samples = ramp,
                      .seq_len = length,
                      .weight = {a, b, c}};
    return g;
}

/* Every length has samples of its own number. */
static mixture *open_mixture(const data_config *d) {
    static const int64_t of[] = {700, 4001, 90};
    mixture *m;
    error e = {0};
    for (int64_t k = 0; k <= d->stages; k++)
        for (int s = 0; s < SOURCES; s++)
            samples[k * SOURCES + s] = of[s] * LENGTH / (k ? d->stage[k - 1].seq_len : LENGTH);
    if (mixture_open(&m, d, LENGTH, samples, 7, &e)) fail_msg("%s", e.text);
    return m;
}

static int64_t stage_at(const data_config *d, int64_t position) {
    int64_t k = 0;
    while (k < d->stages && d->stage[k].position <= position) k++;
    return k;
}

/* Draws the positions [from, to) and checks that no sample comes twice in an epoch, and, from the run's start
 * and with one length, that epochs are whole but for those that the last blocks are still in; came: of each
 * source. */
static void draw(const data_config *d, const mixture *m, int64_t from, int64_t to, int64_t *came) {
    enum { EPOCHS = 400 };
    static char seen[SOURCES][EPOCHS][MOST];
    static int64_t number[SOURCES][EPOCHS];
    memset(seen, 0, sizeof seen);
    memset(number, 0, sizeof number);
    memset(came, 0, SOURCES * sizeof *came);
    for (int64_t i = from; i < to; i++) {
        int64_t k = stage_at(d, i);
        mixture_draw x = mixture_at(m, k, i);
        assert_in_range(x.epoch, 0, EPOCHS - 1);
        assert_true(x.ordinal >= 0 && x.ordinal < samples[k * SOURCES + x.source]);
        assert_false(seen[x.source][x.epoch][x.ordinal]);
        seen[x.source][x.epoch][x.ordinal] = 1;
        number[x.source][x.epoch]++;
        came[x.source]++;
    }
    if (from) return;
    int one_length = 1;
    for (int64_t k = 0; k < d->stages; k++) one_length &= d->stage[k].seq_len == LENGTH;
    for (int s = 0; s < SOURCES && one_length; s++) { /* whole epochs, but for what the last block may hold */
        int64_t open = came[s];
        for (int64_t n = 0; n < EPOCHS; n++) {
            int64_t all = samples[s], missing = all - number[s][n];
            if (open >= all + 2 * LOADER_BLOCK) assert_int_equal(missing, 0);
            open -= number[s][n];
        }
    }
}

static void each_sample_once_per_epoch(void **state) {
    (void)state;
    data_config d = sources_of(3, 1, 1);
    int64_t came[SOURCES];
    add_stage(&d, 5000, 6000, LENGTH, 1, 8, 1); /* a ramp, after a block cut short */
    add_stage(&d, 11300, 0, LENGTH, 1, 0, 3);   /* b comes no more */
    add_stage(&d, 11400, 0, LENGTH, 2, 1, 1);   /* less than a block later: what is left over is left again */
    add_stage(&d, 11401, 0, LENGTH, 1, 1, 1);
    add_stage(&d, 12500, 1000, LENGTH, 0, 7, 1); /* a ramp within one block */
    add_stage(&d, 20000, 9999, LENGTH, 7, 0, 1);
    mixture *m = open_mixture(&d);
    draw(&d, m, 0, 40000, came);
    assert_true(came[0] > 14000 && came[1] > 12000 && came[2] > 4000);
    assert_false(mixture_uses(m, 2, 1));
    assert_true(mixture_uses(m, 6, 1)); /* in the ramp */
    mixture_close(m);
}

/* A new length: new samples, and epochs with numbers of their own. */
static void another_length_begins_an_epoch(void **state) {
    (void)state;
    data_config d = sources_of(3, 1, 1);
    int64_t came[SOURCES], last[SOURCES] = {0};
    add_stage(&d, 5000, 0, 2 * LENGTH, 3, 1, 1);
    add_stage(&d, 9000, 2000, LENGTH, 1, 1, 1);
    mixture *m = open_mixture(&d);
    draw(&d, m, 0, 15000, came);
    int agree = 0; /* a block that the stage cut short, and the stage's first have orders of their own */
    for (int64_t i = 4 * LOADER_BLOCK; i < 5000; i++)
        agree += mixture_at(m, 0, i).source == mixture_at(m, 1, 5000 + i - 4 * LOADER_BLOCK).source;
    assert_true(agree < 700); /* of 904 */
    for (int64_t k = 0; k <= d.stages; k++) {
        int64_t begin = k ? d.stage[k - 1].position : 0, end = k < d.stages ? d.stage[k].position : 15000;
        int64_t first[SOURCES] = {-1, -1, -1}, most[SOURCES] = {0};
        for (int64_t i = begin; i < end; i++) {
            mixture_draw x = mixture_at(m, k, i);
            int s = (int)x.source;
            if (first[s] < 0 || x.epoch < first[s]) first[s] = x.epoch;
            if (x.epoch > most[s]) most[s] = x.epoch;
        }
        for (int s = 0; s < SOURCES; s++) {
            if (k) assert_true(first[s] > last[s]);
            last[s] = most[s];
        }
    }
    mixture_close(m);
}

static void shares_follow_the_ramp(void **state) {
    (void)state;
    data_config d = sources_of(8, 1, 1);
    enum { BLOCKS = 40 };
    add_stage(&d, 3000, (BLOCKS - 1) * LOADER_BLOCK + 1, LENGTH, 0, 300, 100); /* other sums: shares count */
    mixture *m = open_mixture(&d);
    const double from[] = {0.8, 0.1, 0.1}, to[] = {0, 0.75, 0.25};
    for (int64_t b = 0; b < BLOCKS + 3; b++) {
        int64_t count[SOURCES] = {0};
        for (int64_t i = 0; i < LOADER_BLOCK; i++)
            count[mixture_at(m, 1, 3000 + b * LOADER_BLOCK + i).source]++;
        double x = ((double)b + 0.5) * LOADER_BLOCK / (double)d.stage[0].ramp_samples;
        if (x > 1) x = 1;
        for (int s = 0; s < SOURCES; s++)
            assert_true(fabs((double)count[s] - LOADER_BLOCK * ((1 - x) * from[s] + x * to[s])) <= 1);
    }
    mixture_close(m);
}

/* A ramp of 10^12 samples has a table of a thousand levels, and epochs stay whole in it. */
static void a_long_ramp_is_found_directly(void **state) {
    (void)state;
    data_config d = sources_of(1, 1, 1);
    int64_t came[SOURCES], ramp = 1000000000000;
    add_stage(&d, 100, ramp, LENGTH, 9, 1, 2);
    mixture *m = open_mixture(&d);
    double share[SOURCES] = {0};
    for (int64_t i = 0; i < 20000; i++) share[mixture_at(m, 1, 100 + ramp / 4 + i * 7919).source] += 1 / 2e4;
    assert_true(fabs(share[0] - (0.75 / 3 + 0.25 * 0.75)) < 0.02);
    mixture_draw at = mixture_at(m, 1, 100 + ramp / 2), again = mixture_at(m, 1, 100 + ramp / 2);
    assert_memory_equal(&at, &again, sizeof at);
    assert_true(at.epoch > 1000000);
    draw(&d, m, 0, 30000, came);
    mixture_close(m);
}

/* What came before a stage does not depend on it; a change that is none of the data's changes nothing; and a
 * run that skipped samples finds a stage past its end. */
static void the_past_stays(void **state) {
    (void)state;
    data_config d = sources_of(3, 1, 1), more = d, same = d;
    add_stage(&more, 2500, 3000, 3 * LENGTH, 1, 1, 9);
    add_stage(&same, 2500, 3000, LENGTH, 3, 1, 1);
    mixture *m = open_mixture(&d), *with = open_mixture(&more), *unmoved = open_mixture(&same);
    for (int64_t i = 0; i < 6000; i++) {
        mixture_draw x = mixture_at(m, 0, i), y = mixture_at(with, 0, i),
                     z = mixture_at(unmoved, i > 2499, i);
        assert_memory_equal(&x, &y, sizeof x);
        assert_memory_equal(&x, &z, sizeof x);
    }
    mixture_close(m);
    mixture_close(with);
    mixture_close(unmoved);
}

static void too_small_a_weight(void **state) {
    (void)state;
    data_config d = sources_of(3, 1, 1);
    mixture *m;
    error e = {0};
    add_stage(&d, 100, 0, LENGTH, 1, 3000, 0);
    assert_int_equal(mixture_open(&m, &d, LENGTH, samples, 7, &e), EXIT_USAGE);
    assert_string_equal(e.text, "data.stages: the stage after step 100: data source a: its weight 1 is less "
                                "than one sample in 1024, so none would come");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_sample_once_per_epoch),
        cmocka_unit_test(another_length_begins_an_epoch),
        cmocka_unit_test(shares_follow_the_ramp),
        cmocka_unit_test(a_long_ramp_is_found_directly),
        cmocka_unit_test(the_past_stays),
        cmocka_unit_test(too_small_a_weight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
