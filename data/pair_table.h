/* A hash table from pairs of token ids to numbers: ranks of merges, counts of pairs. */
#ifndef CARACAL_DATA_PAIR_TABLE_H
#define CARACAL_DATA_PAIR_TABLE_H

#include <stdint.h>

typedef struct pair_entry {
    int32_t left, right; /* left < 0: empty */
    int64_t value;
} pair_entry;

typedef struct pair_table {
    pair_entry *entry; /* open addressing; NULL until the first pair comes */
    uint64_t slots, used;
} pair_table;

/* The pair's value, 0 if it is new.  Valid until the next call. */
int64_t *pair_table_at(pair_table *t, int32_t left, int32_t right);
/* The same, or NULL if the pair is not there. */
const int64_t *pair_table_find(const pair_table *t, int32_t left, int32_t right);
void pair_table_free(pair_table *t);

#endif
