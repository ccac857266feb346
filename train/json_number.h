/* Numbers in this program's JSON, which knows neither NaN nor infinity. */
#ifndef CARACAL_TRAIN_JSON_NUMBER_H
#define CARACAL_TRAIN_JSON_NUMBER_H

#include <jansson.h>

/* A number, null where it is not finite; and back: what is no number (or not there) is NaN. */
json_t *json_finite(double x);
double json_finite_value(const json_t *j);
double json_finite_of(const json_t *object, const char *key);

/* A number as C writes it in hexadecimal, which is exact and knows infinity; what is not such a text is 0. */
json_t *json_exact(double x);
double json_exact_value(const json_t *j);

#endif
