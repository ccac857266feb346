/* The tables of `caracal curves`, in Markdown. */
#include "train/curves.h"

#include <math.h>
#include <string.h>

#include "train/svg.h"

static double held_out(const arm_run *r) {
    return run_held_out(&r->part[r->parts - 1]);
}

/* Where a layer's value lies at the end of the steps up to `last`: the mean over the last `smooth` of them.
 */
static double layer_mean(const curves *c, const arm_run *r, int k, int64_t layer, double last) {
    const double *y = r->value[k] + layer * r->points;
    double sum = 0, n = 0;
    for (int64_t i = 0; i < r->points; i++)
        if (r->axis[OVER_STEPS][i] <= last && r->axis[OVER_STEPS][i] > last - (double)c->smooth)
            sum += y[i], n++;
    return sum / n;
}

void curves_end(const curves *c, const arm *a, int k, double *mean, double *deviation) {
    double x[ARM_RUNS];
    for (int i = 0; i < a->runs; i++) {
        const arm_run *r = &a->run[i];
        x[i] = layer_mean(c, r, k, r->width[k], r->axis[OVER_STEPS][r->points - 1]);
    }
    curves_spread(a->runs, x, mean, deviation);
}

static void cell(double mean, double deviation, const char *format) {
    fputs(" | ", stdout);
    if (!isfinite(mean)) {
        putchar('-');
        return;
    }
    printf(format, mean);
    if (isfinite(deviation)) printf(" \302\261 %.3f", deviation);
}

/* The first arm of the same panel: what the others are measured against. */
static const arm *first_of(const curves *c, const arm *a) {
    for (int i = 0;; i++)
        if (!strcmp(c->arm[i].panel, a->panel)) return &c->arm[i];
}

static int same_seed(const run_data *a, const run_data *b) {
    return !a->has_config || !b->has_config || a->c.train.seed == b->c.train.seed;
}

/* The run of `first` that run r of `a` is measured against: of its seed, in whatever order they were named.
 */
static const arm_run *partner(const arm *first, const arm *a, int r) {
    const run_data *run = &a->run[r].part[0];
    if (same_seed(&first->run[r].part[0], run)) return &first->run[r];
    for (int i = 0; i < first->runs; i++)
        if (same_seed(&first->run[i].part[0], run)) return &first->run[i];
    return NULL;
}

void curves_ends(const curves *c) {
    int panels = 0;
    for (int i = 0; i < c->arms; i++) panels |= c->arm[i].panel[0] != 0;
    printf("|%s | runs | held-out loss | difference |", panels ? " | " : "");
    for (int k = 0; k < c->keys; k++) printf(" %s |", c->label[k]);
    printf("\n|%s --- | ---: | ---: | ---: |", panels ? " --- |" : "");
    for (int k = 0; k < c->keys; k++) fputs(" ---: |", stdout);
    putchar('\n');
    for (int i = 0; i < c->arms; i++) {
        const arm *a = &c->arm[i], *first = first_of(c, a);
        double x[ARM_RUNS], mean, deviation;
        if (panels) printf("| %s ", a->panel);
        printf("| %s | %d", a->name, a->runs);
        for (int r = 0; r < a->runs; r++) x[r] = held_out(&a->run[r]);
        curves_spread(a->runs, x, &mean, &deviation);
        cell(mean, deviation, "%.3f");
        int paired = a != first && a->runs == first->runs;
        for (int r = 0; paired && r < a->runs; r++) {
            const arm_run *other = partner(first, a, r);
            if (other) x[r] -= held_out(other);
            else paired = 0;
        }
        if (paired) curves_spread(a->runs, x, &mean, &deviation);
        else mean = deviation = NAN;
        cell(mean, deviation, "%+.3f");
        for (int k = 0; k < c->keys; k++) {
            curves_end(c, a, k, &mean, &deviation);
            cell(mean, deviation, "%.4g");
        }
        puts(" |");
    }
}

/* The steps up to each mark and to the end. */
void curves_phases(const curves *c) {
    fputs("| | steps |", stdout);
    for (int k = 0; k < c->keys; k++) printf(" %s: lowest layer | mean | highest |", c->label[k]);
    if (c->rules) printf(" furthest from %s | layers within 1%% |", c->rule[0].label);
    fputs("\n| --- | ---: |", stdout);
    for (int k = 0; k < 3 * c->keys + 2 * (c->rules > 0); k++) fputs(" ---: |", stdout);
    putchar('\n');
    for (int i = 0; i < c->arms; i++)
        for (int m = 0; m <= c->marks; m++) {
            const arm_run *r = &c->arm[i].run[0];
            double last = m < c->marks ? c->mark[m].at : r->axis[OVER_STEPS][r->points - 1];
            double shown = m < c->marks ? last : (double)arm_run_last(r); /* last: of a bin the middle */
            double furthest = NAN, within = 0;
            printf("| %s | %.0f to %.0f", c->arm[i].name,
                   fmax(shown - (double)c->smooth + 1, (double)r->log[0].first), shown);
            for (int k = 0; k < c->keys; k++) {
                double low = INFINITY, high = -INFINITY;
                for (int64_t l = 0; l < r->width[k]; l++) {
                    double x = layer_mean(c, r, k, l, last), away = fabs(x / c->rule[0].at - 1);
                    chart_range(1, &x, &low, &high);
                    if (k || !c->rules) continue;
                    furthest = fmax(furthest, away);
                    within += away <= 0.01;
                }
                cell(low, NAN, "%.3f");
                cell(layer_mean(c, r, k, r->width[k], last), NAN, "%.3f");
                cell(high, NAN, "%.3f");
            }
            if (c->rules) {
                cell(100 * furthest, NAN, "%.1f%%");
                printf(" | %.0f of %lld", within, (long long)r->width[0]);
            }
            puts(" |");
        }
}
