/* What is read of a file of `make bench`: by its tables, and by the table of goals. */
#ifndef CARACAL_TESTS_BENCH_PAGE_H
#define CARACAL_TESTS_BENCH_PAGE_H

#include <jansson.h>

/* A field of an entry; 0 and "" where it is missing. */
double bench_number(const json_t *entry, const char *key);
const char *bench_text(const json_t *entry, const char *key);
/* Is our entry the product, in float32, that the peer's is? */
int bench_same_product(const json_t *ours, const json_t *theirs);
/* Prints what is wanted beside what the file has. */
void bench_goals(const json_t *root);

#endif
