/* golden CASE_DIR OUT_DIR: compares what replay wrote with the case: losses within 1e-6, gradient norm and
 * each gradient tensor 1e-5, each final tensor 5e-5 (relative), expert counts exactly.  Prints the largest
 * differences. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/safetensors.h"
#include "launch/memory.h"

static int failures;

static json_t *read_steps(const char *dir, const char *file) {
    char path[4096];
    json_error_t error;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    json_t *j = json_load_file(path, 0, &error);
    if (!j) FAULT(EXIT_CORRUPT, "%s: %s", path, error.text);
    return json_object_get(j, "steps");
}

static void fail(const char *what, double got, double limit) {
    printf("  FAIL %s: %g, allowed %g\n", what, got, limit);
    failures++;
}

/* The largest relative difference of one key over all steps. */
static double compare_key(const json_t *expected, const json_t *got, const char *key) {
    double worst = 0;
    for (size_t i = 0; i < json_array_size(expected); i++) {
        double a = json_number_value(json_object_get(json_array_get(expected, i), key));
        double b = json_number_value(json_object_get(json_array_get(got, i), key));
        double d = fabs(a - b) / (fabs(a) > 0 ? fabs(a) : 1);
        if (!isfinite(b)) return INFINITY;
        worst = d > worst ? d : worst;
    }
    return worst;
}

static double compare_files(const char *a_dir, const char *b_dir, const char *file, char worst_name[256]) {
    char a_path[4096], b_path[4096];
    safetensors a, b;
    error e = {0};
    double worst = 0;
    snprintf(a_path, sizeof a_path, "%s/%s", a_dir, file);
    snprintf(b_path, sizeof b_path, "%s/%s", b_dir, file);
    if (safetensors_open(&a, a_path, &e) || safetensors_open(&b, b_path, &e)) FAULT(e.code, "%s", e.text);
    if (a.n != b.n) fail("number of tensors", (double)b.n, (double)a.n);
    for (int64_t i = 0; i < a.n; i++) {
        const safetensor *t = &a.tensor[i], *u = safetensors_find(&b, t->name);
        if (!u || u->count != t->count)
            FAULT(EXIT_CORRUPT, "%s: tensor %s is missing or misshapen", b_path, t->name);
        float *x = mem_alloc((size_t)t->count * 4, "a tensor"),
              *y = mem_alloc((size_t)t->count * 4, "a tensor");
        if (safetensors_read_f32(t, 0, t->count, x, &e) || safetensors_read_f32(u, 0, t->count, y, &e))
            FAULT(e.code, "%s", e.text);
        double difference = 0, norm = 0;
        for (int64_t k = 0; k < t->count; k++) {
            difference += ((double)x[k] - y[k]) * ((double)x[k] - y[k]);
            norm += (double)x[k] * x[k];
        }
        double relative = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
        if (!isfinite(relative)) relative = INFINITY;
        if (relative >= worst) {
            worst = relative;
            snprintf(worst_name, 256, "%s", t->name);
        }
        mem_free(x);
        mem_free(y);
    }
    safetensors_close(&a);
    safetensors_close(&b);
    return worst;
}

int main(int argc, char **argv) {
    if (argc != 3) FAULT(EXIT_USAGE, "usage: golden CASE_DIR OUT_DIR");
    json_t *expected = read_steps(argv[1], "expected.json"), *got = read_steps(argv[2], "steps.json");
    if (json_array_size(expected) != json_array_size(got))
        fail("number of steps", (double)json_array_size(got), 0);
    const char *losses[] = {"lm", "lb", "z", "mtp", "total", "ffn_experts_mean", "ffn_experts_std"};
    double loss = 0;
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
        double d = compare_key(expected, got, losses[i]);
        if (!(d <= 1e-6)) fail(losses[i], d, 1e-6);
        loss = d > loss ? d : loss;
    }
    double norm = compare_key(expected, got, "grad_norm");
    if (!(norm <= 1e-5)) fail("grad_norm", norm, 1e-5);
    for (size_t i = 0; i < json_array_size(expected); i++)
        if (!json_equal(json_object_get(json_array_get(expected, i), "counts"),
                        json_object_get(json_array_get(got, i), "counts")))
            fail("expert counts differ at step", (double)i, 0);
    char grad_name[256] = "", final_name[256] = "";
    double grad = compare_files(argv[1], argv[2], "grads.safetensors", grad_name);
    if (!(grad <= 1e-5)) fail(grad_name, grad, 1e-5);
    double final = compare_files(argv[1], argv[2], "final.safetensors", final_name);
    if (!(final <= 5e-5)) fail(final_name, final, 5e-5);
    printf("  losses %.1e  norm %.1e  gradients %.1e  weights %.1e  %s\n", loss, norm, grad, final,
           failures ? "FAILED" : "ok");
    return failures != 0;
}
