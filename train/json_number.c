#include "train/json_number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

json_t *json_finite(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

double json_finite_value(const json_t *j) {
    return json_is_number(j) ? json_number_value(j) : NAN;
}

double json_finite_of(const json_t *object, const char *key) {
    return json_finite_value(json_object_get(object, key));
}

json_t *json_exact(double x) {
    char text[64];
    snprintf(text, sizeof text, "%a", x);
    return json_string(text);
}

double json_exact_value(const json_t *j) {
    const char *text = json_string_value(j);
    return text ? strtod(text, NULL) : 0;
}
