/* What the report says of steps whose loss or gradient norm leapt. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "launch/memory.h"
#include "train/json_number.h"
#include "train/run_data.h"

static void figure(FILE *out, const char *name, double x, double limit) {
    fprintf(out, "%s %.4g", name, x);
    if (isfinite(limit)) fprintf(out, " (limit %.4g)", limit);
}

static void spike(FILE *out, int64_t step, int64_t attempt, const json_t *figures, const json_t *limits) {
    char again[32] = "";
    if (attempt) snprintf(again, sizeof again, "-%" PRId64, attempt + 1);
    fprintf(out, "<p>A spike in step %" PRId64 ": ", step);
    figure(out, "LM loss", json_finite_of(figures, "lm_loss"), json_finite_of(limits, "loss_limit"));
    figure(out, ", gradient norm", json_finite_of(figures, "grad_norm"),
           json_finite_of(limits, "grad_limit"));
    if (limits == figures)
        fprintf(out, ". The step was undone, and samples %" PRId64 " to %" PRId64 " are left out",
                (int64_t)json_finite_of(limits, "first_sample"),
                (int64_t)(json_finite_of(limits, "first_sample") + json_finite_of(limits, "samples")) - 1);
    fprintf(out, ". <a href=\"spikes/step-%08" PRId64 "%s.txt\">Its batch</a></p>\n", step, again);
}

void run_note_spikes(run_data *r, const json_t *row) {
    const json_t *limits = json_object_get(row, "spike"), *undone = json_object_get(row, "rollbacks"), *one;
    int before = r->spiking; /* only the first of several in a row has a batch of its own */
    int64_t step = json_integer_value(json_object_get(row, "step"));
    char *text = NULL;
    size_t size = 0, i;
    r->spiking = limits != NULL;
    if (!undone && (!limits || before)) return;
    FILE *out = open_memstream(&text, &size);
    if (!out) FAULT(EXIT_NO_MEMORY, "no memory for the report");
    if (r->spikes) fputs(r->spikes, out);
    json_array_foreach(undone, i, one) spike(out, step, (int64_t)i, one, one);
    if (limits && !before) spike(out, step, 0, row, limits);
    fclose(out);
    mem_free(r->spikes);
    r->spikes = text;
    run_mark(r, step, "rule", undone ? "rollback" : "spike");
}
